"""How many local runs may be under way at once: the slots of the report, less what runs that have not grown yet will take.

A sample shows what is used, not what was promised. A run counts with its full share (MEM_PER_TASK_MB, CPU_PER_TASK) from the
moment it is let in, be its processes born or not: what it uses already is in the sample, the rest is reserved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from executor_service.core.admission import NO_SAMPLE, USABLE_SHARE, Limits, ResourceReport, ResourceSample, RunUse, half_up

UNSEEN_GROWS_FOR = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class LocalRun:
    """A local run that has not ended."""

    run_id: str
    accept_time: datetime


@dataclass(frozen=True, slots=True)
class Reserved:
    """What runs have been promised and do not use yet: MiB and cores."""

    memory_mb: float
    cpu_cores: float


@dataclass(frozen=True, slots=True)
class Room:
    """`slots`: local runs that may be under way at once, those there are among them. `reason`: why no further one may come in."""

    slots: int
    reason: str = ""


def reserved(sample: ResourceSample, runs: Iterable[LocalRun], limits: Limits, now: datetime) -> Reserved:
    """What these runs may still take at `now`.

    Memory stays reserved for as long as a run lives, for it may grow late; where its processes cannot be seen (a bridge has
    them), for its first 30 s, as from then on the sample has it, and it would count twice. CPU is reserved until the run is
    as old as the window of the sample: from then on the mean shows what it takes.
    """
    memory_mb = cpu_cores = 0.0
    window_began = sample.time - timedelta(seconds=sample.cpu_window_s)
    for run in runs:
        use = sample.runs.get(run.run_id)
        if use is not None or now - run.accept_time < UNSEEN_GROWS_FOR:
            memory_mb += max(0.0, limits.mem_per_task_mb - (use or _NOTHING).memory_mb)
        if run.accept_time > window_began:
            seen = (use or _NOTHING).cpu_seconds / sample.cpu_window_s
            cpu_cores += max(0.0, limits.cpu_per_task - seen)
    return Reserved(memory_mb, cpu_cores)


_NOTHING = RunUse(0.0, 0.0)


def room(report: ResourceReport, runs: Iterable[LocalRun], limits: Limits, now: datetime) -> Room:
    """How many local runs may be under way at once, `runs` among them; never more than the report's slots.

    Memory must be there for each further run in full. Cores can be shared: half a share left is room for one, and where use
    counts as overload from more than 100 % on, they may be shared that much. A machine that is too small for a single share
    takes one run at a time.
    """
    sample = report.sample
    if sample is None:
        return Room(0, NO_SAMPLE)
    live = list(runs)
    if len(live) >= report.effective_slots:
        return Room(report.effective_slots, report.reason or f"{len(live)} of {report.effective_slots} slots are taken")
    promised = reserved(sample, live, limits, now)
    memory_mb = sample.free_mem_mb - promised.memory_mb
    cores = sample.cpu_cores * (max(100.0, limits.cpu_threshold_pct) - sample.cpu_usage_pct) / 100 - promised.cpu_cores
    by_memory, by_cores = math.floor(memory_mb / limits.mem_per_task_mb), half_up(cores / limits.cpu_per_task)
    further = min(by_memory, by_cores, report.effective_slots - len(live))
    if further <= 0 and not live and _too_small(sample, limits):
        further = 1
    if further > 0:
        return Room(len(live) + further)
    words = []
    if by_memory <= 0:
        words.append(f"memory {max(0, math.floor(memory_mb))} MiB left < MEM_PER_TASK_MB={limits.mem_per_task_mb}")
    if by_cores <= 0:
        words.append(f"{max(0.0, cores):.2f} cores left for CPU_PER_TASK={limits.cpu_per_task:g}")
    return Room(len(live), f"{'; '.join(words)}, with what is reserved for {len(live)} runs")


def _too_small(sample: ResourceSample, limits: Limits) -> bool:
    """Whether the least capacity of two is more than the machine has by its own measure."""
    return limits.mem_per_task_mb > USABLE_SHARE * sample.total_mem_mb or limits.cpu_per_task > USABLE_SHARE * sample.cpu_cores
