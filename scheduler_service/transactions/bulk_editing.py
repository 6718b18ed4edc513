"""Cancel and requeue of all tasks that a filter chooses, page by page, each page with one audit entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler_service.core.task import Task, requeue
from scheduler_service.transactions.auditing import Caller, audit
from scheduler_service.transactions.editing import CANCELLABLE, REQUEUEABLE, blocked_by, cancel_locked, dead_end
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import Lock, TaskFilter

BULK_MAX_TASKS = 500
COUNTED_MAX_TASKS = 1_000_000

Changed = Sequence[tuple[Task, Task]]
"""Tasks before and after."""


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What became of the tasks that a filter chose. `next_seq`: where the next call goes on; None when nothing is left."""

    matched: int
    changed: int = 0
    skipped: int = 0
    next_seq: int | None = None


async def count_chosen(tx: Transaction, chosen: TaskFilter, after_seq: int) -> BulkResult:
    """How many tasks a filter chooses, and nothing else."""
    return BulkResult(await tx.count_tasks(chosen, after_seq, COUNTED_MAX_TASKS))


async def cancel_tasks(tx: Transaction, chosen: TaskFilter, after_seq: int, caller: Caller) -> BulkResult:
    """Cancels what a filter chooses, as `cancel_task` does: the oldest BULK_MAX_TASKS above `after_seq`."""

    async def work(tasks: Sequence[Task]) -> Changed:
        able = [task for task in tasks if task.status in CANCELLABLE and not task.cancel_requested]
        return list(zip(able, await cancel_locked(tx, able, caller.reason), strict=True))

    return await _in_bulk(tx, "CancelTasks", chosen, after_seq, work, caller)


async def requeue_tasks(tx: Transaction, chosen: TaskFilter, after_seq: int, caller: Caller) -> BulkResult:
    """Puts what a filter chooses back, as `requeue_task` does: the oldest BULK_MAX_TASKS above `after_seq`.

    A task goes back with the prerequisites that the same call puts back; one with another that ended badly is passed over.
    """

    async def work(tasks: Sequence[Task]) -> Changed:
        pending = {task.id: task for task in tasks if task.status in REQUEUEABLE}
        others = {other for task in pending.values() for other in task.depends_on} - pending.keys()
        known = {**await tx.tasks(others, Lock.SHARE), **pending}
        back: list[Task] = []
        while ready := [task for task in pending.values() if dead_end(task, known) is None]:
            for task in ready:
                del pending[task.id]
                known[task.id] = requeue(task, tx.now)
            back += ready
        changed = [(task, blocked_by(known[task.id], known, tx.now)) for task in back]
        await tx.note_put_back(len(changed))
        await tx.save_tasks(after for _, after in changed)
        return changed

    return await _in_bulk(tx, "RequeueTasks", chosen, after_seq, work, caller)


async def _in_bulk(
    tx: Transaction,
    method: str,
    chosen: TaskFilter,
    after_seq: int,
    work: Callable[[Sequence[Task]], Coroutine[Any, Any, Changed]],
    caller: Caller,
) -> BulkResult:
    """Does `work`, which tells what it changed, with what the filter chooses, and notes that in one audit entry."""
    matched = await tx.count_tasks(chosen, after_seq, COUNTED_MAX_TASKS)
    found = await tx.task_ids(chosen, after_seq, BULK_MAX_TASKS + 1)
    page = found[:BULK_MAX_TASKS]
    locked = await tx.tasks([task_id for _, task_id in page], Lock.UPDATE)
    # In the order of submission, which is not that of the locks.
    changed = await work([locked[task_id] for _, task_id in page if task_id in locked])
    if changed:
        before, after = ({"tasks": _by_state(tasks)} for tasks in zip(*changed, strict=True))
        await audit(tx, method, _target(chosen), caller, before, after)
    next_seq = page[-1][0] if len(found) > BULK_MAX_TASKS else None
    return BulkResult(matched, len(changed), len(page) - len(changed), next_seq)


def _by_state(tasks: Iterable[Task]) -> dict[str, int]:
    """How many tasks are in which status; those that are only to be cancelled are told apart."""
    return dict(Counter("cancel_requested" if task.cancel_requested else task.status.value for task in tasks))


def _target(chosen: TaskFilter) -> str:
    """The filter in words, the same for the same filter."""
    words = {
        "statuses": {status.value for status in chosen.statuses},
        "task_types": set(chosen.task_types),
        "priorities": {priority.name for priority in chosen.priorities},
    }
    return " ".join(f"{name}={','.join(sorted(values))}" for name, values in words.items() if values)
