"""PSI, the kernel's word on how long work waits for what it needs: the container's own, or the machine's."""

from __future__ import annotations

import errno
import re
from pathlib import Path

MACHINE = Path("/proc/pressure")
_AVERAGE = re.compile(r"^(some|full) avg10=(\d+(?:\.\d+)?) ", re.MULTILINE)


def stall_pct(path: Path, kind: str) -> float | None:
    """Percent of the last 10 s in which some task, or (`full`) every task that could work, waited; None where no PSI is."""
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # built in, switched off
            return None
        raise
    found = dict(_AVERAGE.findall(text))
    return float(found[kind]) if kind in found else None


def read_stalls(group: Path | None, *, limited: bool, machine: Path = MACHINE) -> tuple[float | None, float | None]:
    """Memory `full` and CPU `some`. The machine's own says nothing of a container with a memory limit: others may be waiting."""
    if group is not None:
        return stall_pct(group / "memory.pressure", "full"), stall_pct(group / "cpu.pressure", "some")
    if limited:
        return None, None
    return stall_pct(machine / "memory", "full"), stall_pct(machine / "cpu", "some")
