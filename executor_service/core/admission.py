"""What the machine can take: capacity, pressure and slots, by the reference's formulas (2.3).

A missing or stale sample means "refuse" (`no_sample`), never "no pressure". Once a hard line is reached nothing new comes in
until every signal is back below its soft line. Pressure is the reference's; beside it stand stalls for memory (PSI `memory
full`): how much of the last 10 s every task that could have worked waited for memory. Stalls for CPU are told and decide
nothing: somebody waits for a core at nominal load too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

CPU_THRESHOLD_PCT = 80.0
SWAP_MAX_PCT = 70.0
USABLE_SHARE = 0.8
CAPACITY_MIN = 2
NO_SAMPLE = "no_sample"
SAMPLE_MAX_AGE = timedelta(seconds=10)
CPU_WINDOW_S = 10.0
PRESSURE_HARD, PRESSURE_SOFT = 1.0, 0.9
MEMORY_STALL_HARD_PCT, MEMORY_STALL_SOFT_PCT = 10.0, 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """MEM_PER_TASK_MB (MiB), CPU_PER_TASK (cores), CECELIA_BUDGET_SLOTS (None: no ceiling), CPU_THRESHOLD_PCT (percent)."""

    mem_per_task_mb: int = 500
    cpu_per_task: float = 0.5
    budget_cap: int | None = None
    cpu_threshold_pct: float = CPU_THRESHOLD_PCT


@dataclass(frozen=True, slots=True)
class RunUse:
    """What the processes of one run use: memory of their own in MiB, and CPU seconds since its start."""

    memory_mb: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class ResourceSample:
    """One measurement. Memory in MiB; percentages 0 to 100; cores may be a fraction.

    CPU use is the mean over the `cpu_window_s` before `time`: within one second a burst and an overload look alike. Stalls are
    None where the kernel tells of none. `runs`: the use of those local runs whose processes were seen, by run id.
    """

    time: datetime
    cpu_usage_pct: float
    cpu_cores: float
    total_mem_mb: int
    free_mem_mb: int
    swap_used_pct: float
    load_avg_1m: float
    headed_sessions: int
    headless_sessions: int
    cpu_window_s: float = CPU_WINDOW_S
    memory_stall_pct: float | None = None
    cpu_stall_pct: float | None = None
    runs: Mapping[str, RunUse] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pressures:
    """Use against its limit, for each resource; at 1 nothing more fits. Memory's can be below 0."""

    cpu: float
    memory: float
    swap: float

    @property
    def highest(self) -> float:
        """The largest of the three."""
        return max(self.cpu, self.memory, self.swap)


@dataclass(frozen=True, slots=True)
class AdmissionState:
    """What one sample leaves for the next: whether a hard line was reached and the soft ones are not yet passed."""

    holding: bool = False


NOTHING_HELD = AdmissionState()


@dataclass(frozen=True, slots=True)
class ResourceReport:
    """What CheckResources tells; `sample` None when there is none that counts."""

    ok: bool
    reason: str
    effective_slots: int
    max_seats: int
    physical_capacity: int
    budget_cap: int | None
    cpu_pressure: float = 0.0
    mem_pressure: float = 0.0
    swap_pressure: float = 0.0
    max_pressure: float = 0.0
    mem_min_mb: int = 0
    sample: ResourceSample | None = None
    cpu_threshold_pct: float = CPU_THRESHOLD_PCT


def half_up(value: float) -> int:
    """Rounds as the reference does: a half goes up, not to the even neighbour."""
    return math.floor(value + 0.5)


def two_decimals(value: float) -> float:
    """Two decimals, a half up."""
    return math.floor(value * 100 + 0.5) / 100


def physical_capacity(total_mem_mb: int, cpu_cores: float, limits: Limits) -> int:
    """max(2, floor(min(0.8 x memory / memory a task, 0.8 x cores / cores a task)))."""
    by_memory = USABLE_SHARE * total_mem_mb / limits.mem_per_task_mb
    by_cores = USABLE_SHARE * cpu_cores / limits.cpu_per_task
    return max(CAPACITY_MIN, math.floor(min(by_memory, by_cores)))


def slots_at(pressure: float, seats: int) -> int:
    """The slots that a pressure leaves of `seats`."""
    if pressure >= 1.0:
        return 0
    if pressure >= 0.9:
        return min(1, seats)
    if pressure >= 0.7:
        return max(1, half_up(seats / 3))
    if pressure >= 0.5:
        return max(1, half_up(2 * seats / 3))
    return seats


def pressures(sample: ResourceSample, limits: Limits) -> Pressures:
    """The pressures of a sample."""
    return Pressures(
        cpu=half_up(sample.cpu_usage_pct) / limits.cpu_threshold_pct,
        memory=1 - sample.free_mem_mb / (USABLE_SHARE * sample.total_mem_mb),
        swap=sample.swap_used_pct / SWAP_MAX_PCT,
    )


def next_state(state: AdmissionState, sample: ResourceSample, limits: Limits) -> AdmissionState:
    """The state after a sample: holding from a hard line on, until all is below the soft lines."""
    pressure, stall = pressures(sample, limits).highest, sample.memory_stall_pct or 0.0
    if state.holding:
        return AdmissionState(pressure >= PRESSURE_SOFT or stall >= MEMORY_STALL_SOFT_PCT)
    return AdmissionState(pressure >= PRESSURE_HARD or stall >= MEMORY_STALL_HARD_PCT)


def is_stale(sample: ResourceSample, now: datetime) -> bool:
    """Whether a sample is older than 10 s, or of a time to come: then the clock was set back, and its age is not known."""
    return abs(now - sample.time) > SAMPLE_MAX_AGE


def assess(sample: ResourceSample | None, limits: Limits, now: datetime, state: AdmissionState = NOTHING_HELD) -> ResourceReport:
    """The report of a sample, with the state that it led to; of a missing or stale one `no_sample` and no slots.

    Every figure is the reference's. The state can only take slots away.
    """
    if sample is None or is_stale(sample, now):
        return ResourceReport(False, NO_SAMPLE, 0, 0, 0, limits.budget_cap, cpu_threshold_pct=limits.cpu_threshold_pct)
    capacity = physical_capacity(sample.total_mem_mb, sample.cpu_cores, limits)
    seats = capacity if limits.budget_cap is None else min(limits.budget_cap, capacity)
    found = pressures(sample, limits)
    slots = 0 if state.holding else slots_at(found.highest, seats)
    mem_min_mb = half_up(0.15 * sample.total_mem_mb + 1000)
    return ResourceReport(
        ok=slots > 0,
        reason="" if slots > 0 else _overload(sample, limits, found, mem_min_mb),
        effective_slots=slots,
        max_seats=seats,
        physical_capacity=capacity,
        budget_cap=limits.budget_cap,
        cpu_threshold_pct=limits.cpu_threshold_pct,
        cpu_pressure=two_decimals(found.cpu),
        mem_pressure=two_decimals(found.memory),
        swap_pressure=two_decimals(found.swap),
        max_pressure=two_decimals(found.highest),
        mem_min_mb=mem_min_mb,
        sample=sample,
    )


def _overload(sample: ResourceSample, limits: Limits, found: Pressures, mem_min_mb: int) -> str:
    """Names every signal that is over its limit; when all have come down, what is still waited for."""
    words = []
    if found.cpu >= PRESSURE_HARD:
        words.append(f"CPU {half_up(sample.cpu_usage_pct)}% >= {limits.cpu_threshold_pct:g}%")
    # The reference names memory below its minimum beside what made the pressure, and on its own it makes none.
    if found.memory >= PRESSURE_HARD or (found.highest >= PRESSURE_HARD and sample.free_mem_mb < mem_min_mb):
        words.append(f"memory {sample.free_mem_mb} MiB free < {mem_min_mb} MiB")
    if found.swap >= PRESSURE_HARD:
        words.append(f"swap {sample.swap_used_pct:g}% >= {SWAP_MAX_PCT:g}%")
    if words:
        return "; ".join(words)
    if found.highest >= PRESSURE_SOFT:
        return f"was overloaded; pressure {found.highest:.2f} is not yet below {PRESSURE_SOFT:g}"
    stall = sample.memory_stall_pct or 0.0
    return f"all work waits for memory {stall:.0f}% of the time; it must come below {MEMORY_STALL_SOFT_PCT:g}%"
