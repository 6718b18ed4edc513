"""What callers do to stored tasks: cancel, requeue, change."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.task import (
    LIVE_STATUSES,
    DependencyPolicy,
    Task,
    TaskChanges,
    TaskStatus,
    cancel,
    edit,
    request_cancel,
    requeue,
    waiting_hold,
)
from scheduler_service.transactions.consequences import conclude
from scheduler_service.transactions.ports import AuditEntry, Lock, Transaction
from service_runtime.errors import FailedPrecondition, NotFound

_ENDED_BADLY = (TaskStatus.FAILED, TaskStatus.CANCELLED)


async def _locked(tx: Transaction, task_id: UUID) -> Task:
    task = (await tx.tasks([task_id], Lock.UPDATE)).get(task_id)
    if task is None:
        raise NotFound(f"no task has the id {task_id}", reason="TASK_NOT_FOUND")
    return task


async def _audit(tx: Transaction, method: str, task: Task, actor: str, reason: str, request_id: str) -> None:
    await tx.append_audit(AuditEntry(tx.now, actor, method, str(task.id), reason, request_id, {"status": task.status.value}))


async def cancel_task(tx: Transaction, task_id: UUID, *, actor: str, reason: str, request_id: str) -> Task:
    """Cancels a waiting task at once; of a live one it notes the wish, and CANCELLED follows when its run has ended.

    Cancelling a cancelled task changes nothing. Raises NotFound, and FailedPrecondition for a task that completed or failed.
    """
    task = await _locked(tx, task_id)
    if task.status is TaskStatus.CANCELLED or task.cancel_requested:
        return task
    if task.status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
        raise FailedPrecondition(f"task {task_id} has {task.status.value} already", reason="TASK_ENDED")
    await _audit(tx, "CancelTask", task, actor, reason, request_id)
    if task.status in LIVE_STATUSES:
        task = request_cancel(task, tx.now)
        await tx.save_tasks([task])
        return task
    task = cancel(task, tx.now, f"cancelled: {reason}" if reason else "cancelled")
    await tx.save_tasks([task])
    await conclude(tx, [(task, None)])
    return task


async def requeue_task(tx: Transaction, task_id: UUID, *, actor: str, reason: str, request_id: str) -> Task:
    """Puts a failed, cancelled or quarantined task back as if new.

    Raises NotFound, and FailedPrecondition for a task in another status or with a prerequisite that ended badly.
    """
    task = await _locked(tx, task_id)
    if task.status not in (*_ENDED_BADLY, TaskStatus.QUARANTINED):
        raise FailedPrecondition(
            f"task {task_id} is {task.status.value}; only failed, cancelled and quarantined tasks can be requeued",
            reason="TASK_NOT_ENDED" if task.status is not TaskStatus.COMPLETED else "TASK_ENDED",
        )
    await _audit(tx, "RequeueTask", task, actor, reason, request_id)
    task = await _back_in_queue(tx, requeue(task, tx.now))
    await tx.save_tasks([task])
    return task


async def _back_in_queue(tx: Transaction, task: Task) -> Task:
    prerequisites = await tx.tasks(task.depends_on, Lock.SHARE)
    for other in task.depends_on if task.dependency_policy is DependencyPolicy.FAIL else ():
        if other not in prerequisites or prerequisites[other].status in _ENDED_BADLY:
            raise FailedPrecondition(
                f"prerequisite {other} has not completed and will not; requeue it first",
                reason=HoldReason.DEPENDENCY_FAILED.value,
            )
    completed = {id_ for id_, other in prerequisites.items() if other.status is TaskStatus.COMPLETED}
    open_ones = sum(1 for other in task.depends_on if other not in completed)
    counted = replace(task, blocked_by=open_ones)
    return replace(counted, hold_reason=waiting_hold(counted, tx.now))


async def update_task(tx: Transaction, task_id: UUID, changes: TaskChanges, *, actor: str, request_id: str) -> Task:
    """Changes a queued task, or a quarantined one, which is requeued by it. Raises NotFound and FailedPrecondition."""
    task = await _locked(tx, task_id)
    if task.status not in (TaskStatus.QUEUED, TaskStatus.QUARANTINED):
        raise FailedPrecondition(
            f"task {task_id} is {task.status.value}; only queued and quarantined tasks can be changed", reason="TASK_NOT_QUEUED"
        )
    await _audit(tx, "UpdateTask", task, actor, ", ".join(sorted(changes)), request_id)
    was_quarantined = task.status is TaskStatus.QUARANTINED
    task = edit(task, tx.now, **changes)
    if was_quarantined:
        task = await _back_in_queue(tx, task)
    await tx.save_tasks([task])
    return task
