"""What callers do to stored tasks: cancel, requeue, change; one, or all that a filter chooses."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.task import (
    LIVE_STATUSES,
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
from scheduler_service.transactions.ports import AuditEntry, Lock, TaskFilter, Transaction
from service_runtime.errors import FailedPrecondition, NotFound

_ENDED_BADLY = (TaskStatus.FAILED, TaskStatus.CANCELLED)
CANCELLABLE = (TaskStatus.QUEUED, TaskStatus.DISPATCHING, TaskStatus.RUNNING, TaskStatus.QUARANTINED)
REQUEUEABLE = (*_ENDED_BADLY, TaskStatus.QUARANTINED)
BULK_MAX_TASKS = 500
COUNTED_MAX_TASKS = 1_000_000


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What became of the tasks that a filter chose. `next_seq`: where the next call goes on; None when nothing is left."""

    matched: int
    changed: int = 0
    skipped: int = 0
    next_seq: int | None = None


async def _locked(tx: Transaction, task_id: UUID) -> Task:
    task = (await tx.tasks([task_id], Lock.UPDATE)).get(task_id)
    if task is None:
        raise NotFound(f"no task has the id {task_id}", reason="TASK_NOT_FOUND")
    return task


async def _audit(tx: Transaction, method: str, task: Task, actor: str, reason: str, request_id: str) -> None:
    await tx.append_audit(AuditEntry(tx.now, actor, method, str(task.id), reason, request_id, {"status": task.status.value}))


# --- cancel


async def cancel_task(tx: Transaction, task_id: UUID, *, actor: str, reason: str, request_id: str) -> Task:
    """Cancels a waiting task at once; of a live one it notes the wish, and CANCELLED follows when its run has ended.

    Cancelling a cancelled task changes nothing. Raises NotFound, and FailedPrecondition for a task that completed or failed.
    """
    task = await _locked(tx, task_id)
    if task.status is TaskStatus.CANCELLED or task.cancel_requested:
        return task
    if task.status not in CANCELLABLE:
        raise FailedPrecondition(f"task {task_id} has {task.status.value} already", reason="TASK_ENDED")
    await _audit(tx, "CancelTask", task, actor, reason, request_id)
    (task,) = await _cancel(tx, [task], reason)
    return task


async def _cancel(tx: Transaction, tasks: Sequence[Task], reason: str) -> list[Task]:
    """Locked tasks that can be cancelled, cancelled or with the wish noted."""
    words = f"cancelled: {reason}" if reason else "cancelled"
    changed = [request_cancel(task, tx.now) if task.status in LIVE_STATUSES else cancel(task, tx.now, words) for task in tasks]
    await tx.save_tasks(changed)
    await conclude(tx, [(task, None) for task in changed if task.status is TaskStatus.CANCELLED])
    return changed


async def cancel_tasks(
    tx: Transaction, chosen: TaskFilter, after_seq: int, *, actor: str, reason: str, request_id: str
) -> BulkResult:
    """Cancels what a filter chooses, as `cancel_task` does, the oldest BULK_MAX_TASKS above `after_seq`, with one audit entry."""

    async def work(tasks: Sequence[Task]) -> int:
        return len(await _cancel(tx, [t for t in tasks if t.status in CANCELLABLE and not t.cancel_requested], reason))

    return await _in_bulk(tx, "CancelTasks", chosen, after_seq, work, (actor, reason, request_id))


# --- requeue


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
    await _audit(tx, "RequeueTask", task, actor, reason, request_id)
    task = await _back_in_queue(tx, requeue(task, tx.now))
    await tx.save_tasks([task])
    return task


async def _back_in_queue(tx: Transaction, task: Task) -> Task:
    prerequisites = await tx.tasks(task.depends_on, Lock.SHARE)
    other = _dead_end(task, prerequisites)
    if other is not None:
        raise FailedPrecondition(
            f"prerequisite {other} has not completed and will not; requeue it first",
            reason=HoldReason.DEPENDENCY_FAILED.value,
        )
    return _counted(tx, task, prerequisites)


def _dead_end(task: Task, prerequisites: Mapping[UUID, Task]) -> UUID | None:
    """A prerequisite that will never complete as it is, if there is one."""
    dead = (other for other in task.depends_on if other not in prerequisites or prerequisites[other].status in _ENDED_BADLY)
    return next(dead, None)


def _counted(tx: Transaction, task: Task, prerequisites: Mapping[UUID, Task]) -> Task:
    """A queued task with its open prerequisites counted."""
    open_ones = sum(1 for other in task.depends_on if prerequisites[other].status is not TaskStatus.COMPLETED)
    counted = replace(task, blocked_by=open_ones)
    return replace(counted, hold_reason=waiting_hold(counted, tx.now))


async def requeue_tasks(
    tx: Transaction, chosen: TaskFilter, after_seq: int, *, actor: str, reason: str, request_id: str
) -> BulkResult:
    """Puts what a filter chooses back, as `requeue_task` does, the oldest BULK_MAX_TASKS above `after_seq`; one audit entry.

    A task goes back with the prerequisites that the same call puts back; one with another that ended badly is passed over.
    """

    async def work(tasks: Sequence[Task]) -> int:
        pending = {task.id: task for task in tasks if task.status in REQUEUEABLE}
        others = {other for task in pending.values() for other in task.depends_on} - pending.keys()
        known = {**await tx.tasks(others, Lock.SHARE), **pending}
        back: list[Task] = []
        while ready := [task for task in pending.values() if _dead_end(task, known) is None]:
            for task in ready:
                del pending[task.id]
                known[task.id] = requeue(task, tx.now)
            back += ready
        await tx.save_tasks(_counted(tx, known[task.id], known) for task in back)
        return len(back)

    return await _in_bulk(tx, "RequeueTasks", chosen, after_seq, work, (actor, reason, request_id))


# --- by filter


async def count_chosen(tx: Transaction, chosen: TaskFilter, after_seq: int) -> BulkResult:
    """How many tasks a filter chooses, and nothing else."""
    return BulkResult(await tx.count_tasks(chosen, after_seq, COUNTED_MAX_TASKS))


async def _in_bulk(
    tx: Transaction,
    method: str,
    chosen: TaskFilter,
    after_seq: int,
    work: Callable[[Sequence[Task]], Coroutine[Any, Any, int]],
    caller: tuple[str, str, str],
) -> BulkResult:
    """Does `work`, which says how many it changed, with what the filter chooses, and notes that in one audit entry."""
    matched = await tx.count_tasks(chosen, after_seq, COUNTED_MAX_TASKS)
    page = await tx.task_ids(chosen, after_seq, BULK_MAX_TASKS + 1)
    now_done = page[:BULK_MAX_TASKS]
    locked = await tx.tasks([task_id for _, task_id in now_done], Lock.UPDATE)
    # In the order of submission, which is not that of the locks.
    changed = await work([locked[task_id] for _, task_id in now_done if task_id in locked])
    next_seq = now_done[-1][0] if len(page) > BULK_MAX_TASKS else None
    if changed:
        actor, reason, request_id = caller
        detail = {**_filter_words(chosen), "matched": matched, "changed": changed, "skipped": len(now_done) - changed}
        await tx.append_audit(AuditEntry(tx.now, actor, method, _target(chosen), reason, request_id, detail))
    return BulkResult(matched, changed, len(now_done) - changed, next_seq)


def _filter_words(chosen: TaskFilter) -> dict[str, list[str]]:
    def words(values: Iterable[str]) -> list[str]:
        return sorted(set(values))

    return {
        "statuses": words(status.value for status in chosen.statuses),
        "task_types": words(chosen.task_types),
        "priorities": words(priority.name for priority in chosen.priorities),
    }


def _target(chosen: TaskFilter) -> str:
    return " ".join(f"{name}={','.join(values)}" for name, values in _filter_words(chosen).items() if values)


# --- change


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
