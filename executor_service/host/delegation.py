"""Whether there is a part of the cgroup tree (version 2) that we may divide up among our runs."""

from __future__ import annotations

import os
from pathlib import Path

DELEGATED = ("trusted.delegate", "user.delegate")
SYSTEMD = Path("/run/systemd/system")


def delegated_group(
    proc_self_cgroup: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup"), systemd: Path = SYSTEMD
) -> Path | None:
    """The folder in which groups for runs may be made; None: there is none, or it is not ours to divide.

    Where systemd is in charge only a unit with Delegate=yes may divide its group: systemd marks it with an extended attribute.
    """
    own = _own_group(proc_self_cgroup)
    if own is None:
        return None
    for base in (root, root / "unified"):
        folder = base / own.lstrip("/")
        if not (base / "cgroup.controllers").exists() or ".." in folder.parts:
            continue
        if systemd.is_dir() and not _marked(folder, base):
            return None
        return folder if _divisible(folder) else None
    return None


def _own_group(proc_self_cgroup: Path) -> str | None:
    try:
        lines = proc_self_cgroup.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)


def _marked(folder: Path, base: Path) -> bool:
    while folder != base and base in folder.parents:
        for name in DELEGATED:
            try:
                if os.getxattr(folder, name) == b"1":
                    return True
            except OSError:
                continue
        folder = folder.parent
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
