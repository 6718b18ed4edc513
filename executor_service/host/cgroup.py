"""What the container may use and uses: memory, swap and CPU along the cgroup's ancestors, version 1 and 2.

psutil tells of the host also inside of a container; these files tell of the container. A file that is not there sets no limit;
one that is there and cannot be read is an error, since no limit would be a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

UNLIMITED = 1 << 60
# What the kernel cannot give back on demand; page cache and most of the kernel's own caches it can.
_V2_KEPT = ("anon", "shmem", "slab_unreclaimable", "kernel_stack", "pagetables", "sec_pagetables", "percpu", "sock", "vmalloc")
_V1_KEPT = ("total_rss", "total_shmem")


@dataclass(frozen=True, slots=True)
class CpuQuota:
    """A group's quota in cores, and the CPU seconds that it has used in all."""

    group: str
    cores: float
    used_s: float | None


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """The tightest of the group's limits and its ancestors', in bytes; None: unlimited.

    `memory_free` is the least room that any of them leaves, `swap_used_pct` the fullest. `pressure_dir` holds the PSI files of
    the group itself, where it has some.
    """

    memory_limit: int | None = None
    memory_free: int | None = None
    swap_limit: int | None = None
    swap_used_pct: float | None = None
    cpu_quotas: tuple[CpuQuota, ...] = ()
    pressure_dir: Path | None = None

    @property
    def cpu_cores(self) -> float | None:
        """The tightest quota in cores."""
        return min((quota.cores for quota in self.cpu_quotas), default=None)


@dataclass(frozen=True, slots=True)
class _Mount:
    root: str
    point: Path
    version_2: bool
    options: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Room:
    """One limit (bytes) and what is used below it."""

    limit: int
    used: int


def read_limits(process: Path = Path("/proc/self")) -> CgroupLimits:
    """The limits that hold for a process, by its folder in /proc. Raises OSError and ValueError for what cannot be read."""
    groups = _groups(process)
    mounts = _mounts(process)
    memory: list[_Room] = []
    swap: list[_Room] = []
    quotas: list[CpuQuota] = []
    pressure_dir = None
    if "" in groups:
        chain = _chain(mounts, "", groups[""])
        for folder in chain:
            memory += _v2_memory(folder)
            swap += _v2_swap(folder)
            quotas += _v2_quota(folder)
        # The files of the topmost group tell of the whole machine; that one alone has no cgroup.events.
        if chain and (chain[0] / "cgroup.events").exists() and (chain[0] / "memory.pressure").exists():
            pressure_dir = chain[0]
    if "memory" in groups:
        for folder in _chain(mounts, "memory", groups["memory"]):
            memory += _v1_memory(folder)
            swap += _v1_swap(folder)
    if "cpu" in groups:
        accounted = _chain(mounts, "cpuacct", groups["cpuacct"]) if groups.get("cpuacct") == groups["cpu"] else []
        chain = _chain(mounts, "cpu", groups["cpu"])
        for i, folder in enumerate(chain):
            quotas += _v1_quota(folder, accounted[i] if len(accounted) == len(chain) else None)
    return CgroupLimits(
        memory_limit=min((one.limit for one in memory), default=None),
        memory_free=min((max(0, one.limit - one.used) for one in memory), default=None),
        swap_limit=min((one.limit for one in swap), default=None),
        swap_used_pct=max((100.0 * one.used / one.limit for one in swap if one.limit), default=0.0) if swap else None,
        cpu_quotas=tuple(quotas),
        pressure_dir=pressure_dir,
    )


# --- where the files are


def group_folders(controller: str, process: Path = Path("/proc/self")) -> list[Path]:
    """The folder of a process's group and those above it, for a controller of version 1, or '' for version 2."""
    groups = _groups(process)
    return _chain(_mounts(process), controller, groups[controller]) if controller in groups else []


def _groups(process: Path) -> dict[str, str]:
    """The process's group by controller; '' is version 2."""
    groups: dict[str, str] = {}
    for line in (_read(process / "cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _mounts(process: Path) -> list[_Mount]:
    """Every mounted cgroup hierarchy."""
    return list(_cgroup_mounts((_read(process / "mountinfo") or "").splitlines()))


def _cgroup_mounts(lines: Iterable[str]) -> Iterator[_Mount]:
    for line in lines:
        before, separator, after = line.partition(" - ")
        if not separator or not after.startswith(("cgroup ", "cgroup2 ")):
            continue
        root, point = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        yield _Mount(_plain(root), Path(_plain(point)), kind == "cgroup2", frozenset(options.rstrip().split(",")))


def _plain(path: str) -> str:
    """mountinfo writes blanks as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _chain(mounts: Iterable[_Mount], controller: str, own: str) -> list[Path]:
    """The group's folder and those above it, as far as they can be seen from here."""
    fitting = [one for one in mounts if (one.version_2 if not controller else controller in one.options)]
    for mount in fitting:
        inside = _below(mount.root, own)
        if inside is None or not (mount.point / inside).is_dir():
            continue
        chain = [mount.point / inside]
        while chain[-1] != mount.point:
            chain.append(chain[-1].parent)
        return chain
    # Inside a container the path can be the host's, while its own group is mounted at the root.
    return [fitting[0].point] if fitting else []


def _below(root: str, own: str) -> Path | None:
    """A group's path inside a mount that shows `root` and what is below it; None when it is not there."""
    path, top = Path(own), Path(root)
    if ".." in path.parts or ".." in top.parts or not path.is_relative_to(top):
        return None
    return path.relative_to(top)


# --- what is in them


def _read(path: Path) -> str | None:
    """A file's text; None when it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except FileNotFoundError:
        return None


def _number(path: Path) -> int | None:
    """A file's number; None for `max`, for version 1's way of saying it, and when the file is not there."""
    text = _read(path)
    number = None if text is None or text == "max" else int(text)
    return None if number is None or number >= UNLIMITED else number


def _stat(path: Path) -> Mapping[str, int]:
    """The lines of a `name number` file; empty when it is not there."""
    lines = (line.split() for line in (_read(path) or "").splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) == 2}


def _kept(folder: Path, names: Iterable[str], usage: str) -> int:
    """What is used and cannot be given back; all that is used where the kernel does not tell it apart."""
    stat = _stat(folder / "memory.stat")
    found = [stat[name] for name in names if name in stat]
    if found:
        return sum(found)
    used = _number(folder / usage)
    if used is None:
        raise OSError(f"{folder} sets a memory limit and does not tell what is used")
    return used


def _v2_memory(folder: Path) -> list[_Room]:
    # Above memory.high everything is slowed down until it gives up: no room either.
    limits = [limit for limit in (_number(folder / "memory.max"), _number(folder / "memory.high")) if limit is not None]
    return [_Room(min(limits), _kept(folder, _V2_KEPT, "memory.current"))] if limits else []


def _v2_swap(folder: Path) -> list[_Room]:
    limit = _number(folder / "memory.swap.max")
    return [] if limit is None else [_Room(limit, _number(folder / "memory.swap.current") or 0)]


def _v2_quota(folder: Path) -> list[CpuQuota]:
    quota, _, period = (_read(folder / "cpu.max") or "max 100000").partition(" ")
    if quota == "max":
        return []
    used_us = _stat(folder / "cpu.stat").get("usage_usec")
    return [CpuQuota(str(folder), int(quota) / int(period), None if used_us is None else used_us / 1e6)]


def _v1_memory(folder: Path) -> list[_Room]:
    # The hierarchical one knows of ancestors that cannot be seen from inside a container.
    limit, above = _number(folder / "memory.limit_in_bytes"), _stat(folder / "memory.stat").get("hierarchical_memory_limit")
    limits = [one for one in (limit, above) if one is not None and one < UNLIMITED]
    return [_Room(min(limits), _kept(folder, _V1_KEPT, "memory.usage_in_bytes"))] if limits else []


def _v1_swap(folder: Path) -> list[_Room]:
    """Version 1 limits memory and swap together: what is beyond the memory limit is for swap."""
    both, limit = _number(folder / "memory.memsw.limit_in_bytes"), _number(folder / "memory.limit_in_bytes")
    if both is None or limit is None:
        return []
    return [_Room(max(0, both - limit), _stat(folder / "memory.stat").get("total_swap", 0))]


def _v1_quota(folder: Path, accounted: Path | None) -> list[CpuQuota]:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    if quota is None or quota <= 0 or not period:
        return []
    used_ns = None if accounted is None else _number(accounted / "cpuacct.usage")
    return [CpuQuota(str(folder), quota / period, None if used_ns is None else used_ns / 1e9)]
