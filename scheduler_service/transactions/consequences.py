"""What follows from changed tasks, breakers and overrides: the events that tell it, and what it means for dependent tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from scheduler_service.core.breaker import BreakerEvent
from scheduler_service.core.events import EVENT_SHAPES, EventType
from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.run import Run
from scheduler_service.core.task import DependencyPolicy, Priority, Task, TaskStatus, fail
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import Event, Lock, UnreadableTask

_END_EVENTS = {
    TaskStatus.COMPLETED: EventType.TASK_COMPLETED,
    TaskStatus.FAILED: EventType.TASK_FAILED,
    TaskStatus.CANCELLED: EventType.TASK_CANCELLED,
    TaskStatus.QUARANTINED: EventType.TASK_QUARANTINED,
}
_PRIORITY_NAMES = {priority: priority.name for priority in Priority}
# A prerequisite in quarantine can still be mended by hand: its dependents wait.
_ENDS_DEPENDENTS = (TaskStatus.FAILED, TaskStatus.CANCELLED)


def tell(tx: Transaction, type_: EventType, payload: Mapping[str, Any]) -> None:
    """Emits an event; its type says from where."""
    tx.emit(Event(type_, tx.now, EVENT_SHAPES[type_].source, payload))


def task_payload(task: Task, run: Run | None = None) -> dict[str, Any]:
    """What every event of a task carries; ids and words become texts as it is stored."""
    payload: dict[str, Any] = {
        "task_id": task.id,
        "title": task.title,
        "task_type": task.task_type,
        "priority": _PRIORITY_NAMES[task.priority],
        "backend": task.backend,
        "status": task.status,
        "tries": task.tries,
    }
    if run is not None:
        payload["run_id"] = run.run_id
        payload["executor_id"] = run.executor_id
    if task.hold_reason:
        payload["hold_reason"] = task.hold_reason
    if task.exit_code is not None:
        payload["exit_code"] = task.exit_code
    if task.error:
        payload["error"] = task.error[:500]
    return payload


def emit_breaker_events(tx: Transaction, events: Iterable[BreakerEvent], *, actor: str = "", enforced: bool = True) -> None:
    """Emits what a breaker's move tells; `actor` names the person behind it, if one is.

    `enforced` false: an open breaker holds nothing, as its guard only observes or is off.
    """
    for event in events:
        payload = {**event.payload, **({"actor": actor} if actor else {})}
        if event.type is EventType.CIRCUIT_OPEN and not enforced:
            payload["enforced"] = False
        tell(tx, event.type, payload)


def emit_task_event(tx: Transaction, type_: EventType, task: Task, run: Run | None = None) -> None:
    """Emits one event of a task."""
    tell(tx, type_, task_payload(task, run))


def emit_unreadable(tx: Transaction, task: UnreadableTask) -> None:
    """Emits that a task was put aside whose row cannot be read."""
    payload = {
        "task_id": task.id,
        "title": task.title,
        "task_type": task.task_type,
        "priority": _PRIORITY_NAMES[task.priority],
        "backend": task.backend,
        "status": TaskStatus.QUARANTINED,
        "tries": task.tries,
        "hold_reason": HoldReason.UNREADABLE,
        "error": task.why,
    }
    tell(tx, EventType.TASK_QUARANTINED, payload)


async def conclude(tx: Transaction, tasks: Sequence[tuple[Task, Run | None]]) -> None:
    """Emits the events of tasks that have just ended, and moves what waits for them.

    Dependents of completed tasks wait for one prerequisite less; those of failed and cancelled ones fail with
    `dependency_failed`, and theirs with them, but for those whose policy is to wait.
    """
    for task, run in tasks:
        emit_task_event(tx, _END_EVENTS[task.status], task, run)
    await tx.unblock_dependents([task.id for task, _ in tasks if task.status is TaskStatus.COMPLETED])
    ended = {task.id: task for task, _ in tasks if task.status in _ENDS_DEPENDENTS}
    while ended:
        ended = await _fail_dependents(tx, ended)


async def _fail_dependents(tx: Transaction, ended: dict[UUID, Task]) -> dict[UUID, Task]:
    waiting = await tx.waiting_dependents(list(ended))
    cause = {dependent: prerequisite for prerequisite, dependents in waiting.items() for dependent in dependents}
    candidates = await tx.tasks(list(cause), Lock.UPDATE)
    failed: dict[UUID, Task] = {}
    for task in candidates.values():
        if task.status is TaskStatus.QUEUED and task.dependency_policy is DependencyPolicy.FAIL:
            prerequisite = ended[cause[task.id]]
            error = f"prerequisite {prerequisite.id} {prerequisite.status.value}"
            failed[task.id] = fail(task, error, None, "", tx.now, HoldReason.DEPENDENCY_FAILED)
    await tx.save_tasks(failed.values())
    for task in failed.values():
        emit_task_event(tx, EventType.TASK_FAILED, task)
    return failed
