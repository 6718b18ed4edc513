"""Storing new tasks: all of a batch or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
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
    prerequisites = {other for spec in specs for other in spec.depends_on}
    inside = prerequisites.intersection(ids)
    # Locked, so that none completes between our count and our commit.
    known = await tx.tasks(sorted(prerequisites - inside), Lock.SHARE)
    await _require_room(tx, len(specs))
    # By place: at each look-up by id Python computes the id's hash anew, by a function of its own.
    order = iter(_prerequisites_first(ids, specs) if inside else range(len(ids)))
    made: dict[int, Task] = {}
    for start in range(0, len(ids), ADDED_AT_ONCE):
        part = range(start, min(start + ADDED_AT_ONCE, len(ids)))
        for place in part:
            while place not in made:
                first = next(order)
                spec = specs[first]
                task = _new_task(ids[first], spec, backend_for(spec.task_type, routes), known, tx.now)
                made[first] = known[task.id] = task
        await tx.add_tasks([made[place] for place in part])
    tasks = [made[place] for place in range(len(ids))]
    await conclude(tx, [(task, None) for task in tasks if task.status is TaskStatus.FAILED])
    return tasks


def _prerequisites_first(ids: Sequence[UUID], specs: Sequence[TaskSpec]) -> Iterable[int]:
    """The places of specs, each behind those of what it depends on."""
    places = {id_: place for place, id_ in enumerate(ids)}
    inside = {place: [places[other] for other in spec.depends_on if other in places] for place, spec in enumerate(specs)}
    return TopologicalSorter(inside).static_order()


async def _require_room(tx: Transaction, count: int) -> None:
    """Raises ResourceExhausted when so many more do not fit into the queue, which is counted only when it might be full."""
    if await tx.waiting_at_most() + count <= QUEUE_MAX_TASKS:
        return
    waiting = await tx.count_waiting()
    if waiting + count > QUEUE_MAX_TASKS:
        raise ResourceExhausted(f"the queue holds {waiting} waiting tasks; at most {QUEUE_MAX_TASKS} fit", reason="QUEUE_FULL")


def _new_task(id_: UUID, spec: TaskSpec, backend: str, known: Mapping[UUID, Task], now: datetime) -> Task:
    task = Task(
        id=id_,
        title=spec.title,
        description=spec.description,
        task_type=spec.task_type,
        priority=spec.priority,
        skill=spec.skill,
        payload=spec.payload,
        depends_on=spec.depends_on,
        max_tries=spec.max_tries,
        not_before_time=spec.not_before_time,
        timeout=spec.timeout,
        dependency_policy=spec.dependency_policy,
        backend=backend,
        status=TaskStatus.QUEUED,
        rank_time=rank_time(now, spec.priority),
        due_time=due_time(now, spec.not_before_time, None),
        create_time=now,
        update_time=now,
    )
    if spec.depends_on:
        task = _behind_prerequisites(task, known, now)
    hold = waiting_hold(task, now)
    return task if hold is task.hold_reason else replace(task, hold_reason=hold)


def _behind_prerequisites(task: Task, known: Mapping[UUID, Task], now: datetime) -> Task:
    """A new task that waits for what it depends on, or has failed for want of it."""
    open_ones = [other for other in task.depends_on if other not in known or known[other].status is not TaskStatus.COMPLETED]
    task = replace(task, blocked_by=len(open_ones))
    for other in task.depends_on if task.dependency_policy is DependencyPolicy.FAIL else ():
        prerequisite = known.get(other)
        if prerequisite is None:
            return fail(task, f"prerequisite {other} does not exist", None, "", now, HoldReason.DEPENDENCY_FAILED)
        if prerequisite.status in _ENDED_BADLY:
            error = f"prerequisite {other} {prerequisite.status.value}"
            return fail(task, error, None, "", now, HoldReason.DEPENDENCY_FAILED)
    return task
