"""The children of `up`: they end with their parent, are started again within a budget, and leave their last words."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dispatchctl import child_process
from dispatchctl.child_process import Child
from dispatchctl.failures import Failure

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def child(tmp_path: Path, *program: str) -> Child:
    return Child("service", program, {"PATH": os.environ["PATH"]}, tmp_path / "service.log")


async def test_term_ends_it(tmp_path: Path) -> None:
    one = child(tmp_path, *SLEEP)
    await one.start()
    pid = one.pid
    assert pid is not None
    assert await one.stop(10)
    assert not psutil.pid_exists(pid)


async def test_what_ignores_term_is_killed(tmp_path: Path) -> None:
    program = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    one = child(tmp_path, sys.executable, "-c", program)
    await one.start()
    async with asyncio.timeout(20):
        while one.last_lines() != ["deaf"]:
            await asyncio.sleep(0.02)
    assert not await one.stop(0.1)
    assert not one.running


async def test_it_is_started_again_when_it_dies(tmp_path: Path) -> None:
    one = child(tmp_path, *SLEEP)
    await one.start()
    said: list[str] = []
    keeping = asyncio.create_task(one.keep(said.append))
    first = one.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(20):
        while not one.running or one.pid == first:
            await asyncio.sleep(0.02)
    assert "SIGKILL" in said[0]
    await one.stop(10)
    async with asyncio.timeout(10):
        await keeping


async def test_it_is_given_up_when_it_ends_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "RESTART_PAUSE_S", 0.001)
    one = child(tmp_path, sys.executable, "-c", "import sys; print('error: no quota', file=sys.stderr); sys.exit(3)")
    await one.start()
    said: list[str] = []
    async with asyncio.timeout(60):
        with pytest.raises(Failure) as caught:
            await one.keep(said.append)
    assert len(said) == child_process.RESTARTS_MAX
    assert "status 3" in caught.value.what
    assert "no quota" in caught.value.why


async def test_a_log_that_has_grown_too_large_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "LOG_MAX_BYTES", 100)
    (tmp_path / "service.log").write_text("old\n" * 100)
    one = child(tmp_path, sys.executable, "-c", "print('new')")
    await one.start()
    await one.ended()
    assert (tmp_path / "service.log").read_text() == "new\n"
    assert len((tmp_path / "service.log.1").read_bytes()) == 100


def test_it_ends_when_its_parent_is_killed() -> None:
    parent = (
        "import os, subprocess, sys, time\n"
        "from dispatchctl import child_launcher\n"
        "words = [sys.executable, child_launcher.__file__, str(os.getpid()), sys.executable, '-c', sys.argv[1]]\n"
        "subprocess.Popen(words)\n"
        "time.sleep(60)\n"
    )
    says = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", parent, says], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        orphan = psutil.Process(int(process.stdout.readline()))
        process.kill()
        psutil.wait_procs([orphan], timeout=20)
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
