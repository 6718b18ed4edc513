"""What the processes of each run use: its guard, which is subreaper to all of them, and everything below it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from executor_service.core.admission import RunUse
from executor_service.host.processes import ProcessIdentity, guard_of

CLAIM_MAX_BYTES = 4096
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    cpu_ticks: int


class RunUses:
    """Looks at the processes of runs. `read_file` reads so many bytes of a file that a hostile command may have replaced."""

    def __init__(self, read_file: Callable[[Path, int], bytes]) -> None:
        self._read_file = read_file
        self._guards: dict[str, ProcessIdentity] = {}
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")
        self._page_mib = os.sysconf("SC_PAGE_SIZE") / MIB

    def look(self, run_dirs: Mapping[str, Path]) -> dict[str, RunUse]:
        """The use of each run, by run id, as far as its guard is there; runs that others carry out have none."""
        self._guards = {run_id: guard for run_id, guard in self._guards.items() if run_id in run_dirs}
        for run_id, run_dir in run_dirs.items():
            if run_id not in self._guards and (guard := self._guard(run_dir)) is not None:
                self._guards[run_id] = guard
        if not self._guards:
            return {}
        processes = _processes()
        children: dict[int, list[int]] = {}
        for pid, process in processes.items():
            children.setdefault(process.parent, []).append(pid)
        uses = {}
        for run_id, guard in self._guards.items():
            if guard.pid in processes and guard.alive:
                uses[run_id] = self._use(guard.pid, processes, children)
        return uses

    def _guard(self, run_dir: Path) -> ProcessIdentity | None:
        """Whose claim the run is; None before there is one."""
        return guard_of(self._read_file(run_dir / "claim", CLAIM_MAX_BYTES))

    def _use(self, root: int, processes: Mapping[int, _Process], children: Mapping[int, list[int]]) -> RunUse:
        memory_mb, ticks, frontier = 0.0, 0, [root]
        while frontier:
            pid = frontier.pop()
            frontier += children.get(pid, [])
            ticks += processes[pid].cpu_ticks
            memory_mb += self._own_memory_mb(pid)
        return RunUse(memory_mb, ticks * self._tick_s)

    def _own_memory_mb(self, pid: int) -> float:
        """Resident less what is shared with others: the least that it takes. 0 when it is gone."""
        with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared = file.read().split()[:3]
            return (int(resident) - int(shared)) * self._page_mib
        return 0.0


def _processes() -> dict[int, _Process]:
    """Every process. CPU counts with that of children who have been waited for, so that a run's sum never falls."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        found[int(entry)] = _Process(int(fields[1]), sum(map(int, fields[11:15])))
    return found
