"""What callers read: statistics, slots, status, and why a task does not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from scheduler_service.core.breaker import Breaker
from scheduler_service.core.dispatch_checks import Verdict
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.explanation import Outlook, about_queue, about_task, open_prerequisites
from scheduler_service.core.outcome_window import Window
from scheduler_service.core.run import ExecutorReport, total_usage
from scheduler_service.core.slot_budget import Fleet
from scheduler_service.core.task import Priority, Task, TaskStatus
from scheduler_service.transactions.gathering import (
    GATE_PARTS,
    Facts,
    attempts_by_backend,
    attempts_by_executor,
    gather,
    window_of,
)
from scheduler_service.transactions.overrides import with_bare_names
from scheduler_service.transactions.planning import NO_MEMORY, TickBasis, TickMemory, TickPlan, plan_tick
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import About, BillingPause, BudgetCap, Drain, Part, WindowRow
from service_runtime.errors import NotFound


class WindowStats(msgspec.Struct, frozen=True):
    """All decisions of a window, the start verdicts in it, those by backend, and, where asked for, by executor."""

    decisions: Window
    attempts: Window
    attempts_by_backend: Mapping[str, Window]
    attempts_by_executor: Mapping[str, Window]


class DispatchStats(msgspec.Struct, frozen=True):
    """The statistics of WINDOW_MS, and of further windows by their length."""

    window_1h: Window
    attempts: Window
    attempts_by_backend: Mapping[str, Window]
    attempts_by_executor: Mapping[str, Window]
    windows: tuple[tuple[timedelta, WindowStats], ...] = ()


class Explanation(msgspec.Struct, frozen=True):
    """Why the next task, or a named one, does not start. `queue_position` counts from 1; 0 when it does not wait.

    `task_clears_time`: when what holds the named task ends by itself, where known. `open_prerequisites`: what it waits for (None:
    there is no such task).
    """

    would_dispatch: bool
    verdicts: tuple[Verdict, ...]
    sentence: str
    task_reason: str
    queue_position: int
    facts: Facts
    task_clears_time: datetime | None = None
    open_prerequisites: tuple[tuple[UUID, TaskStatus | None], ...] = ()


class SlotsView(msgspec.Struct, frozen=True):
    """The pools, the operator's ceiling and the use of each backend."""

    fleet: Fleet
    cap: BudgetCap
    facts: Facts


class StatusView(msgspec.Struct, frozen=True):
    """All of it, from one transaction."""

    now: datetime
    rules: DispatchRules
    about: About
    explanation: Explanation
    slots: SlotsView
    stats: DispatchStats
    breakers: Mapping[str, Breaker]
    tripped_by: Mapping[str, str]
    drains: tuple[Drain, ...]
    billing_pauses: tuple[BillingPause, ...]
    queue: Mapping[tuple[Priority, TaskStatus], int]
    oldest_due: Mapping[Priority, datetime]


async def read_task(tx: Transaction, task_id: UUID) -> Task:
    """One task. Raises NotFound."""
    task = (await tx.tasks([task_id])).get(task_id)
    if task is None:
        raise NotFound(f"no task has the id {task_id}", reason="TASK_NOT_FOUND")
    return task


async def read_task_and_usage(tx: Transaction, task_id: UUID) -> tuple[Task, Mapping[str, Any]]:
    """One task with what its runs have used. Raises NotFound."""
    task = await read_task(tx, task_id)
    return task, total_usage(await tx.runs_of_task(task_id) if task.fence else [])


@dataclass(frozen=True, slots=True)
class OutputSource:
    """Where the output of a run is: the executor's target, '' when it was never heard of."""

    run_id: UUID
    executor_id: str
    target: str


async def find_output(tx: Transaction, task_id: UUID) -> OutputSource | None:
    """Where the output of a task's newest accepted run is; None before there is one. Raises NotFound for an unknown task."""
    await read_task(tx, task_id)
    run = next((run for run in await tx.runs_of_task(task_id) if run.accept_time is not None), None)
    if run is None:
        return None
    targets = {row.executor_id: row.target for row in await tx.executors()}
    return OutputSource(run.run_id, run.executor_id, targets.get(run.executor_id, ""))


async def read_stats(
    tx: Transaction, rules: DispatchRules, lengths: Sequence[timedelta] = (), *, by_executor: bool = False
) -> DispatchStats:
    """The statistics at this instant."""
    window = Part.WINDOW_BY_EXECUTOR if by_executor else Part.WINDOW
    own = (await tx.standing((window,), rules.window)).window
    further = [(length, await _window_stats(tx, length, by_executor)) for length in lengths]
    return _dispatch_stats(_stats_of(own, by_executor), further)


async def _window_stats(tx: Transaction, length: timedelta, by_executor: bool) -> WindowStats:
    return _stats_of(await tx.window_rows(tx.now - length, by_executor=by_executor), by_executor)


def _dispatch_stats(own: WindowStats, further: Sequence[tuple[timedelta, WindowStats]] = ()) -> DispatchStats:
    return DispatchStats(own.decisions, own.attempts, own.attempts_by_backend, own.attempts_by_executor, windows=tuple(further))


def _stats_of(rows: Sequence[WindowRow], by_executor: bool) -> WindowStats:
    return WindowStats(
        window_of(rows),
        window_of(row for row in rows if row.attempt),
        attempts_by_backend(rows),
        attempts_by_executor(rows) if by_executor else {},
    )


async def explain(
    tx: Transaction,
    executors: Sequence[ExecutorReport],
    rules: DispatchRules,
    task_id: UUID | None,
    memory: TickMemory = NO_MEMORY,
    *,
    about: bool = False,
) -> Explanation:
    """What the next tick would do, without doing it. Raises NotFound for an unknown task.

    `memory` is the leader's: it knows of starts that ramp up. Without it, as on a replica that does not lead, none are taken to.
    `about`: the facts are to have that part too.
    """
    task = await read_task(tx, task_id) if task_id is not None else None
    parts = (*GATE_PARTS, Part.QUEUE, *([Part.ABOUT] if about else []))
    plan = await plan_tick(tx, TickBasis(executors, await gather(tx, executors, rules, parts), memory))
    outlook = _outlook(plan)
    verdicts = tuple(outlook.verdicts)
    if task is None:
        return Explanation(bool(plan.orders), verdicts, about_queue(plan.facts.gates, outlook), "", 0, plan.facts)
    position = await tx.queue_position(task) if task.status is TaskStatus.QUEUED and task.blocked_by == 0 else 0
    waits = task.status is TaskStatus.QUEUED and task.blocked_by > 0
    others = await tx.tasks(task.depends_on) if waits else {}
    prerequisites = {id_: other.status for id_, other in others.items()}
    said = about_task(task, outlook, tx.now, position, prerequisites)
    return Explanation(
        said.starts,
        verdicts,
        said.sentence,
        said.reason,
        position,
        plan.facts,
        said.clears_time,
        tuple(open_prerequisites(task, prerequisites)) if waits else (),
    )


def _outlook(plan: TickPlan) -> Outlook:
    return Outlook(
        verdicts=[*plan.verdicts, *plan.lane_holds],
        starts=plan.starts,
        limits=plan.limits,
        starting={order.task_id: order.executor_id for order in plan.orders},
        put_aside={task.id: task.error for task in plan.put_aside} | {task.id: task.why for task in plan.unreadable},
    )


async def read_slots(tx: Transaction, executors: Sequence[ExecutorReport], rules: DispatchRules) -> SlotsView:
    """The pools now."""
    facts = await gather(tx, executors, rules, GATE_PARTS)
    return SlotsView(facts.fleet, facts.operator.cap, facts)


async def read_status(
    tx: Transaction, executors: Sequence[ExecutorReport], rules: DispatchRules, memory: TickMemory = NO_MEMORY
) -> StatusView:
    """Everything that GetStatus shows."""
    explanation = await explain(tx, executors, rules, None, memory, about=True)
    facts = explanation.facts
    about = facts.standing.about
    assert about is not None, "it was asked for"
    return StatusView(
        now=tx.now,
        rules=facts.rules,
        about=about,
        explanation=explanation,
        slots=SlotsView(facts.fleet, facts.operator.cap, facts),
        stats=_dispatch_stats(_stats_of(facts.window, by_executor=False)),
        breakers=with_bare_names(facts.breakers, executors, facts.rules),
        tripped_by=facts.standing.tripped_by,
        drains=facts.drains,
        billing_pauses=tuple(pause for pause in facts.billing_pauses if pause.until_time > tx.now),
        queue={(depth.priority, depth.status): depth.n for depth in about.depths},
        oldest_due={oldest.priority: oldest.due_time for oldest in about.oldest_due},
    )
