"""How much CPU is used of what this process may use: its container's quota, or else the cores it may run on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from executor_service.core.admission import CPU_WINDOW_S
from executor_service.host.cgroup import CpuQuota


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU seconds used and CPU seconds that there were; both only grow, and only differences mean something."""

    busy: float
    total: float


def read_core_times(cores: Iterable[int], stat: Path = Path("/proc/stat")) -> CpuTimes:
    """Of these cores since the boot; iowait counts as idle, as in the reference.

    Not psutil's list: a core that is off is missing there, and the rest move up. Raises OSError and ValueError.
    """
    names = {f"cpu{core}" for core in cores}
    busy = idle = 0
    for line in stat.read_text(encoding="ascii").splitlines():
        name, *figures = line.split()
        if name in names:
            # user nice system idle iowait irq softirq steal; guest times are part of user already
            ticks = [int(figure) for figure in figures[:8]]
            idle += ticks[3] + ticks[4]
            busy += sum(ticks) - ticks[3] - ticks[4]
    per_second = os.sysconf("SC_CLK_TCK")
    return CpuTimes(busy / per_second, (busy + idle) / per_second)


def read_cpu_times(quotas: Iterable[CpuQuota], cores: Iterable[int], monotonic: float) -> Mapping[str, CpuTimes]:
    """By what sets the limit: each quota that gives less than the cores do, or else the cores.

    A container that has a quota is not full because its neighbours are busy, and is full while the machine idles. Where a
    quota's use is not accounted for (version 1 without cpuacct), the cores are all that can be read.
    """
    usable = sorted(cores)
    times = {
        f"{quota.group} {quota.cores}": CpuTimes(quota.used_s, quota.cores * monotonic)
        for quota in quotas
        if quota.used_s is not None and quota.cores < len(usable)
    }
    return times or {f"cores {usable}": read_core_times(usable)}


def cpu_usage_pct(before: CpuTimes, after: CpuTimes) -> float | None:
    """Percent used between two readings; None when no time has passed."""
    total = after.total - before.total
    return max(0.0, min(100.0, 100.0 * (after.busy - before.busy) / total)) if total > 0 else None


class CpuMeter:
    """The mean use over the last `window_s` seconds, or since the first reading if that is less."""

    def __init__(self, window_s: float = CPU_WINDOW_S) -> None:
        self._window_s = window_s
        self._readings: deque[tuple[float, Mapping[str, CpuTimes]]] = deque()

    def add(self, monotonic: float, times: Mapping[str, CpuTimes]) -> tuple[float, float] | None:
        """Takes a reading in; the percent of what is used most, and the seconds it is the mean of. None for the first one."""
        if self._readings and self._readings[-1][1].keys() != times.keys():
            # The limit has changed; what was used before is no measure of it.
            self._readings.clear()
        self._readings.append((monotonic, times))
        while len(self._readings) > 2 and monotonic - self._readings[1][0] >= self._window_s:
            self._readings.popleft()
        since, before = self._readings[0]
        found = [pct for name in times if (pct := cpu_usage_pct(before[name], times[name])) is not None]
        return (max(found), monotonic - since) if found else None


def usable_cores() -> frozenset[int]:
    """The cores that this process may run on."""
    return frozenset(os.sched_getaffinity(0))
