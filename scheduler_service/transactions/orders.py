"""What an executor is sent to start the run of a claimed task."""

from __future__ import annotations

from scheduler_service.core import pre_flight
from scheduler_service.core.routing import model_for, permission_mode_for, provider_for, skill_for
from scheduler_service.core.run import RunOrder
from scheduler_service.core.task import Task


def order_of(task: Task, executor_id: str) -> RunOrder:
    """What the executor is sent for a claimed task."""
    if task.run_id is None:
        raise ValueError(f"task {task.id} is not claimed")
    return RunOrder(
        run_id=task.run_id,
        task_id=task.id,
        fence=task.fence,
        executor_id=executor_id,
        backend=task.backend,
        title=task.title,
        description=pre_flight.body_of(task),
        task_type=task.task_type,
        payload=task.payload,
        timeout=task.timeout,
        skill=skill_for(task.task_type, task.skill, task.payload),
        permission_mode=permission_mode_for(task.task_type),
        model=model_for(task.task_type) or "",
        provider=provider_for(task.task_type),
    )
