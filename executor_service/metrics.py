"""The executor's metrics: the contract's table, for one registry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from prometheus_client import CollectorRegistry

from executor_service.core.admission import ResourceReport
from executor_service.core.reservation import Room
from executor_service.core.run import RunOutcome, RunRecord, RunState
from service_runtime.metrics import MetricSet

PREFIX = "cecelia_executor"
RUN_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400)
LIVE_STATES = (RunState.ACCEPTED, RunState.RUNNING)
STALLS = ("cpu", "memory")
PROCESS_CONTROLS = ("cgroup", "process_group")
RESOURCES = ("cpu", "memory", "swap", "max")


class ExecutorMetrics:
    """Every series is there from the start."""

    def __init__(self, registry: CollectorRegistry, version: str, backends: Iterable[str]) -> None:
        names = list(backends)
        make = MetricSet(registry, PREFIX)
        self._backends = names
        self._runs = make.gauge(
            "runs", "Runs that have not ended.", {"backend": names, "state": [state.value for state in LIVE_STATES]}
        )
        durations = make.histogram(
            "run_duration_seconds",
            "How long runs took from their acceptance to their end.",
            RUN_SECONDS,
            {"backend": names, "outcome": [outcome.value for outcome in RunOutcome]},
        )
        # Found once: to look a series up by its labels costs a short run more than to count it.
        self._duration_of = {(name, outcome): durations.labels(name, outcome.value) for name in names for outcome in RunOutcome}
        self._pressure = make.gauge("resource_pressure", "Pressure of a resource; 1 leaves no slot.", {"resource": RESOURCES})
        self._slots = make.gauge("effective_slots", "Slots that the pressure leaves.")
        self._admission = make.gauge(
            "admission_slots",
            "Local runs that may be under way at once: effective_slots, less what is reserved for growth.",
        )
        self._stall = make.gauge(
            "resource_stall_ratio",
            "Share of the last 10 s in which all work waited for memory, or some for a core (PSI; 0 if not told).",
            {"resource": STALLS},
        )
        self._configured = make.gauge(
            "backend_configured", "Whether a backend is set up rightly; 0: config_error.", {"backend": names}
        )
        self.disk_free = make.free_bytes("data")
        self._control = make.gauge("process_control", "1 for what holds a run's processes together.", {"kind": PROCESS_CONTROLS})
        self.rpc_durations = make.rpc_durations()
        make.build_info(version)
        self.made = tuple(make.made)

    def observe(self, report: ResourceReport, room: Room, live: Iterable[RunRecord]) -> None:
        """Takes in the state as it is."""
        self._slots.set(report.effective_slots)
        self._admission.set(room.slots)
        sample = report.sample
        stalls = (sample.cpu_stall_pct, sample.memory_stall_pct) if sample is not None else (None, None)
        for resource, pct in zip(STALLS, stalls, strict=True):
            self._stall.labels(resource).set((pct or 0.0) / 100)
        values = (report.cpu_pressure, report.mem_pressure, report.swap_pressure, report.max_pressure)
        for resource, value in zip(RESOURCES, values, strict=True):
            self._pressure.labels(resource).set(value)
        counts = Counter((record.spec.backend, record.state.value) for record in live)
        for backend in self._backends:
            for state in LIVE_STATES:
                self._runs.labels(backend, state.value).set(counts[(backend, state.value)])

    def configured(self, wrong: Mapping[str, str]) -> None:
        """Takes in what is wrong with each backend ('': nothing)."""
        for backend in self._backends:
            self._configured.labels(backend).set(not wrong.get(backend))

    def process_control(self, kinds: Collection[str]) -> None:
        """Which of the two are in force; none where nothing runs here."""
        for kind in PROCESS_CONTROLS:
            self._control.labels(kind).set(kind in kinds)

    def run_ended(self, record: RunRecord) -> None:
        """A run is over."""
        if record.end is not None and record.end_time is not None and record.spec.backend in self._backends:
            seconds = (record.end_time - record.accept_time).total_seconds()
            self._duration_of[record.spec.backend, record.end.outcome].observe(seconds)
