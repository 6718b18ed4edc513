"""A good queued task."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.task import Priority, Task, TaskStatus, due_time, rank_time


def queued_task(created: datetime, **changes: Any) -> Task:
    """A queued task that passes every check; keyword arguments replace fields."""
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
        rank_time=rank_time(created, Priority.P1),
        due_time=due_time(created, None, None),
        create_time=created,
        update_time=created,
        start_time=None,
        end_time=None,
        next_attempt_time=None,
    )
    return replace(task, **changes)
