"""The scheduler's metrics: the contract's table, for one registry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta

from prometheus_client import CollectorRegistry

from scheduler_service.core.breaker import Breaker, BreakerState
from scheduler_service.core.outcome_window import Window
from scheduler_service.core.reasons import REASON_KINDS, Reason, ReasonKind
from scheduler_service.core.routing import Backend, BackendKind
from scheduler_service.core.task import Priority, TaskStatus
from scheduler_service.transactions.reading import StatusView
from scheduler_service.transactions.recording import Recorded
from scheduler_service.transactions.ticking import TickResult
from service_runtime.metrics import MetricSet

PREFIX = "cecelia_scheduler"
TICK_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
START_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400)
DISPATCHED = "dispatched"
OVERRIDES = ("drain", "billing_pause", "budget_cap", "breaker_tripped")
DRAIN_SECONDS = (1, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400)
_WINDOWS = ("window_1h", "attempts")
POOLS = ("user", "internal", "task_pool")
LIVE = (TaskStatus.QUEUED, TaskStatus.DISPATCHING, TaskStatus.RUNNING, TaskStatus.QUARANTINED)
# A candidate that pre-flight puts aside holds nothing else.
_HOLDS = [
    *(r.value for r, kind in REASON_KINDS.items() if kind is ReasonKind.BLOCKED and r is not Reason.PRE_FLIGHT_CHECK_FAILED),
    Reason.NO_EXECUTOR.value,
    Reason.CONFIG_ERROR.value,
]

_OBSERVABLE = (Reason.LOW_SUCCESS_RATE.value, Reason.CIRCUIT_BREAKER_OPEN.value)


class SchedulerMetrics:
    """Every series is there from the start. Is told by the tick (tick.ports.Observer) and by looks at the status.

    What happened is counted where it was committed: over all replicas, each decision and each transition once.
    """

    def __init__(self, registry: CollectorRegistry, version: str, backends: Mapping[str, Backend]) -> None:
        make = MetricSet(registry, PREFIX)
        names = sorted(backends)
        self._leads = False
        self._tick_time: datetime | None = None
        # Bare names have a state, which is an answer over rows; only rows have transitions.
        self._bare = {name for name, backend in backends.items() if backend.kind is BackendKind.PER_EXECUTOR}
        self._configured = frozenset(backends)
        self._decisions = make.labelled_counter(
            "dispatch_decisions",
            "Decisions by their outcome and reason.",
            ("outcome", "reason"),
            [(DISPATCHED, ""), *((kind.value, reason.value) for reason, kind in REASON_KINDS.items())],
        )
        self._attempts = make.counter(
            "dispatch_attempts", "Start verdicts.", {"backend": names, "outcome": ("success", "failure")}
        )
        self._ratio = make.gauge(
            "window_success_ratio", "Share of successes in the window; NaN while it is empty.", {"window": _WINDOWS}
        )
        for window in _WINDOWS:
            self._ratio.labels(window).set(float("nan"))
        self._samples = make.gauge("window_samples", "Decisions in the window.", {"window": _WINDOWS})
        self._holds = make.gauge("hold_active", "1 while the newest tick held a queued task for this reason.", {"reason": _HOLDS})
        self._breaker_keys: set[str] = set()
        self._breakers = make.labelled_gauge("breaker_state", "1 for the state that a breaker is in.", ("key", "state"))
        self._transitions = make.labelled_counter(
            "breaker_transitions", "Changes of state, counted on the replica that made them.", ("key", "to"), []
        )
        for name in backends:
            self._add_breaker(name)
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
            {"backend": names},
        )
        self._tick_seconds = make.histogram("tick_duration_seconds", "How long a tick's transaction took.", TICK_SECONDS)
        self._tick_success = make.gauge("tick_last_success_timestamp_seconds", "When the last tick succeeded.")
        self._leader = make.gauge("leader", "Whether this replica leads.")
        self._slots = make.gauge("slots", "Slots by pool.", {"pool": POOLS, "kind": ("budget", "used")})
        self._observed = make.gauge(
            "hold_observed", "Whether a gate would hold whose guard only observes.", {"reason": _OBSERVABLE}
        )
        self._drains = make.histogram("drain_duration_seconds", "How long a source's drain took; told at its end.", DRAIN_SECONDS)
        self._overrides = make.gauge("override_active", "Whether an override is in force.", {"kind": OVERRIDES})
        self._override_since = make.gauge(
            "override_since_timestamp_seconds", "When the oldest override in force was made; 0 without one.", {"kind": OVERRIDES}
        )
        self.disk_free = make.free_bytes("data")
        self.rpc_durations = make.rpc_durations()
        make.build_info(version)
        self.made = tuple(make.made)

    # --- told by the tick

    def ticked(self, seconds: float, result: TickResult) -> None:
        """A tick has committed."""
        self._tick_seconds.observe(seconds)
        self._tick_success.set_to_current_time()
        self._tick_time = result.now
        # The last tick of a leadership may be told after its end.
        self._show_holds({reason.value for reason, _ in result.memory.recorded} if self._leads else set())
        self._show_observed({verdict.name for verdict in result.verdicts if verdict.would_hold} if self._leads else set())
        for decision in result.decisions:
            kind = REASON_KINDS[Reason(decision.reason)]
            self._decisions.labels(kind.value, decision.reason).inc()

    def tick_failed(self) -> None:
        """A tick was taken back, or none is taken any more: it held nothing, and what an earlier one held may be over."""
        self._show_holds(set())
        self._show_observed(set())

    def _show_holds(self, held: Collection[str]) -> None:
        for reason in _HOLDS:
            self._holds.labels(reason).set(reason in held)

    def _show_observed(self, observed: Collection[str]) -> None:
        for reason in _OBSERVABLE:
            self._observed.labels(reason).set(reason in observed)

    def recorded(self, recorded: Recorded) -> None:
        """News of runs has been committed."""
        for (backend, success, reason), n in Counter(recorded.decisions).items():
            if success:
                self._decisions.labels(DISPATCHED, "").inc(n)
                self._attempts.labels(backend, "success").inc(n)
                continue
            self._decisions.labels(REASON_KINDS[Reason(reason)].value, reason).inc(n)
            if reason == Reason.EXECUTOR_FAILED.value:
                self._attempts.labels(backend, "failure").inc(n)
        latencies = {backend: self._start_latency.labels(backend) for backend in {name for name, _ in recorded.start_latencies}}
        for backend, seconds in recorded.start_latencies:
            latencies[backend].observe(seconds)
        self.breakers_moved(recorded.moved_breakers)

    def breakers_moved(self, breakers: Iterable[Breaker]) -> None:
        """Breakers have changed their state."""
        for breaker in breakers:
            self._add_breaker(breaker.key)
            self._transitions.labels(breaker.key, breaker.state.value).inc()

    def drains_ended(self, took: Iterable[timedelta]) -> None:
        """Drains are over."""
        for span in took:
            self._drains.observe(span.total_seconds())

    def led(self, leading: bool) -> None:
        """This replica leads, or does not any more: then it knows of no gate."""
        self._leads = leading
        self._leader.set(leading)
        if not leading:
            self._show_holds(set())
            self._show_observed(set())

    # --- a look at the status

    def observe(self, view: StatusView) -> None:
        """Takes in the state as it is."""
        self._learn(view.slots.facts.backends)
        windows: Mapping[str, Window] = {"window_1h": view.stats.window_1h, "attempts": view.stats.attempts}
        for name, window in windows.items():
            self._ratio.labels(name).set(float("nan") if window.rate is None else window.rate)
            self._samples.labels(name).set(window.total)
        self._observe_breakers(view.breakers)
        # No tick need come after the last queued task has gone.
        waiting = any(view.queue.get((priority, TaskStatus.QUEUED)) for priority in Priority)
        if not waiting and self._tick_time is not None and view.now > self._tick_time:
            self._show_holds(set())
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
        for kind, since_times in _overrides_since(view).items():
            self._overrides.labels(kind).set(bool(since_times))
            known = [since.timestamp() for since in since_times if since is not None]
            self._override_since.labels(kind).set(min(known, default=0.0))

    def _learn(self, backends: Mapping[str, Backend]) -> None:
        """What a plug-in is, is known once an executor has told of it."""
        for name, backend in backends.items():
            for outcome in ("success", "failure"):
                self._attempts.labels(name, outcome)
            self._start_latency.labels(name)
            if backend.kind is BackendKind.PER_EXECUTOR:
                self._bare.add(name)
            else:
                self._bare.discard(name)

    def _observe_breakers(self, breakers: Mapping[str, Breaker]) -> None:
        for breaker in breakers.values():
            self._add_breaker(breaker.key)
            for state in BreakerState:
                self._breakers.labels(breaker.key, state.value).set(breaker.state is state)
        for key in self._breaker_keys - breakers.keys() - self._configured:
            self._breaker_keys.discard(key)
            for state in BreakerState:
                self._breakers.remove(key, state.value)
                if key not in self._bare:
                    self._transitions.remove(key, state.value)

    def _add_breaker(self, key: str) -> None:
        """Makes the series of a key, all at once: an increase is seen only in a series that was there before it."""
        self._breaker_keys.add(key)
        for state in BreakerState:
            self._breakers.labels(key, state.value)
            if key not in self._bare:
                self._transitions.labels(key, state.value)


def _overrides_since(view: StatusView) -> dict[str, list[datetime | None]]:
    """Since when each override is in force, by kind."""
    cap = view.slots.cap
    tripped = [view.breakers.get(key) for key in view.tripped_by]
    return {
        "drain": [drain.since_time for drain in view.drains],
        "billing_pause": [pause.since_time for pause in view.billing_pauses],
        "budget_cap": [cap.since_time] if cap.slots is not None else [],
        "breaker_tripped": [breaker.opened_time if breaker is not None else None for breaker in tripped],
    }
