"""A real cgroup of our own, with a limit of memory and of CPU, below the group that the tests run in."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from executor_service.host.cgroup import group_folders

MIB = 1024 * 1024
PERIOD_US = 100_000


class NoGroup(Exception):
    """Why no group can be made here."""


@dataclass(frozen=True)
class LimitedGroup:
    """`enter` are the files that take a process in; `memory` and `cpu` the folders of the two controllers."""

    memory: Path
    cpu: Path
    enter: tuple[Path, ...]
    version: int

    def used_mb(self) -> float:
        """What cannot be given back: anonymous and shared memory."""
        names = ("total_rss", "total_shmem") if self.version == 1 else ("anon", "shmem")
        stat = _stat(self.memory / "memory.stat")
        return sum(stat[name] for name in names) / MIB

    def oom_kills(self) -> int:
        """Processes that the kernel has killed for want of memory."""
        return _stat(self.memory / ("memory.oom_control" if self.version == 1 else "memory.events"))["oom_kill"]

    def cpu_used_s(self) -> float:
        """CPU seconds that its processes have used."""
        if self.version == 2:
            return _stat(self.cpu / "cpu.stat")["usage_usec"] / 1e6
        folder = next(path.parent for path in self.enter if (path.parent / "cpuacct.usage").exists())
        return int((folder / "cpuacct.usage").read_text()) / 1e9


def _stat(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}


@contextlib.contextmanager
def limited_group(memory_mb: int, cores: float) -> Iterator[LimitedGroup]:
    """Makes the group; all that is in it is killed at the end. Raises NoGroup with the reason when it cannot be made."""
    name = f"cecelia-bench-{os.getpid()}"
    made: list[Path] = []
    try:
        try:
            group = _make(name, made, memory_mb, cores)
        except (OSError, StopIteration) as error:
            raise NoGroup(f"no limited cgroup can be made here: {type(error).__name__}: {error}") from error
        yield group
    finally:
        for folder in reversed(made):
            _remove(folder)


def _make(name: str, made: list[Path], memory_mb: int, cores: float) -> LimitedGroup:
    def folder(controller: str) -> Path:
        made.append(next(iter(group_folders(controller))) / name)
        made[-1].mkdir()
        return made[-1]

    if next(iter(group_folders("memory")), None) is not None:
        memory, cpu, account = folder("memory"), folder("cpu"), next(iter(group_folders("cpuacct"))) / name
        if not account.exists():
            folder("cpuacct")
        _set(memory / "memory.limit_in_bytes", memory_mb * MIB)
        _set(cpu / "cpu.cfs_period_us", PERIOD_US)
        _set(cpu / "cpu.cfs_quota_us", int(cores * PERIOD_US))
        # Version 2 beside it sets no limit and still tells of stalls.
        if next(iter(group_folders("")), None) is not None:
            folder("")
        return LimitedGroup(memory, cpu, tuple(path / "cgroup.procs" for path in made), 1)
    both = folder("")
    _set(both / "memory.max", memory_mb * MIB)
    _set(both / "cpu.max", f"{int(cores * PERIOD_US)} {PERIOD_US}")
    return LimitedGroup(both, both, (both / "cgroup.procs",), 2)


def _set(path: Path, value: object) -> None:
    # A file that is not there must not be made.
    with path.open("r+", encoding="ascii") as file:
        file.write(f"{value}\n")


def _remove(folder: Path) -> None:
    for below in [path for path in folder.glob("*") if path.is_dir()]:
        _remove(below)
    for _ in range(200):
        pids = [int(line) for line in (folder / "cgroup.procs").read_text().split()] if folder.exists() else []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        with contextlib.suppress(OSError):
            folder.rmdir()
        if not folder.exists():
            return
        time.sleep(0.02)  # the kernel is still burying them
