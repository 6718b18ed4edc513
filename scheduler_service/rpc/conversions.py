"""Core values to messages: the only place where the scheduler's answers take their wire form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from scheduler_service.core.breaker import Breaker, BreakerSettings, BreakerState, retry_time
from scheduler_service.core.dispatch_checks import Verdict
from scheduler_service.core.outcome_window import Window
from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.run import ExecutorReport
from scheduler_service.core.slot_budget import Pools
from scheduler_service.core.task import DependencyPolicy, Priority, Task, TaskStatus, waiting_hold
from scheduler_service.core.tuning import TUNABLES, Configured, Origin, text_of
from scheduler_service.transactions.gathering import Facts
from scheduler_service.transactions.planning import Decision
from scheduler_service.transactions.reading import DispatchStats, Explanation, SlotsView
from scheduler_service.transactions.stored import AuditEntry, BillingPause, DispatchEvent, Event, SettingOverride
from service_runtime.ids import id_text
from service_runtime.proto_values import duration, set_duration, set_struct, set_timestamp, struct, timestamp

PRIORITIES: Mapping[Priority, pb.Priority.ValueType] = {
    Priority.P0: pb.PRIORITY_P0,
    Priority.P1: pb.PRIORITY_P1,
    Priority.P2: pb.PRIORITY_P2,
}
POLICIES: Mapping[DependencyPolicy, pb.DependencyPolicy.ValueType] = {
    DependencyPolicy.FAIL: pb.DEPENDENCY_POLICY_FAIL,
    DependencyPolicy.WAIT: pb.DEPENDENCY_POLICY_WAIT,
}
STATUSES: Mapping[TaskStatus, pb.TaskStatus.ValueType] = {
    TaskStatus.QUEUED: pb.TASK_STATUS_QUEUED,
    TaskStatus.DISPATCHING: pb.TASK_STATUS_DISPATCHING,
    TaskStatus.RUNNING: pb.TASK_STATUS_RUNNING,
    TaskStatus.COMPLETED: pb.TASK_STATUS_COMPLETED,
    TaskStatus.FAILED: pb.TASK_STATUS_FAILED,
    TaskStatus.CANCELLED: pb.TASK_STATUS_CANCELLED,
    TaskStatus.QUARANTINED: pb.TASK_STATUS_QUARANTINED,
}
BREAKER_STATES: Mapping[BreakerState, pb.BreakerState.ValueType] = {
    BreakerState.CLOSED: pb.BREAKER_STATE_CLOSED,
    BreakerState.OPEN: pb.BREAKER_STATE_OPEN,
    BreakerState.HALF_OPEN: pb.BREAKER_STATE_HALF_OPEN,
}


def set_task(
    message: pb.Task, task: Task, now: datetime, *, brief: bool = False, usage: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Makes an answer's own field, which is empty, a task; `brief` leaves out description, payload and result, as lists do."""
    # Answers hold a thousand of these: a message made apart would be copied into them, and an empty field costs as well.
    message.id = id_text(task.id)
    message.title = task.title
    message.task_type = task.task_type
    message.priority = PRIORITIES[task.priority]
    message.max_tries = task.max_tries
    message.status = STATUSES[task.status]
    message.backend = task.backend
    message.dependency_policy = POLICIES[task.dependency_policy]
    message.hold_reason = _hold(task, now).value
    message.fence = task.fence
    message.tries = task.tries
    message.start_failures = task.start_failures
    if task.skill:
        message.skill = task.skill
    if task.depends_on:
        message.depends_on.extend(map(id_text, task.depends_on))
    if task.run_id is not None:
        message.run_id = id_text(task.run_id)
    if task.executor_id:
        message.executor_id = task.executor_id
    _set_times(message, task)
    if not brief:
        message.description = task.description
        set_struct(message.payload, task.payload)
    if usage:
        set_struct(message.usage, usage)
    outcome = message.outcome
    outcome.SetInParent()
    if task.exit_code is not None:
        outcome.exit_code = task.exit_code
    if task.result and not brief:
        outcome.result = task.result
    if task.error:
        outcome.error = task.error


def _set_times(message: pb.Task, task: Task) -> None:
    set_timestamp(message.create_time, task.create_time)
    set_timestamp(message.update_time, task.update_time)
    set_duration(message.timeout, task.timeout)
    if task.not_before_time is not None:
        set_timestamp(message.not_before_time, task.not_before_time)
    if task.start_time is not None:
        set_timestamp(message.start_time, task.start_time)
    if task.end_time is not None:
        set_timestamp(message.end_time, task.end_time)
    if task.next_attempt_time is not None:
        set_timestamp(message.next_attempt_time, task.next_attempt_time)


def _hold(task: Task, now: datetime) -> HoldReason:
    return HoldReason.CANCEL_REQUESTED if task.cancel_requested and task.end_time is None else waiting_hold(task, now)


def window_message(window: Window) -> pb.DispatchWindow:
    """A window; its rate is absent while it is empty."""
    return pb.DispatchWindow(
        total=window.total,
        success=window.success,
        failed=window.failed,
        rate=window.rate,
        failure_reasons=dict(window.failure_reasons),
        last_updated=timestamp(window.last_updated),
    )


def stats_message(stats: DispatchStats) -> pb.GetDispatchStatsResponse:
    """The statistics."""
    return pb.GetDispatchStatsResponse(
        window_1h=window_message(stats.window_1h),
        attempts=window_message(stats.attempts),
        attempts_by_backend=_windows(stats.attempts_by_backend),
        attempts_by_executor=_windows(stats.attempts_by_executor),
        windows=[
            pb.DispatchStatsWindow(
                length=duration(length),
                decisions=window_message(found.decisions),
                attempts=window_message(found.attempts),
                attempts_by_backend=_windows(found.attempts_by_backend),
                attempts_by_executor=_windows(found.attempts_by_executor),
            )
            for length, found in stats.windows
        ],
    )


def _windows(windows: Mapping[str, Window]) -> dict[str, pb.DispatchWindow]:
    return {name: window_message(window) for name, window in windows.items()}


def breaker_message(breaker: Breaker, settings: BreakerSettings, now: datetime) -> pb.Breaker:
    """A breaker as stored."""
    return pb.Breaker(
        key=breaker.key,
        state=BREAKER_STATES[breaker.state],
        failures=breaker.failures,
        last_failure_time=timestamp(breaker.last_failure_time),
        opened_time=timestamp(breaker.opened_time),
        retry_time=timestamp(retry_time(breaker, settings, now)),
        generation=breaker.generation,
        reason=breaker.reason,
    )


def decision_message(decision: Decision) -> pb.DispatchDecision:
    """One decision of a tick."""
    return pb.DispatchDecision(
        dispatched=decision.dispatched,
        reason=decision.reason,
        detail=decision.detail,
        task_id=str(decision.task_id) if decision.task_id else "",
        run_id=str(decision.run_id) if decision.run_id else "",
        executor_id=decision.executor_id,
        backend=decision.backend,
    )


def verdict_message(verdict: Verdict) -> pb.GuardVerdict:
    """One guard's verdict."""
    return pb.GuardVerdict(
        name=verdict.name,
        backend=verdict.backend,
        holds=verdict.holds,
        reason=verdict.reason.value if verdict.reason else "",
        value=verdict.value,
        limit=verdict.limit,
        detail=verdict.detail,
        clears_time=timestamp(verdict.clears_time),
    )


def executor_verdicts(facts: Facts, reports: Iterable[ExecutorReport], silent: Iterable[str]) -> list[pb.ExecutorVerdict]:
    """What each executor would say to a local task; `silent` are the targets that were not heard."""
    found = [pb.ExecutorVerdict(executor_id=target, reason="no_executor", detail="not heard of") for target in silent]
    for report in reports:
        pools = facts.fleet.executors.get(report.executor_id)
        message = pb.ExecutorVerdict(executor_id=report.executor_id)
        if report.draining:
            message.reason, message.detail = "draining", "takes no new runs"
        elif pools is None:
            message.reason, message.detail = "no_sample", "has no resource sample"
        else:
            pool = pools.task_pool
            message.value, message.limit = str(pool.used), str(pool.budget)
            message.detail = report.resources_reason or f"{pool.available} of {pool.budget} task slots free"
            if pool.available == 0:
                message.reason = "pool_exhausted" if pool.budget == 0 else "pool_c_full"
        found.append(message)
    return found


def explanation_message(
    explanation: Explanation, reports: Iterable[ExecutorReport], silent: Iterable[str]
) -> pb.ExplainDispatchResponse:
    """The whole chain."""
    return pb.ExplainDispatchResponse(
        would_dispatch=explanation.would_dispatch,
        guards=[verdict_message(verdict) for verdict in explanation.verdicts],
        executors=executor_verdicts(explanation.facts, reports, silent),
        sentence=explanation.sentence,
        task_reason=explanation.task_reason,
        queue_position=explanation.queue_position,
        task_clears_time=timestamp(explanation.task_clears_time),
        open_prerequisites=[
            pb.OpenPrerequisite(task_id=str(id_), status=STATUSES[status] if status else pb.TASK_STATUS_UNSPECIFIED)
            for id_, status in explanation.open_prerequisites
        ],
    )


def set_slots(message: pb.GetSlotsResponse, view: SlotsView, reports: Sequence[ExecutorReport]) -> None:
    """Makes an answer, which is empty, the pools by executor and in all."""
    if view.cap.slots is not None:
        message.budget_cap = view.cap.slots
    total = view.fleet.total
    if total is not None:
        _set_pools(message, total)
        message.dispatch_allowed = total.dispatch_allowed
    for verdict, report in zip(executor_verdicts(view.facts, reports, ()), reports, strict=True):
        slots = message.executors.add(executor_id=report.executor_id, reason=verdict.reason)
        pools = view.fleet.executors.get(report.executor_id)
        if pools is not None:
            _set_pools(slots, pools)
    for backend in view.facts.gates.backends:
        limits = [total.task_pool.budget if total else 0] if backend.local else []
        limits += [] if backend.max_runs is None else [backend.max_runs]
        message.backends.add(
            backend=backend.backend, local=backend.local, budget=min(limits, default=0), used=view.facts.running(backend.backend)
        )


def _set_pools(message: pb.GetSlotsResponse | pb.ExecutorSlots, pools: Pools) -> None:
    user, internal, tasks = pools.user, pools.internal, pools.task_pool
    message.total_capacity = pools.total_capacity
    message.max_pressure = pools.max_pressure
    message.effective_slots = pools.effective_slots
    message.user.budget, message.user.used = user.budget, user.used
    message.user.mode, message.user.headroom = user.mode.value, user.headroom
    message.internal.budget, message.internal.used = internal.budget, internal.used
    message.task_pool.budget, message.task_pool.used, message.task_pool.available = tasks.budget, tasks.used, tasks.available


def pause_message(pause: BillingPause) -> pb.BillingPause:
    """A billing pause."""
    return pb.BillingPause(
        backend=pause.backend,
        until_time=timestamp(pause.until_time),
        since_time=timestamp(pause.since_time),
        reason=pause.reason,
    )


def setting_message(name: str, configured: Configured, override: SettingOverride | None) -> pb.Setting:
    """A setting as it is in force."""
    return pb.Setting(
        name=name,
        value=text_of(configured.value if override is None else override.value),
        unit=TUNABLES[name].unit,
        origin=configured.origin.value if override is None else Origin.OVERRIDE.value,
        meaning=configured.meaning,
        value_without_override=text_of(configured.value),
        actor="" if override is None else override.actor,
        reason="" if override is None else override.reason,
        since_time=None if override is None else timestamp(override.since_time),
    )


def audit_message(entry: AuditEntry) -> pb.AuditEntry:
    """An entry of the audit log."""
    return pb.AuditEntry(
        id=entry.id,
        time=timestamp(entry.time),
        actor=entry.actor,
        method=entry.method,
        target=entry.target,
        reason=entry.reason,
        request_id=entry.request_id,
        detail=struct(entry.detail),
    )


def event_message(event: Event) -> pb.Event:
    """An event."""
    return pb.Event(id=event.id, type=event.type, time=timestamp(event.time), source=event.source, payload=struct(event.payload))


def dispatch_event_message(event: DispatchEvent) -> pb.DispatchEvent:
    """A recorded decision."""
    return pb.DispatchEvent(
        id=event.id,
        time=timestamp(event.create_time),
        success=event.success,
        reason=event.reason,
        detail=event.detail,
        attempt=event.attempt,
        task_id=str(event.task_id) if event.task_id else "",
        run_id=str(event.run_id) if event.run_id else "",
        executor_id=event.executor_id,
        backend=event.backend,
    )


def override_message(
    kind: str, scope: str, actor: str, reason: str, since: datetime | None, until: datetime | None = None
) -> pb.Override:
    """Who holds an override, why, since and until when."""
    return pb.Override(
        kind=kind, scope=scope, actor=actor, reason=reason, since_time=timestamp(since), until_time=timestamp(until)
    )
