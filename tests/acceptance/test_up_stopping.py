"""However `dispatchctl up` is asked to end, it ends its runs too and leaves no process behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.programs import DESCRIPTION
from tests.acceptance.test_starting import environment, processes_below

DEADLINE_S = 45.0
# Takes the terminal that it is given for its own, as a shell in a new window does.
ON_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
IGNORING_ITS_END = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); {ON_TERMINAL}"
LONG = "#!/bin/sh\ntrap '{trap}' TERM\ntouch '{started}'\nsleep 300 & wait; sleep 300\n"


@dataclass
class Serving:
    """A running `up` on a terminal of its own, with a run under way."""

    process: asyncio.subprocess.Process
    terminal: int
    said: bytearray

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def close_terminal(self) -> None:
        asyncio.get_running_loop().remove_reader(self.terminal)
        os.close(self.terminal)
        self.terminal = -1

    async def until(self, there: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not there():
                assert self.process.returncode is None, self.said.decode()
                await asyncio.sleep(0.02)

    async def ended(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()


@asynccontextmanager
async def serving(
    tmp_path: Path, *options: str, trap: str = "exit 0", before: str = ON_TERMINAL, **changes: str
) -> AsyncIterator[Serving]:
    started, command = tmp_path / "started", tmp_path / "command"
    command.write_text(LONG.format(trap=trap, started=started))
    command.chmod(0o755)
    env = environment(
        tmp_path, CECELIA_RUN_PATH=str(command), CPU_PER_TASK="0.02", CPU_THRESHOLD_PCT="1000", MEM_PER_TASK_MB="10", INTERACTIVE_RESERVE="0",
        SESSION_PROCESS_NAME="", TICK_INTERVAL_MS="200", **changes,
    )  # fmt: skip
    terminal, inside = os.openpty()
    words = [sys.executable, "-c", before, sys.executable, "-m", "dispatchctl", "up", *options]
    process = await asyncio.create_subprocess_exec(
        *words, stdin=inside, stdout=inside, stderr=inside, env=env, cwd=Path(__file__).parents[2], start_new_session=True
    )
    os.close(inside)
    one = Serving(process, terminal, bytearray())
    asyncio.get_running_loop().add_reader(terminal, lambda: one.said.extend(_read(terminal)))
    try:
        await one.until(lambda: b"serving until Ctrl-C" in one.said)
        address = one.said.decode().partition("scheduler   gRPC ")[2].partition(",")[0]
        submit = [sys.executable, "-m", "dispatchctl", "submit", "--title", "A long one", "--description", DESCRIPTION]
        submitting = await asyncio.create_subprocess_exec(
            *submit, env={**env, "DISPATCH_ADDRESS": address}, stdout=asyncio.subprocess.DEVNULL
        )
        assert await submitting.wait() == 0
        await one.until(started.exists)
        yield one
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if one.terminal >= 0:
            one.close_terminal()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:
        asyncio.get_running_loop().remove_reader(terminal)
        return b""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 9), (signal.SIGHUP, 0)], ids=["two quick Ctrl-C", "two hang-ups"])
async def test_two_signals_at_once_are_one(tmp_path: Path, number: signal.Signals, status: int) -> None:
    async with serving(tmp_path, "--interrupt-status", "9") as up:
        up.signal(number)
        await asyncio.sleep(0.02)  # as a terminal emulator or a nervous finger sends them
        up.signal(number)
        assert await up.ended() == status
        assert processes_below(tmp_path) == []
        assert b"everything has ended" in up.said


async def test_a_later_ctrl_c_ends_at_once_what_will_not_end(tmp_path: Path) -> None:
    # Without it the run would have its ten seconds of grace.
    async with serving(tmp_path, trap="") as up:
        up.signal(signal.SIGINT)
        await up.until(lambda: b"stopping" in up.said)
        await asyncio.sleep(1.1)
        up.signal(signal.SIGINT)
        async with asyncio.timeout(8):
            assert await up.ended() == 130
        assert processes_below(tmp_path) == []
        assert b"everything has ended" in up.said


async def test_the_end_of_the_terminal_ends_everything(tmp_path: Path) -> None:
    async with serving(tmp_path) as up:
        up.close_terminal()
        assert await up.ended() in (0, 1)
        assert processes_below(tmp_path) == []


async def test_under_nohup_a_hang_up_is_none_of_ours(tmp_path: Path) -> None:
    async with serving(tmp_path, before=IGNORING_ITS_END) as up:
        up.signal(signal.SIGHUP)
        up.signal(signal.SIGINT)
        # A hang-up that was taken for a request to end would give 0.
        assert await up.ended() == 130
        assert processes_below(tmp_path) == []


async def test_an_executor_that_was_killed_leaves_no_run(tmp_path: Path) -> None:
    async with serving(tmp_path, trap="") as up:
        up.signal(signal.SIGINT)
        await up.until(lambda: b"stopping" in up.said)
        os.kill(_executor(tmp_path), signal.SIGKILL)
        assert await up.ended() == 130
        assert processes_below(tmp_path) == []


async def test_runs_that_are_to_go_on_are_said_to(tmp_path: Path) -> None:
    async with serving(tmp_path, EXECUTOR_END_RUNS_ON_STOP="false") as up:
        up.signal(signal.SIGTERM)
        assert await up.ended() == 0
        assert b"1 runs go on" in up.said
        assert b"everything has ended" not in up.said
        for pid in _runs(tmp_path):
            os.kill(pid, signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            while processes_below(tmp_path):
                await asyncio.sleep(0.05)


def _executor(folder: Path) -> int:
    return _pid(folder, b"executor_service")


def _runs(folder: Path) -> list[int]:
    return [int(line.partition(":")[0]) for line in processes_below(folder) if "guard.py" in line]


def _pid(folder: Path, word: bytes) -> int:
    for line in processes_below(folder):
        pid = int(line.partition(":")[0])
        if word in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError(f"no process of {folder} has {word!r} in its command line")
