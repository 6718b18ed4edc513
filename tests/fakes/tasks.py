"""A good queued task."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from scheduler_service.core.task import Priority, Task, TaskStatus, due_time, rank_time


def queued_task(created: datetime, **changes: Any) -> Task:
    """A queued task that passes every check; keyword arguments replace fields."""
    task = Task(
        id=UUID(int=1),
        title="Add a retry to the importer",
        description="The importer gives up at the first refused connection; let it try three times.",
        task_type="dev",
        priority=Priority.P1,
        max_tries=3,
        timeout=timedelta(hours=1),
        backend="cecelia-run",
        status=TaskStatus.QUEUED,
        rank_time=rank_time(created, Priority.P1),
        due_time=due_time(created, None, None),
        create_time=created,
        update_time=created,
    )
    return replace(task, **changes)
