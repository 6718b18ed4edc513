"""What callers do to stored tasks: cancel, requeue, change."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.task import (
    LIVE_STATUSES,
    DependencyPolicy,
    Priority,
    Task,
    TaskChanges,
    TaskStatus,
    cancel,
    edit,
    request_cancel,
    requeue,
    waiting_hold,
)
from scheduler_service.transactions.auditing import Caller, audit
from scheduler_service.transactions.consequences import conclude
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import Lock
from service_runtime.errors import FailedPrecondition, NotFound

SHOWN_CHARS = 200
_ENDED_BADLY = (TaskStatus.FAILED, TaskStatus.CANCELLED)
CANCELLABLE = (TaskStatus.QUEUED, TaskStatus.DISPATCHING, TaskStatus.RUNNING, TaskStatus.QUARANTINED)
REQUEUEABLE = (*_ENDED_BADLY, TaskStatus.QUARANTINED)


async def _locked(tx: Transaction, task_id: UUID) -> Task:
    task = (await tx.tasks([task_id], Lock.UPDATE)).get(task_id)
    if task is None:
        raise NotFound(f"no task has the id {task_id}", reason="TASK_NOT_FOUND")
    return task


async def _audit(tx: Transaction, method: str, before: Task, after: Task, caller: Caller, fields: Iterable[str] = ()) -> None:
    shown = [{name: _shown(getattr(task, name)) for name in ("status", *fields)} for task in (before, after)]
    await audit(tx, method, str(after.id), caller, *shown)


def _shown(value: object) -> str:
    """A value as the audit log keeps it: enough to know it by."""
    match value:
        case Priority():
            text = value.name
        case Mapping():
            text = json.dumps(value, ensure_ascii=False, sort_keys=True)
        case datetime():
            text = value.isoformat()
        case None:
            text = ""
        case _:
            text = str(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


async def cancel_task(tx: Transaction, task_id: UUID, *, actor: str, reason: str, request_id: str) -> Task:
    """Cancels a waiting task at once; of a live one it notes the wish, and CANCELLED follows when its run has ended.

    Cancelling a cancelled task changes nothing. Raises NotFound, and FailedPrecondition for a task that completed or failed.
    """
    task = await _locked(tx, task_id)
    if task.status is TaskStatus.CANCELLED or task.cancel_requested:
        return task
    if task.status not in CANCELLABLE:
        raise FailedPrecondition(f"task {task_id} has {task.status.value} already", reason="TASK_ENDED")
    (after,) = await cancel_locked(tx, [task], reason)
    await _audit(tx, "CancelTask", task, after, Caller(actor, reason, request_id), ["cancel_requested"])
    return after


async def cancel_locked(tx: Transaction, tasks: Sequence[Task], reason: str) -> list[Task]:
    """Cancels locked tasks that are CANCELLABLE, or notes the wish; as they are then."""
    why = f"cancelled: {reason}" if reason else "cancelled"
    changed = [request_cancel(task, tx.now) if task.status in LIVE_STATUSES else cancel(task, tx.now, why) for task in tasks]
    await tx.save_tasks(changed)
    await conclude(tx, [(task, None) for task in changed if task.status is TaskStatus.CANCELLED])
    return changed


async def requeue_task(tx: Transaction, task_id: UUID, *, actor: str, reason: str, request_id: str) -> Task:
    """Puts a failed, cancelled or quarantined task back as if new.

    Raises NotFound, and FailedPrecondition for a task in another status or with a prerequisite that ended badly.
    """
    task = await _locked(tx, task_id)
    if task.status not in REQUEUEABLE:
        raise FailedPrecondition(
            f"task {task_id} is {task.status.value}; only failed, cancelled and quarantined tasks can be requeued",
            reason="TASK_NOT_ENDED" if task.status is not TaskStatus.COMPLETED else "TASK_ENDED",
        )
    after = await _back_in_queue(tx, requeue(task, tx.now))
    await tx.save_tasks([after])
    await _audit(tx, "RequeueTask", task, after, Caller(actor, reason, request_id))
    return after


async def _back_in_queue(tx: Transaction, task: Task) -> Task:
    prerequisites = await tx.tasks(task.depends_on, Lock.SHARE)
    other = dead_end(task, prerequisites)
    if other is not None:
        raise FailedPrecondition(
            f"prerequisite {other} has not completed and will not; requeue it first",
            reason=HoldReason.DEPENDENCY_FAILED.value,
        )
    await tx.note_put_back(1)
    return blocked_by(task, prerequisites, tx.now)


def dead_end(task: Task, prerequisites: Mapping[UUID, Task]) -> UUID | None:
    """A prerequisite that ends the task as it is: it will not complete, and the task does not wait for better times."""
    if task.dependency_policy is not DependencyPolicy.FAIL:
        return None
    dead = (other for other in task.depends_on if other not in prerequisites or prerequisites[other].status in _ENDED_BADLY)
    return next(dead, None)


def blocked_by(task: Task, prerequisites: Mapping[UUID, Task], now: datetime) -> Task:
    """A queued task with its open prerequisites counted."""
    completed = {id_ for id_, other in prerequisites.items() if other.status is TaskStatus.COMPLETED}
    open_ones = sum(1 for other in task.depends_on if other not in completed)
    counted = replace(task, blocked_by=open_ones)
    return replace(counted, hold_reason=waiting_hold(counted, now))


async def update_task(tx: Transaction, task_id: UUID, changes: TaskChanges, *, actor: str, request_id: str) -> Task:
    """Changes a queued task, or a quarantined one, which is requeued by it. Raises NotFound and FailedPrecondition."""
    task = await _locked(tx, task_id)
    if task.status not in (TaskStatus.QUEUED, TaskStatus.QUARANTINED):
        raise FailedPrecondition(
            f"task {task_id} is {task.status.value}; only queued and quarantined tasks can be changed", reason="TASK_NOT_QUEUED"
        )
    after = edit(task, tx.now, **changes)
    if task.status is TaskStatus.QUARANTINED:
        after = await _back_in_queue(tx, after)
    await tx.save_edited_tasks([after])
    await _audit(tx, "UpdateTask", task, after, Caller(actor, "", request_id), sorted(changes))
    return after
