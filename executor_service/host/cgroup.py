"""What the container may use: limits of memory and CPU along the cgroup's ancestors, version 1 and 2.

psutil tells of the host also inside of a container; these files tell of the container.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """The tightest memory limit and what is used below it (bytes), and the tightest CPU quota (cores); None: unlimited."""

    memory_limit: int | None = None
    memory_used: int | None = None
    cpu_cores: float | None = None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text is not None and text.lstrip("-").isdecimal() else None


def _stat(path: Path, *keys: str) -> int | None:
    """The sum of these lines of a memory.stat; None when none is there."""
    lines = dict(line.split(maxsplit=1) for line in (_read(path) or "").splitlines() if " " in line)
    found = [int(lines[key]) for key in keys if lines.get(key, "").isdecimal()]
    return sum(found) if found else None


def _with_ancestors(root: Path, own: str) -> list[Path]:
    """The group's folder and those above it, as far as they can be seen from here."""
    folder = root / own.lstrip("/")
    if not folder.is_dir():
        # Inside a container the path is the host's, while its own group is mounted at the root.
        return [root]
    chain = [folder]
    while chain[-1] != root:
        chain.append(chain[-1].parent)
    return chain


def read_limits(proc_self_cgroup: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> CgroupLimits:
    """The limits that hold for this process; no limit where nothing can be read, since most machines set none."""
    groups: dict[str, str] = {}
    for line in (_read(proc_self_cgroup) or "").splitlines():
        _number_of, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(",") if controllers else [""]:
            groups[controller] = path
    found = []
    if "" in groups:
        for base in (root, root / "unified"):
            if (base / "cgroup.controllers").exists():
                found += [_version_2(folder) for folder in _with_ancestors(base, groups[""])]
    if "memory" in groups:
        found += [_version_1_memory(folder) for folder in _with_ancestors(root / "memory", groups["memory"])]
    if "cpu" in groups:
        for base in (root / "cpu", root / "cpu,cpuacct"):
            if base.is_dir():
                found += [_version_1_cpu(folder) for folder in _with_ancestors(base, groups["cpu"])]
                break
    return _tightest(found)


def _version_2(folder: Path) -> CgroupLimits:
    limit = _number(folder / "memory.max")
    # Page cache is given back on demand; what is anonymous, in kernel structures or shared is not.
    used = _stat(folder / "memory.stat", "anon", "kernel", "shmem") if limit is not None else None
    quota = (_read(folder / "cpu.max") or "max").split()
    cores = int(quota[0]) / int(quota[1]) if len(quota) == 2 and quota[0].isdecimal() and int(quota[1]) else None
    return CgroupLimits(limit, used, cores)


def _version_1_memory(folder: Path) -> CgroupLimits:
    limit = _number(folder / "memory.limit_in_bytes")
    if limit is None or limit >= UNLIMITED:
        return CgroupLimits()
    return CgroupLimits(limit, _stat(folder / "memory.stat", "total_rss", "total_shmem"))


def _version_1_cpu(folder: Path) -> CgroupLimits:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return CgroupLimits(cpu_cores=quota / period if quota and period and quota > 0 else None)


def _tightest(found: list[CgroupLimits]) -> CgroupLimits:
    limited = [f for f in found if f.memory_limit is not None]
    # The group with the least room left is the one that will be hit first.
    memory = min(limited, key=lambda f: (f.memory_limit or 0) - (f.memory_used or 0), default=CgroupLimits())
    cores = min((f.cpu_cores for f in found if f.cpu_cores is not None), default=None)
    return CgroupLimits(memory.memory_limit, memory.memory_used, cores)
