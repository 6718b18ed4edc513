"""Processes by identity: a pid alone names nothing for long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from executor_service.host import guard
from executor_service.host.guarding.control_group import ControlGroup
from executor_service.host.guarding.files import boot_id, pid_namespace, start_ticks
from executor_service.host.guarding.process_tree import kill_all, process_group

EMPTY_LOOKS = 5
RUN_ID_VARIABLE = b"CECELIA_RUN_ID="


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process for good: its pid with its start time, in its pid namespace, on this boot."""

    pid: int
    start_ticks: int
    pid_namespace: str
    boot_id: str

    @property
    def alive(self) -> bool:
        """Whether this very process is still there (a zombie is not)."""
        here = self.pid_namespace == pid_namespace() and self.boot_id == boot_id()
        return (
            here and self.pid > 1 and self.start_ticks > 0 and start_ticks(self.pid) == self.start_ticks and not _zombie(self.pid)
        )

    def signal(self, number: signal.Signals) -> bool:
        """Signals this very process; False when it has gone. The pidfd is opened first and checked afterwards."""
        if self.pid <= 1:
            return False
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(handle, number)
        except (ProcessLookupError, PermissionError):
            return False  # gone, or another user's
        finally:
            os.close(handle)
        return True

    async def wait_gone(self) -> None:
        """Returns when this very process has ended."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if not self.alive:
                return
            loop = asyncio.get_running_loop()
            gone = asyncio.Event()
            loop.add_reader(handle, gone.set)
            try:
                await gone.wait()
            finally:
                loop.remove_reader(handle)
        finally:
            os.close(handle)


def guard_of(claim: bytes) -> ProcessIdentity | None:
    """The guard that has claimed a run, by what its file `claim` says; None when it says nothing of use."""
    try:
        holder = json.loads(claim)
        return ProcessIdentity(
            int(holder["pid"]), int(holder["start_ticks"]), str(holder["pid_namespace"]), str(holder["boot_id"])
        )
    except (ValueError, KeyError, TypeError):
        return None


class SpawnedGuard:
    """A guard that we have started. It is ours to reap while we live, and goes on when we do not.

    Not asyncio's subprocess: its transport kills the child when the loop ends. Spawned, not forked: a fork would run gRPC's
    handlers (reliability.md 6.10). Raises OSError when it cannot be started.
    """

    def __init__(self, run_dir: Path, path: str) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", guard.__file__, str(run_dir)],
                {"PATH": path, "LANG": "C.UTF-8"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, write, 1),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,
            )
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
        os.set_blocking(read, False)
        self._read = read

    async def phases(self) -> AsyncIterator[None]:
        """Yields for each phase that the guard has written, and ends when it has ended and is reaped."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._read, readable.set)
        try:
            while True:
                await readable.wait()
                readable.clear()
                try:
                    data = os.read(self._read, 64)
                except BlockingIOError:
                    continue
                if not data:
                    break
                yield
        finally:
            loop.remove_reader(self._read)
            os.close(self._read)
        while not self._reaped():
            await asyncio.sleep(0.002)

    def _reaped(self) -> bool:
        try:
            return os.waitpid(self._pid, os.WNOHANG)[0] == self._pid
        except ChildProcessError:
            return True


def _zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return True


def processes_of_run(run_id: str) -> Iterator[int]:
    """Processes whose environment says that they belong to a run: what a killed guard left behind."""
    wanted = RUN_ID_VARIABLE + run_id.encode("ascii")
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) > 1 and int(entry) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
                if wanted in file.read().split(b"\x00"):
                    yield int(entry)


async def end_leftovers(run_id: str, group: ControlGroup | None, deadline_s: float = 10.0) -> bool:
    """Kills what is left of a run whose guard has died; True when nothing is left.

    These are nobody's children of ours, and one look may miss who is just being born: only several empty ones count.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + deadline_s
    empty = 0
    while empty < EMPTY_LOOKS:
        alive = {pid: process_group(pid) for pid in processes_of_run(run_id) if not _zombie(pid)}
        if group is not None:
            alive |= {pid: number for pid, number in group.members().items() if not _zombie(pid)}
            group.kill()
        empty = 0 if alive else empty + 1
        if loop.time() >= until and alive:
            return False
        kill_all(alive)
        await asyncio.sleep(0.02)
    if group is not None:
        group.remove()
    return True
