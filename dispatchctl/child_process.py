"""A child process of `up`: started plainly, with a log of bounded size, kept alive within a budget, ended for certain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dispatchctl import child_launcher
from dispatchctl.failures import Failure

LOG_MAX_BYTES = 8 * 1024 * 1024
LOG_LOOK_S = 5.0
TAIL_BYTES = 16 * 1024
KILL_WAIT_S = 5.0
RESTARTS_MAX = 5
RESTART_PAUSE_S = 0.5
HEALTHY_S = 60.0


class Child:
    """One program of ours. Only a process that this object has started and not yet seen ending is ever signalled."""

    def __init__(self, name: str, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.arguments = list(arguments)
        self.log = log
        self.environ = dict(environ)
        self._process: asyncio.subprocess.Process | None = None
        self._log_begin = 0
        self._started_at = 0.0
        self._stopping = False

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def started(self) -> bool:
        """Whether it has ever been started."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None and self.running else None

    async def start(self) -> None:
        """Starts it in a session of its own, so that Ctrl-C at the terminal reaches `up` alone. Call it from the main thread."""
        self._bound_log()
        with self.log.open("ab") as log:
            self._log_begin = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                child_launcher.__file__,
                str(os.getpid()),
                *self.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environ,
                start_new_session=True,
            )
        self._started_at = asyncio.get_running_loop().time()

    async def ended(self) -> str:
        """Waits for its end; says how it ended."""
        status = await self._process.wait() if self._process is not None else 0
        return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"

    async def keep(self, say: Callable[[str], None]) -> None:
        """Starts it again whenever it ends by itself; returns once it is being stopped. Raises Failure when it ends too often."""
        loop = asyncio.get_running_loop()
        restarts = 0
        while True:
            how = await self.ended()
            if self._stopping:
                return
            restarts = 1 if loop.time() - self._started_at > HEALTHY_S else restarts + 1
            if restarts > RESTARTS_MAX:
                raise self.failure(f"{self.name} ended by {how} for the {restarts}th time")
            pause = RESTART_PAUSE_S * 2 ** (restarts - 1)
            say(f"{self.name} ended by {how}: starting it again in {pause:g} s ({restarts} of {RESTARTS_MAX})")
            await asyncio.sleep(pause)
            if self._stopping:
                return
            await self.start()

    async def keep_log_bounded(self) -> None:
        """Looks at the log's size now and then; never returns."""
        while True:
            await asyncio.sleep(LOG_LOOK_S)
            self._bound_log()

    def _bound_log(self) -> None:
        # The child appends, so that it goes on at the beginning of a file that is emptied under it.
        if self.log.exists() and self.log.stat().st_size > LOG_MAX_BYTES:
            self.log.with_suffix(".log.1").write_bytes(self.log.read_bytes()[-LOG_MAX_BYTES:])
            os.truncate(self.log, 0)
            self._log_begin = 0

    def last_lines(self) -> list[str]:
        """What it said last since its start: its lines of error if it wrote some, else its last line."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_begin, size - TAIL_BYTES))
            lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines[-1:]

    def failure(self, what: str) -> Failure:
        """The error for its end, with its own last words."""
        return Failure(what, f"service_ended: {'; '.join(self.last_lines()) or 'it said nothing'}", f"read {self.log}")

    async def stop(self, patience_s: float) -> bool:
        """TERM, and KILL when it has not ended within the patience; whether it ended by itself."""
        self._stopping = True
        process = self._process
        if process is None or not self.running:
            return True
        for number, seconds in ((signal.SIGTERM, patience_s), (signal.SIGKILL, KILL_WAIT_S)):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            try:
                async with asyncio.timeout(seconds):
                    await process.wait()
            except TimeoutError:
                continue
            return number == signal.SIGTERM
        return False

    async def gone(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.ended()
        return not self.running

    def kill(self) -> None:
        """KILL, at once."""
        self._stopping = True
        if self._process is not None and self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
