"""What callers read: statistics, slots, status, and why a task does not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from scheduler_service.core.breaker import Breaker
from scheduler_service.core.dispatch_checks import Verdict, evaluate, first_hold, sentence, would_dispatch
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.outcome_window import Window
from scheduler_service.core.run import ExecutorReport, total_usage
from scheduler_service.core.slot_budget import Fleet
from scheduler_service.core.task import LIVE_STATUSES, Priority, Task, TaskStatus, waiting_hold
from scheduler_service.transactions.gathering import (
    Facts,
    attempts_by_backend,
    attempts_by_executor,
    gather,
    rules_in_force,
    window_of,
)
from scheduler_service.transactions.overrides import list_breakers
from scheduler_service.transactions.ports import BillingPause, BudgetCap, Drain, LastDispatch, Leadership, Transaction
from service_runtime.errors import NotFound


@dataclass(frozen=True, slots=True)
class WindowStats:
    """All decisions of a window, the start verdicts in it, those by backend, and, where asked for, by executor."""

    decisions: Window
    attempts: Window
    attempts_by_backend: Mapping[str, Window]
    attempts_by_executor: Mapping[str, Window]


@dataclass(frozen=True, slots=True)
class DispatchStats:
    """The statistics of WINDOW_MS, and of further windows by their length."""

    window_1h: Window
    attempts: Window
    attempts_by_backend: Mapping[str, Window]
    attempts_by_executor: Mapping[str, Window]
    windows: tuple[tuple[timedelta, WindowStats], ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the next task, or a named one, does not start. `queue_position` counts from 1; 0 when it does not wait."""

    would_dispatch: bool
    verdicts: tuple[Verdict, ...]
    sentence: str
    task_reason: str
    queue_position: int
    facts: Facts


@dataclass(frozen=True, slots=True)
class SlotsView:
    """The pools, the operator's ceiling and the use of each backend."""

    fleet: Fleet
    cap: BudgetCap
    facts: Facts


@dataclass(frozen=True, slots=True)
class StatusView:
    """All of it, from one transaction."""

    now: datetime
    rules: DispatchRules
    cluster_id: UUID
    leadership: Leadership
    explanation: Explanation
    slots: SlotsView
    stats: DispatchStats
    breakers: Mapping[str, Breaker]
    tripped_by: Mapping[str, str]
    drains: tuple[Drain, ...]
    billing_pauses: tuple[BillingPause, ...]
    queue: Mapping[tuple[Priority, TaskStatus], int]
    oldest_due: Mapping[Priority, datetime]
    last_dispatch: LastDispatch | None


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
    rules = await rules_in_force(tx, rules)
    further = [(length, await _window_stats(tx, length, by_executor)) for length in lengths]
    own = await _window_stats(tx, rules.window, by_executor)
    return DispatchStats(own.decisions, own.attempts, own.attempts_by_backend, own.attempts_by_executor, windows=tuple(further))


async def _window_stats(tx: Transaction, length: timedelta, by_executor: bool) -> WindowStats:
    rows = await tx.window_rows(tx.now - length, by_executor=by_executor)
    return WindowStats(
        window_of(rows),
        window_of(row for row in rows if row.attempt),
        attempts_by_backend(rows),
        attempts_by_executor(rows) if by_executor else {},
    )


async def explain(
    tx: Transaction, executors: Sequence[ExecutorReport], rules: DispatchRules, task_id: UUID | None
) -> Explanation:
    """The whole chain without side effects. Raises NotFound for an unknown task."""
    task = await read_task(tx, task_id) if task_id is not None else None
    facts = await gather(tx, executors, rules, await tx.queue_counts())
    verdicts = evaluate(facts.gates)
    if task is None:
        words = sentence(facts.gates, verdicts)
        return Explanation(would_dispatch(facts.gates, verdicts), tuple(verdicts), words, "", 0, facts)
    reason, words = _why(task, verdicts, tx.now)
    position = await tx.queue_position(task) if task.status is TaskStatus.QUEUED and task.blocked_by == 0 else 0
    starts = task.status is TaskStatus.QUEUED and not reason
    if starts and position > 1:
        words = f"Task {task.id} may start: {position - 1} stand before it on {task.backend}."
    return Explanation(starts, tuple(verdicts), words, reason, position, facts)


def _why(task: Task, verdicts: Sequence[Verdict], now: datetime) -> tuple[str, str]:
    """The reason code and the sentence for one task: its own hold first, then the gate that holds its backend."""
    name = f"Task {task.id}"
    if task.status in LIVE_STATUSES:
        return "", f"{name} is {task.status.value} on {task.executor_id}."
    if task.status is not TaskStatus.QUEUED:
        why = f": {task.error}" if task.error else ""
        return task.hold_reason.value, f"{name} is {task.status.value}{why}."
    own = waiting_hold(task, now)
    if own:
        until = task.next_attempt_time if own.value == "backoff" else task.not_before_time
        words = {
            "backoff": f"waits for its back-off until {until:%Y-%m-%d %H:%M:%S} UTC" if until else "waits for its back-off",
            "not_before": f"is not to start before {until:%Y-%m-%d %H:%M:%S} UTC" if until else "is not due",
            "dependency": f"waits for {task.blocked_by} of {len(task.depends_on)} prerequisites",
        }
        return own.value, f"{name} {words[own.value]} ({own.value})."
    hold = first_hold(verdicts, task.backend)
    if hold is None or hold.reason is None:
        return "", f"{name} may start with the next tick."
    until_gate = f" until {hold.clears_time:%Y-%m-%d %H:%M:%S} UTC" if hold.clears_time else ""
    return hold.reason.value, f"{name} is held: {hold.detail}{until_gate} ({hold.reason})."


async def read_slots(tx: Transaction, executors: Sequence[ExecutorReport], rules: DispatchRules) -> SlotsView:
    """The pools now."""
    facts = await gather(tx, executors, rules, {})
    return SlotsView(facts.fleet, facts.operator.cap, facts)


async def read_status(tx: Transaction, executors: Sequence[ExecutorReport], rules: DispatchRules) -> StatusView:
    """Everything that GetStatus shows."""
    explanation = await explain(tx, executors, rules, None)
    facts = explanation.facts
    return StatusView(
        now=tx.now,
        rules=facts.rules,
        cluster_id=await tx.cluster_id(),
        leadership=await tx.leadership(),
        explanation=explanation,
        slots=SlotsView(facts.fleet, facts.operator.cap, facts),
        stats=await read_stats(tx, rules),
        breakers=await list_breakers(tx, executors, facts.rules),
        tripped_by=await tx.tripped_by(),
        drains=facts.drains,
        billing_pauses=tuple(pause for pause in facts.billing_pauses if pause.until_time > tx.now),
        queue=await tx.queue_depths(),
        oldest_due=await tx.oldest_due(),
        last_dispatch=await tx.last_dispatch(),
    )
