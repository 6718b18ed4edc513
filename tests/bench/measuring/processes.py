"""CPU time of whole process trees: less moved by a busy neighbour than the clock on the wall."""

from __future__ import annotations

import contextlib

import psutil


def cpu_seconds(*pids: int) -> float:
    """User and system time so far of these processes, of all below them, and of those below that have ended and were waited for."""
    seen: set[int] = set()
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                if process.pid in seen:
                    continue
                seen.add(process.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    total += times.user + times.system + times.children_user + times.children_system
    return total
