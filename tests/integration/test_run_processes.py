"""The processes of an executor's runs are found, ended and named: those of one folder, and no others."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dispatchctl import local_services, run_processes
from dispatchctl.local_services import LocalServices
from dispatchctl.run_processes import end_runs, named

# Ends when what it started has ended, as the real one does; a stubborn one does not.
GUARD = """
import subprocess, sys, time
child = subprocess.Popen(["sleep", "300"])
print(child.pid, flush=True)
child.wait()
time.sleep(float(sys.argv[1]))
"""


@contextlib.contextmanager
def guard(folder: Path, stubborn_s: float = 0.0) -> Iterator[tuple[psutil.Process, psutil.Process]]:
    """A guard of a run in a folder, and what it guards."""
    program = folder.parent / "guard.py"
    program.write_text(GUARD)
    words = [sys.executable, str(program), str(stubborn_s), str(folder / "runs" / "r1")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        command = psutil.Process(int(process.stdout.readline()))
        try:
            yield psutil.Process(process.pid), command
        finally:
            process.kill()
            with contextlib.suppress(psutil.NoSuchProcess):
                command.kill()


async def test_runs_of_the_folder_are_ended_and_no_others(tmp_path: Path) -> None:
    with guard(tmp_path / "ours") as (ours, command), guard(tmp_path / "ours2") as (others, other):
        assert await end_runs(tmp_path / "ours", 20) == []
        assert not run_processes.alive([ours, command])
        assert len(run_processes.alive([others, other])) == 2


async def test_a_guard_that_stays_is_ended_too(tmp_path: Path) -> None:
    with guard(tmp_path / "ours", stubborn_s=300) as (ours, command):
        assert await end_runs(tmp_path / "ours", 0.2) == []
        assert not run_processes.alive([ours, command])


async def test_what_has_come_loose_from_its_guard_is_found(tmp_path: Path) -> None:
    env = {"CECELIA_OUTCOME_FILE": str(tmp_path / "runs" / "r1" / "outcome.json"), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(["sleep", "300"], env=env) as process:
        try:
            async with asyncio.timeout(10):
                while process.pid not in [found.pid for found in run_processes.run_processes(tmp_path)[1]]:
                    await asyncio.sleep(0.02)  # until it has become `sleep`
            assert await end_runs(tmp_path, 20) == []
        finally:
            process.kill()


async def test_what_cannot_be_ended_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def end_nothing(_folder: Path, _seconds: float) -> list[psutil.Process]:
        return [psutil.Process()]

    monkeypatch.setattr(local_services, "end_runs", end_nothing)
    services = LocalServices(tmp_path, lambda _text: None)
    services._executor_folder = tmp_path
    assert await services.stop() == [named(psutil.Process())]
    assert str(psutil.Process().pid) in named(psutil.Process())
