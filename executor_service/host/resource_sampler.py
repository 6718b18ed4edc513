"""Measures the machine once a second, in a thread; a measurement that fails is missing, not zero."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import structlog

from executor_service.core.admission import NOTHING_HELD, Limits, ResourceReport, ResourceSample, assess, next_state
from executor_service.core.reservation import LocalRun, Room, room
from executor_service.host.cgroup import CgroupLimits, read_limits
from executor_service.host.cpu_use import CpuMeter, read_cpu_times, usable_cores
from executor_service.host.pressure_stall import read_stalls
from executor_service.host.run_use import RunUses
from executor_service.host.sessions import Sessions, count_sessions
from service_runtime.clock import Clock

_log = structlog.get_logger(__name__)

PERIOD_S = 1.0
SESSIONS_EVERY = 5
MIB = 1024 * 1024


class ResourceSampler:
    """`report` and `room` answer from the newest sample; `run` keeps it fresh.

    `run_dirs` names the folders of the live local runs, by run id; it is called on the event loop.
    """

    def __init__(
        self,
        limits: Limits,
        session_process_name: str,
        clock: Clock,
        run_uses: RunUses,
        run_dirs: Callable[[], Mapping[str, Path]],
        *,
        cgroup: Callable[[], CgroupLimits] = read_limits,
    ) -> None:
        self._limits = limits
        self._session_process_name = session_process_name
        self._clock = clock
        self._run_uses = run_uses
        self._run_dirs = run_dirs
        self._cgroup = cgroup
        self._sample: ResourceSample | None = None
        self._state = NOTHING_HELD
        self._cpu = CpuMeter()
        self._sessions = Sessions(0, 0)
        self._rounds = 0
        self.first_sample = asyncio.Event()
        # Its own: name look-ups that hang fill the event loop's, and a stale sample stops everything.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="resources")

    def report(self) -> ResourceReport:
        """What the machine can take now; `no_sample` when there is no fresh one."""
        return assess(self._sample, self._limits, self._clock.now(), self._state)

    def room(self, runs: Sequence[LocalRun]) -> Room:
        """How many local runs may be under way at once now, of which these are; `no_sample` when there is no fresh sample."""
        return room(self.report(), runs, self._limits, self._clock.now())

    async def run(self) -> None:
        """Measures until cancelled."""
        failing = False
        loop = asyncio.get_running_loop()
        while True:
            try:
                sample = await loop.run_in_executor(self._thread, self.measure, self._run_dirs())
            except (OSError, psutil.Error, ValueError) as error:
                if not failing:
                    _log.warning("resources_not_measured", error=f"{type(error).__name__}: {error}")
                failing = True
            else:
                failing = False
                if sample is not None:
                    self.take(sample)
            await asyncio.sleep(PERIOD_S if self._sample is not None else PERIOD_S / 4)

    def take(self, sample: ResourceSample) -> None:
        """This is the newest sample."""
        self._state = next_state(self._state, sample, self._limits)
        self._sample = sample
        self.first_sample.set()

    def measure(self, run_dirs: Mapping[str, Path]) -> ResourceSample | None:
        """One measurement; None for the first, as CPU use is a difference. Blocks for some milliseconds.

        Raises OSError, ValueError and psutil.Error for what cannot be read.
        """
        group, cores = self._cgroup(), usable_cores()
        now, monotonic = self._clock.now(), self._clock.monotonic()
        use = self._cpu.add(monotonic, read_cpu_times(group.cpu_quotas, cores, monotonic))
        if self._rounds % SESSIONS_EVERY == 0:
            self._sessions = count_sessions(self._session_process_name, now.timestamp())
        self._rounds += 1
        if use is None:
            return None
        cpu_pct, window_s = use
        total, free, swap_pct = _memory(group)
        limited = group.memory_limit is not None
        memory_stall, cpu_stall = read_stalls(group.pressure_dir, limited=limited)
        return ResourceSample(
            time=now,
            cpu_usage_pct=cpu_pct,
            cpu_cores=min(float(len(cores)), group.cpu_cores or float(len(cores))),
            total_mem_mb=max(1, total // MIB),
            free_mem_mb=free // MIB,
            swap_used_pct=swap_pct,
            load_avg_1m=os.getloadavg()[0],
            headed_sessions=self._sessions.headed,
            headless_sessions=self._sessions.headless,
            cpu_window_s=window_s,
            memory_stall_pct=memory_stall,
            cpu_stall_pct=cpu_stall,
            runs=self._run_uses.look(run_dirs),
        )


def _memory(group: CgroupLimits) -> tuple[int, int, float]:
    """Memory in all and free, in bytes, and percent of the swap in use: the lesser of the machine and the container."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    total, free = memory.total, memory.available
    if group.memory_limit is not None and group.memory_free is not None and group.memory_limit < total:
        total, free = group.memory_limit, min(free, group.memory_free)
    swap_pct = swap.percent if swap.total else 0.0
    if group.swap_limit == 0:
        swap_pct = 0.0  # it has none, whatever others do with the machine's
    elif swap.total and group.swap_used_pct is not None:
        swap_pct = max(swap_pct, group.swap_used_pct)
    return total, free, swap_pct
