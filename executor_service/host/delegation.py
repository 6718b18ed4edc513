"""Whether there is a part of the cgroup tree (version 2) that we may divide up among our runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from executor_service.host.cgroup import group_folders

DELEGATED = ("trusted.delegate", "user.delegate")
SYSTEMD = Path("/run/systemd/system")


def delegated_group(process: Path = Path("/proc/self"), systemd: Path = SYSTEMD) -> Path | None:
    """The folder in which groups for runs may be made; None: there is none, or it is not ours to divide.

    Where systemd is in charge only a unit with Delegate=yes may divide its group: systemd marks it with an extended attribute.
    """
    try:
        chain = group_folders("", process)
    except (OSError, ValueError):
        return None
    if not chain or (systemd.is_dir() and not _marked(chain)):
        return None
    return chain[0] if _holds(chain[0], process.resolve().name) and _divisible(chain[0]) else None


def _marked(folders: Iterable[Path]) -> bool:
    for folder in folders:
        for name in DELEGATED:
            try:
                if os.getxattr(folder, name) == b"1":
                    return True
            except OSError:
                continue
    return False


def _holds(folder: Path, pid: str) -> bool:
    """Whether this is the process's own group, and not only the topmost one that can be seen from here."""
    try:
        return pid in (folder / "cgroup.procs").read_text(encoding="ascii").split()
    except OSError:
        return False


def _divisible(folder: Path) -> bool:
    """By trying: rights, a kernel without cgroup.kill (before 5.14) and threaded groups show here."""
    probe = folder / f"cecelia-probe-{os.getpid()}"
    if not os.access(folder / "cgroup.procs", os.W_OK):
        return False
    try:
        probe.mkdir()
    except OSError:
        return False
    try:
        return (probe / "cgroup.kill").exists() and (probe / "cgroup.type").read_text(encoding="ascii").strip() == "domain"
    except OSError:
        return False
    finally:
        probe.rmdir()
