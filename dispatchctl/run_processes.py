"""The processes of an executor's runs on this machine, so that `up` can end them and say truthfully what is left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path

import psutil

GUARD = "guard.py"
OUTCOME_VARIABLE = "CECELIA_OUTCOME_FILE"
SWEEP_S = 0.05
KILLED_S = 5.0


def run_processes(executor_data_dir: Path) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """The guards of the runs that are kept in a folder, and what runs below them or has come loose from them."""
    runs = f"{executor_data_dir}/runs/"
    guards: list[psutil.Process] = []
    commands: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(word.endswith(GUARD) for word in words) and words[-1].startswith(runs):
            guards.append(process)
            commands |= {below.pid: below for below in descendants([process.pid])}
        elif _environment(process).get(OUTCOME_VARIABLE, "").startswith(runs):
            commands[process.pid] = process
    return alive(guards), alive(commands.values())


def descendants(pids: Iterable[int]) -> list[psutil.Process]:
    """Everything below some processes, of which some may just have ended."""
    found: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found += psutil.Process(pid).children(recursive=True)
    return found


def named(process: psutil.Process) -> str:
    """A process for people."""
    with contextlib.suppress(psutil.Error):
        return f"{process.name()} (process {process.pid})"
    return f"process {process.pid}"


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended; one that only waits to be reaped has."""
    return [process for process in processes if process.is_running() and _status(process) != psutil.STATUS_ZOMBIE]


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.Error:
        return psutil.STATUS_ZOMBIE


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}


async def end_runs(executor_data_dir: Path, seconds: float) -> list[psutil.Process]:
    """Kills what the guards guard, so that they record it and end; after so many seconds the guards too. What is left then."""
    loop = asyncio.get_running_loop()
    guards_at, until = loop.time() + seconds, loop.time() + seconds + KILLED_S
    while True:
        guards, commands = run_processes(executor_data_dir)
        if not guards and not commands:
            return []
        if loop.time() >= until:
            return guards + commands
        for process in [*commands, *(guards if loop.time() >= guards_at else [])]:
            # It may just have ended, or be another user's.
            with contextlib.suppress(psutil.Error):
                process.kill()
        await asyncio.sleep(SWEEP_S)
