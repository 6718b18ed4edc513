"""What the machine can take: capacity, pressure and slots, by the reference's formulas (2.3).

A missing or stale sample means "refuse" (`no_sample`), never "no pressure".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

CPU_THRESHOLD_PCT = 80.0
SWAP_MAX_PCT = 70.0
USABLE_SHARE = 0.8
CAPACITY_MIN = 2
NO_SAMPLE = "no_sample"
SAMPLE_MAX_AGE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Limits:
    """MEM_PER_TASK_MB (MiB), CPU_PER_TASK (cores), CECELIA_BUDGET_SLOTS (None: no ceiling), CPU_THRESHOLD_PCT (percent)."""

    mem_per_task_mb: int = 500
    cpu_per_task: float = 0.5
    budget_cap: int | None = None
    cpu_threshold_pct: float = CPU_THRESHOLD_PCT


@dataclass(frozen=True, slots=True)
class ResourceSample:
    """One measurement. Memory in MiB; percentages 0 to 100; cores may be a fraction."""

    time: datetime
    cpu_usage_pct: float
    cpu_cores: float
    total_mem_mb: int
    free_mem_mb: int
    swap_used_pct: float
    load_avg_1m: float
    headed_sessions: int
    headless_sessions: int


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


def assess(sample: ResourceSample | None, limits: Limits, now: datetime) -> ResourceReport:
    """The report of a sample; of a missing one, or one older than 10 s, `no_sample` and no slots."""
    if sample is None or now - sample.time > SAMPLE_MAX_AGE:
        return ResourceReport(False, NO_SAMPLE, 0, 0, 0, limits.budget_cap)
    capacity = physical_capacity(sample.total_mem_mb, sample.cpu_cores, limits)
    seats = capacity if limits.budget_cap is None else min(limits.budget_cap, capacity)
    cpu = half_up(sample.cpu_usage_pct) / limits.cpu_threshold_pct
    memory = 1 - sample.free_mem_mb / (USABLE_SHARE * sample.total_mem_mb)
    swap = sample.swap_used_pct / SWAP_MAX_PCT
    pressure = max(cpu, memory, swap)
    slots = slots_at(pressure, seats)
    mem_min_mb = half_up(0.15 * sample.total_mem_mb + 1000)
    return ResourceReport(
        ok=slots > 0,
        reason="" if slots > 0 else _overload(sample, limits, cpu, mem_min_mb, memory),
        effective_slots=slots,
        max_seats=seats,
        physical_capacity=capacity,
        budget_cap=limits.budget_cap,
        cpu_pressure=two_decimals(cpu),
        mem_pressure=two_decimals(memory),
        swap_pressure=two_decimals(swap),
        max_pressure=two_decimals(pressure),
        mem_min_mb=mem_min_mb,
        sample=sample,
    )


def _overload(sample: ResourceSample, limits: Limits, cpu: float, mem_min_mb: int, memory: float) -> str:
    """Names every signal that is over its limit; at least the one that made the pressure."""
    words = []
    if cpu >= 1.0:
        words.append(f"CPU {half_up(sample.cpu_usage_pct)}% >= {limits.cpu_threshold_pct:g}%")
    if sample.free_mem_mb < mem_min_mb or memory >= 1.0:
        words.append(f"memory {sample.free_mem_mb} MiB free < {mem_min_mb} MiB")
    if sample.swap_used_pct >= SWAP_MAX_PCT:
        words.append(f"swap {sample.swap_used_pct:g}% >= {SWAP_MAX_PCT:g}%")
    return "; ".join(words)
