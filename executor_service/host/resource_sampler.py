"""Measures the machine once a second, in a thread; a measurement that fails is missing, not zero."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import psutil
import structlog

from executor_service.core.admission import Limits, ResourceReport, ResourceSample, assess
from executor_service.host.cgroup import CgroupLimits, read_limits
from executor_service.host.sessions import Sessions, count_sessions
from service_runtime.clock import Clock

_log = structlog.get_logger(__name__)

PERIOD_S = 1.0
SESSIONS_EVERY = 5
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Busy and total CPU seconds of all cores since the boot; iowait counts as idle, as in the reference."""

    busy: float
    total: float


def read_cpu_times() -> CpuTimes:
    """From the kernel's counters."""
    times = psutil.cpu_times()
    # guest times are part of user already
    parts = [times.user, times.nice, times.system, times.irq, times.softirq, times.steal]
    busy = sum(parts)
    return CpuTimes(busy, busy + times.idle + times.iowait)


def cpu_usage_pct(before: CpuTimes, after: CpuTimes) -> float | None:
    """Percent of all cores between two readings; None when no time has passed."""
    total = after.total - before.total
    return max(0.0, min(100.0, 100.0 * (after.busy - before.busy) / total)) if total > 0 else None


class ResourceSampler:
    """`report` answers from the newest sample; `run` keeps it fresh."""

    def __init__(
        self,
        limits: Limits,
        session_process_name: str,
        clock: Clock,
        *,
        cgroup: Callable[[], CgroupLimits] = read_limits,
    ) -> None:
        self._limits = limits
        self._session_process_name = session_process_name
        self._clock = clock
        self._cgroup = cgroup
        self._sample: ResourceSample | None = None
        self._before: CpuTimes | None = None
        self._sessions = Sessions(0, 0)
        self._rounds = 0
        self.first_sample = asyncio.Event()
        # Its own: name look-ups that hang fill the event loop's, and a stale sample stops everything.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="resources")

    def report(self) -> ResourceReport:
        """What the machine can take now; `no_sample` when there is no fresh one."""
        return assess(self._sample, self._limits, self._clock.now())

    async def run(self) -> None:
        """Measures until cancelled."""
        failing = False
        loop = asyncio.get_running_loop()
        while True:
            try:
                sample = await loop.run_in_executor(self._thread, self.measure, self._clock.now())
            except (OSError, psutil.Error, ValueError) as error:
                if not failing:
                    _log.warning("resources_not_measured", error=f"{type(error).__name__}: {error}")
                failing = True
            else:
                failing = False
                if sample is not None:
                    self._sample = sample
                    self.first_sample.set()
            await asyncio.sleep(PERIOD_S if self._sample is not None else PERIOD_S / 4)

    def measure(self, now: datetime) -> ResourceSample | None:
        """One measurement; None for the first, as CPU use is a difference. Blocks for some milliseconds."""
        times = read_cpu_times()
        before, self._before = self._before, times
        cpu = cpu_usage_pct(before, times) if before is not None else None
        if self._rounds % SESSIONS_EVERY == 0:
            self._sessions = count_sessions(self._session_process_name, now.timestamp())
        self._rounds += 1
        if cpu is None:
            return None
        memory, swap, group = psutil.virtual_memory(), psutil.swap_memory(), self._cgroup()
        total, free = memory.total, memory.available
        if group.memory_limit is not None and group.memory_limit < total:
            total = group.memory_limit
            free = min(free, max(0, group.memory_limit - (group.memory_used or 0)))
        host_cores = float(len(os.sched_getaffinity(0)))
        cores = min(host_cores, group.cpu_cores) if group.cpu_cores is not None else host_cores
        return ResourceSample(
            time=now,
            cpu_usage_pct=cpu,
            cpu_cores=cores,
            total_mem_mb=max(1, total // MIB),
            free_mem_mb=free // MIB,
            swap_used_pct=swap.percent if swap.total else 0.0,
            load_avg_1m=os.getloadavg()[0],
            headed_sessions=self._sessions.headed,
            headless_sessions=self._sessions.headless,
        )
