"""Interactive sessions on this machine, counted as the reference counts them: by process name, arguments and age."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from executor_service.host.processes import RUN_ID_VARIABLE

HEADED_MAX_AGE_S = 14_400
HEADLESS_ARGUMENTS = frozenset({"-p", "--print"})


@dataclass(frozen=True, slots=True)
class Sessions:
    """Sessions with a person at them, and those without."""

    headed: int
    headless: int


def count_sessions(process_name: str, now: float) -> Sessions:
    """The sessions at `now` (seconds since 1970). An empty name counts none.

    With -p or --print it is headless; otherwise headed unless it is older than four hours. What one of our own runs started says
    so in its environment, and is headless whatever its arguments.
    """
    headed = headless = 0
    if not process_name:
        return Sessions(0, 0)
    for process in psutil.process_iter(["name", "cmdline", "create_time"]):
        info = process.info
        if info["name"] != process_name:
            continue
        if HEADLESS_ARGUMENTS.intersection(info["cmdline"] or ()) or _ours(process.pid):
            headless += 1
        elif now - (info["create_time"] or now) <= HEADED_MAX_AGE_S:
            headed += 1
    return Sessions(headed, headless)


def _ours(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return any(part.startswith(RUN_ID_VARIABLE) for part in file.read().split(b"\x00"))
    except OSError:
        return False
