"""A good queued task, and moves of it into other states."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.task import Priority, Task, TaskStatus, due_time, rank_time

CREATED = datetime(2026, 2, 25, 12, 0, tzinfo=UTC)


@pytest.fixture
def created() -> datetime:
    return CREATED


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """Builds a queued task that passes every check; keyword arguments replace fields."""

    def build(**changes: Any) -> Task:
        task = Task(
            id=UUID(int=1),
            title="Add a retry to the importer",
            description="The importer gives up at the first refused connection; let it try three times.",
            task_type="dev",
            priority=Priority.P1,
            skill="",
            payload={},
            depends_on=(),
            max_tries=3,
            not_before_time=None,
            timeout=timedelta(hours=1),
            backend="cecelia-run",
            status=TaskStatus.QUEUED,
            hold_reason=HoldReason.NONE,
            run_id=None,
            fence=0,
            tries=0,
            start_failures=0,
            last_start_failure_time=None,
            executor_id="",
            exit_code=None,
            result="",
            error="",
            cancel_requested=False,
            blocked_by=0,
            rank_time=rank_time(CREATED, Priority.P1),
            due_time=due_time(CREATED, None, None),
            create_time=CREATED,
            update_time=CREATED,
            start_time=None,
            end_time=None,
            next_attempt_time=None,
        )
        return replace(task, **changes)

    return build
