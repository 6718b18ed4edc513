"""The scheduler's metrics: the contract's table, for one registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry

from scheduler_service.core.breaker import Breaker, BreakerState
from scheduler_service.core.dispatch_checks import Verdict
from scheduler_service.core.outcome_window import Window
from scheduler_service.core.reasons import REASON_KINDS, Reason, ReasonKind
from scheduler_service.core.task import Priority, TaskStatus
from scheduler_service.transactions.planning import Decision
from scheduler_service.transactions.reading import StatusView
from scheduler_service.transactions.recording import Recorded
from service_runtime.metrics import MetricSet

PREFIX = "cecelia_scheduler"
TICK_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
START_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400)
DISPATCHED = "dispatched"
OVERRIDES = ("drain", "billing_pause", "budget_cap", "breaker_tripped")
_WINDOWS = ("window_1h", "attempts")
POOLS = ("user", "internal", "task_pool")
LIVE = (TaskStatus.QUEUED, TaskStatus.DISPATCHING, TaskStatus.RUNNING, TaskStatus.QUARANTINED)
# A candidate that pre-flight puts aside holds nothing else.
_HOLDS = [
    *(r.value for r, kind in REASON_KINDS.items() if kind is ReasonKind.BLOCKED and r is not Reason.PRE_FLIGHT_CHECK_FAILED),
    Reason.NO_EXECUTOR.value,
    Reason.CONFIG_ERROR.value,
]


class SchedulerMetrics:
    """Every series is there from the start. Is told by the tick (tick.ports.Observer) and by looks at the status."""

    def __init__(self, registry: CollectorRegistry, version: str, backends: Sequence[str]) -> None:
        make = MetricSet(registry, PREFIX)
        self._decisions = make.labelled_counter(
            "dispatch_decisions",
            "Decisions by their outcome and reason.",
            ("outcome", "reason"),
            [(DISPATCHED, ""), *((kind.value, reason.value) for reason, kind in REASON_KINDS.items())],
        )
        self._attempts = make.counter(
            "dispatch_attempts", "Start verdicts.", {"backend": backends, "outcome": ("success", "failure")}
        )
        self._ratio = make.gauge(
            "window_success_ratio", "Share of successes in the window; NaN while it is empty.", {"window": _WINDOWS}
        )
        self._samples = make.gauge("window_samples", "Decisions in the window.", {"window": _WINDOWS})
        self._holds = make.gauge("hold_active", "Whether a gate holds.", {"reason": _HOLDS})
        self._breaker_keys: set[str] = set()
        self._breakers = make.labelled_gauge("breaker_state", "1 for the state that a breaker is in.", ("key", "state"))
        self._transitions = make.labelled_counter("breaker_transitions", "Changes of state.", ("key", "to"), [])
        self._tasks = make.gauge(
            "tasks",
            "Tasks that have not ended.",
            {"status": [status.value for status in LIVE], "priority": [priority.name for priority in Priority]},
        )
        self._oldest_due = make.gauge(
            "oldest_due_task_age_seconds",
            "For how long the oldest due task has waited; 0 without one.",
            {"priority": [priority.name for priority in Priority]},
        )
        self._start_latency = make.histogram(
            "task_start_latency_seconds",
            "From a task's submission to its first successful start verdict.",
            START_SECONDS,
            {"backend": backends},
        )
        self._tick_seconds = make.histogram("tick_duration_seconds", "How long a tick's transaction took.", TICK_SECONDS)
        self._tick_success = make.gauge("tick_last_success_timestamp_seconds", "When the last tick succeeded.")
        self._leader = make.gauge("leader", "Whether this replica leads.")
        self._slots = make.gauge("slots", "Slots by pool.", {"pool": POOLS, "kind": ("budget", "used")})
        self._overrides = make.gauge("override_active", "Whether an override is in force.", {"kind": OVERRIDES})
        self.rpc_durations = make.rpc_durations()
        make.build_info(version)
        self.made = tuple(make.made)

    # --- told by the tick

    def ticked(self, seconds: float, verdicts: Sequence[Verdict], decisions: Iterable[Decision]) -> None:
        """A tick has committed."""
        self._tick_seconds.observe(seconds)
        self._tick_success.set_to_current_time()
        held = {verdict.reason.value for verdict in verdicts if verdict.holds and verdict.reason is not None}
        for reason in _HOLDS:
            self._holds.labels(reason).set(reason in held)
        for decision in decisions:
            kind = REASON_KINDS[Reason(decision.reason)]
            self._decisions.labels(kind.value, decision.reason).inc()

    def recorded(self, recorded: Recorded) -> None:
        """News of runs has been committed."""
        for backend, success, reason in recorded.decisions:
            if success:
                self._decisions.labels(DISPATCHED, "").inc()
                self._attempts.labels(backend, "success").inc()
                continue
            self._decisions.labels(REASON_KINDS[Reason(reason)].value, reason).inc()
            if reason == Reason.EXECUTOR_FAILED.value:
                self._attempts.labels(backend, "failure").inc()
        for backend, seconds in recorded.start_latencies:
            self._start_latency.labels(backend).observe(seconds)
        self.breakers_moved(recorded.moved_breakers)

    def breakers_moved(self, breakers: Iterable[Breaker]) -> None:
        """Breakers have changed their state."""
        for breaker in breakers:
            self._transitions.labels(breaker.key, breaker.state.value).inc()

    def led(self, leading: bool) -> None:
        """This replica leads, or does not any more: then it knows of no gate."""
        self._leader.set(leading)
        if not leading:
            for reason in _HOLDS:
                self._holds.labels(reason).set(0)

    # --- a look at the status

    def observe(self, view: StatusView) -> None:
        """Takes in the state as it is."""
        windows: Mapping[str, Window] = {"window_1h": view.stats.window_1h, "attempts": view.stats.attempts}
        for name, window in windows.items():
            self._ratio.labels(name).set(float("nan") if window.rate is None else window.rate)
            self._samples.labels(name).set(window.total)
        self._observe_breakers(view.breakers)
        for status in LIVE:
            for priority in Priority:
                self._tasks.labels(status.value, priority.name).set(view.queue.get((priority, status), 0))
        for priority in Priority:
            since = view.oldest_due.get(priority)
            self._oldest_due.labels(priority.name).set(0.0 if since is None else (view.now - since).total_seconds())
        total = view.slots.fleet.total
        for pool in POOLS:
            row = getattr(total, pool) if total is not None else None
            self._slots.labels(pool, "budget").set(row.budget if row is not None else 0)
            self._slots.labels(pool, "used").set(row.used if row is not None else 0)
        self._overrides.labels("drain").set(bool(view.drains))
        self._overrides.labels("billing_pause").set(bool(view.billing_pauses))
        self._overrides.labels("budget_cap").set(view.slots.cap.slots is not None)
        self._overrides.labels("breaker_tripped").set(bool(view.tripped_by))

    def _observe_breakers(self, breakers: Mapping[str, Breaker]) -> None:
        for breaker in breakers.values():
            for state in BreakerState:
                self._breakers.labels(breaker.key, state.value).set(breaker.state is state)
                self._transitions.labels(breaker.key, state.value)
        for key in self._breaker_keys - breakers.keys():
            for state in BreakerState:
                self._breakers.remove(key, state.value)
                self._transitions.remove(key, state.value)
        self._breaker_keys = set(breakers)
