"""Peers as programs: started, spoken to by lines, ended. And the listener for what their jobs tell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

READY_S = 60.0
END_S = 15.0
START_S = 30.0

PEERS = Path(__file__).parent


def environment(**variables: str) -> dict[str, str]:
    """A clean one for a peer."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "GRPC_ENABLE_FORK_SUPPORT": "0", **variables}


class PeerProgram:
    """A running peer whose standard input and output are lines."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    async def line(self, seconds: float = READY_S) -> str:
        """The next line that it writes. Raises RuntimeError with its last words when it ends instead."""
        assert self._process.stdout is not None
        async with asyncio.timeout(seconds):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended: {self._log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
        return line.decode().strip()

    async def say(self, line: str) -> None:
        """Writes a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()


@contextlib.asynccontextmanager
async def running(
    command: Sequence[str], env: Mapping[str, str], log: Path, *, cwd: Path = PEERS, ends_with_input: bool = False
) -> AsyncIterator[PeerProgram]:
    """A peer while it is needed; its errors go to the log. It is asked to end, and made to, with all of its session.

    `ends_with_input`: it is asked by the end of its input, and ends what it has started itself.
    """
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors, env=dict(env), cwd=cwd,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield PeerProgram(process, log)
    finally:
        if ends_with_input:
            assert process.stdin is not None
            process.stdin.close()
        else:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            async with asyncio.timeout(END_S):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
        # What it has left behind would slow down whoever is measured next.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


class Listener:
    """Hears when jobs start."""

    def __init__(self, heard: socket.socket) -> None:
        self._socket = heard
        self.address = f"127.0.0.1:{heard.getsockname()[1]}"

    def forget(self) -> None:
        """What was heard so far is nobody's."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(64)

    async def next_start(self) -> int:
        """When the next job started, in ns of CLOCK_MONOTONIC."""
        async with asyncio.timeout(START_S):
            return int(await asyncio.get_running_loop().sock_recv(self._socket, 64))


@contextlib.contextmanager
def listener() -> Iterator[Listener]:
    """A Listener on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        heard.setblocking(False)
        heard.bind(("127.0.0.1", 0))
        yield Listener(heard)
