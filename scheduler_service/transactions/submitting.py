"""Storing new tasks: all of a batch or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from uuid import UUID

from msgspec.structs import replace

from scheduler_service.core.limits import QUEUE_MAX_TASKS, TaskSpec
from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.routing import backend_for
from scheduler_service.core.task import DependencyPolicy, Task, TaskStatus, due_time, fail, rank_time, waiting_hold
from scheduler_service.transactions.consequences import conclude
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import Lock
from service_runtime.errors import AlreadyExists, ResourceExhausted

ADDED_AT_ONCE = 250
"""The database works on some while we make the next; one older than PostgreSQL 17 is waited for each time."""

_ENDED_BADLY = (TaskStatus.FAILED, TaskStatus.CANCELLED)


async def submit(tx: Transaction, specs: Sequence[TaskSpec], routes: Mapping[str, str], new_id: Callable[[], UUID]) -> list[Task]:
    """Stores tasks, in the order given, and returns them.

    The specs are within their bounds and without circles (core/limits.py). A task whose prerequisite failed, was cancelled or
    does not exist ends at once as FAILED (`dependency_failed`), unless its policy is to wait. Raises AlreadyExists for a task_id
    that is taken, ResourceExhausted for a full queue.
    """
    ids = [spec.task_id or new_id() for spec in specs]
    taken = await tx.tasks([spec.task_id for spec in specs if spec.task_id is not None])
    if taken:
        raise AlreadyExists(f"task {next(iter(taken))} exists already; choose another task_id", reason="TASK_EXISTS")
    inside = set(ids)
    outside = {other for spec in specs for other in spec.depends_on if other not in inside}
    # Locked, so that none completes between our count and our commit.
    known = await tx.tasks(sorted(outside), Lock.SHARE)
    await _require_room(tx, len(specs))
    specs_by_id = dict(zip(ids, specs, strict=True))
    order = iter(_prerequisites_first(specs_by_id))
    tasks: list[Task] = []
    for start in range(0, len(ids), ADDED_AT_ONCE):
        part = ids[start : start + ADDED_AT_ONCE]
        for id_ in part:
            while id_ not in known:
                first = next(order)
                known[first] = _new_task(tx, first, specs_by_id[first], backend_for(specs_by_id[first].task_type, routes), known)
        added = [known[id_] for id_ in part]
        await tx.add_tasks(added)
        tasks += added
    await conclude(tx, [(task, None) for task in tasks if task.status is TaskStatus.FAILED])
    return tasks


def _prerequisites_first(specs: Mapping[UUID, TaskSpec]) -> Iterable[UUID]:
    inside = {id_: [other for other in spec.depends_on if other in specs] for id_, spec in specs.items()}
    return TopologicalSorter(inside).static_order() if any(inside.values()) else inside


async def _require_room(tx: Transaction, count: int) -> None:
    """Raises ResourceExhausted when so many more do not fit into the queue, which is counted only when it might be full."""
    if await tx.waiting_at_most() + count <= QUEUE_MAX_TASKS:
        return
    waiting = await tx.count_waiting()
    if waiting + count > QUEUE_MAX_TASKS:
        raise ResourceExhausted(f"the queue holds {waiting} waiting tasks; at most {QUEUE_MAX_TASKS} fit", reason="QUEUE_FULL")


def _new_task(tx: Transaction, id_: UUID, spec: TaskSpec, backend: str, known: Mapping[UUID, Task]) -> Task:
    now = tx.now
    task = Task(
        id=id_,
        title=spec.title,
        description=spec.description,
        task_type=spec.task_type,
        priority=spec.priority,
        skill=spec.skill,
        payload=spec.payload,
        depends_on=tuple(spec.depends_on),
        max_tries=spec.max_tries,
        not_before_time=spec.not_before_time,
        timeout=spec.timeout,
        dependency_policy=spec.dependency_policy,
        backend=backend,
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
        blocked_by=sum(1 for other in spec.depends_on if other not in known or known[other].status is not TaskStatus.COMPLETED),
        rank_time=rank_time(now, spec.priority),
        due_time=due_time(now, spec.not_before_time, None),
        create_time=now,
        update_time=now,
        start_time=None,
        end_time=None,
        next_attempt_time=None,
    )
    for other in spec.depends_on if spec.dependency_policy is DependencyPolicy.FAIL else ():
        prerequisite = known.get(other)
        if prerequisite is None:
            return fail(task, f"prerequisite {other} does not exist", None, "", now, HoldReason.DEPENDENCY_FAILED)
        if prerequisite.status in _ENDED_BADLY:
            error = f"prerequisite {other} {prerequisite.status.value}"
            return fail(task, error, None, "", now, HoldReason.DEPENDENCY_FAILED)
    hold = waiting_hold(task, now)
    return task if hold is task.hold_reason else replace(task, hold_reason=hold)
