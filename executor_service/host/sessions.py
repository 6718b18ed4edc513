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
    so in its environment: it is headless whatever its arguments, and one session however many processes it has.
    """
    headed = headless = 0
    ours: set[bytes] = set()
    if not process_name:
        return Sessions(0, 0)
    # Only names are read of every process: to read arguments the kernel takes a lock that a process in trouble may hold.
    for process in psutil.process_iter(["name"]):
        if process.info["name"] != process_name:
            continue
        try:
            arguments, age_s = _arguments(process), now - process.create_time()
        except psutil.NoSuchProcess:  # gone, or ended and not reaped yet
            continue
        run_id = _run_id(process.pid)
        if run_id:
            ours.add(run_id)
        elif HEADLESS_ARGUMENTS.intersection(arguments):
            headless += 1
        elif age_s <= HEADED_MAX_AGE_S:
            headed += 1
    return Sessions(headed, headless + len(ours))


def _arguments(process: psutil.Process) -> list[str]:
    """Its arguments; none when they are hidden from us."""
    try:
        return process.cmdline()
    except psutil.AccessDenied:
        return []


def _run_id(pid: int) -> bytes:
    """The run that a process belongs to; empty for none, or when it may not be known."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return next((part for part in file.read().split(b"\x00") if part.startswith(RUN_ID_VARIABLE)), b"")
    except OSError:
        return b""
