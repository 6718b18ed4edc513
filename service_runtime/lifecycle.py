"""From start to stop: signals, named clean-ups in reverse order, background work that may not die unseen, one line on failure."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from service_runtime.settings import SettingsError

_log = structlog.get_logger(__name__)

CLEANUP_DEADLINE_S = 15.0
KEPT_PAUSE_MAX_S = 30.0
COLLECT_AFTER = 20_000
"""Objects made before Python looks for cycles among them. After 700, its default, it took an eighth of both services' time."""


class StartupError(Exception):
    """The service cannot start; the text is one clear line for the operator."""


def split_address(address: str) -> tuple[str, int]:
    """Host and port of host:port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def bound_socket(address: str, setting: str) -> socket.socket:
    """A listening TCP socket. Raises StartupError that names the setting when the address is taken or not ours."""
    host, port = split_address(address)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
            bound.listen(512)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise address_taken(address, setting, error.strerror or "") from error
    return bound


def taken_by_other(address: str) -> bool:
    """Whether somebody listens there already."""
    if split_address(address)[1] == 0:
        return False
    try:
        with contextlib.closing(bound_socket(address, "")):
            return False
    except StartupError:
        return True


def address_taken(address: str, setting: str, why: str = "") -> StartupError:
    """The error for an address that cannot be bound."""
    reason = why or "the address is in use"
    return StartupError(f"{setting}={address} cannot be bound ({reason}): free it, or set {setting} to another address")


class Cleanups:
    """Named clean-ups, carried out in reverse order, each with a deadline; one that fails does not stop the others."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], Awaitable[object]]]] = []

    def add(self, name: str, step: Callable[[], Awaitable[object]]) -> None:
        """Adds one; the last added is the first done."""
        self._steps.append((name, step))

    async def run(self) -> None:
        """Carries all of them out."""
        while self._steps:
            name, step = self._steps.pop()
            try:
                async with asyncio.timeout(CLEANUP_DEADLINE_S):
                    await step()
            except Exception as error:  # noqa: BLE001 - the next clean-up must come, whatever this one did
                _log.warning("cleanup_failed", step=name, error=f"{type(error).__name__}: {error}")


class Background:
    """Tasks that run as long as the service. One that ends by an error stops the service, with that error."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], str] = {}
        self.failed = asyncio.Event()
        self.error: BaseException | None = None

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Starts one."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[task] = name
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        name = self._tasks.pop(task, "")
        if task.cancelled() or task.exception() is None:
            return
        self.error = task.exception()
        _log.error("background_work_failed", work=name, exc_info=self.error)
        self.failed.set()

    async def stop(self) -> None:
        """Cancels all of them and waits."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLEANUP_DEADLINE_S)


async def kept_going(
    name: str, begin: Callable[[], Coroutine[Any, Any, None]], *, unless: type[BaseException], first_pause_s: float = 0.5
) -> None:
    """Work that is begun anew, with growing pauses, when it breaks off for a reason that nobody foresaw.

    One thing that breaks must not take everything beside it along. Errors of the class `unless` are let through.
    """
    pause = first_pause_s
    while True:
        try:
            await begin()
        except* unless:
            raise
        except* Exception as errors:  # noqa: BLE001 - logged with its traceback; the work is begun anew
            _log.error("work_begun_anew", work=name, pause_s=pause, exc_info=errors)
        else:
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, KEPT_PAUSE_MAX_S)


async def until_signal(background: Background) -> bool:
    """Waits for SIGINT or SIGTERM, or for background work to fail; True for a signal. A second one ends the process at once."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def ask() -> None:
        if asked.is_set():
            os._exit(130)
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    waits = [loop.create_task(asked.wait()), loop.create_task(background.failed.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    return asked.is_set()


def exit_at_the_latest(seconds: float) -> None:
    """Ends the process after a while, come what may: the shutdown of asyncio and grpc has been seen to hang."""
    watchdog = threading.Timer(seconds, os._exit, args=(70,))
    watchdog.daemon = True
    watchdog.start()


def spare_collector() -> None:
    """Has cycles looked for less often, and never again among what is loaded by now: what a service makes dies by itself."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def run_main(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Runs a service's main coroutine; failures to start become one clear line and a status of 1 (2 for wrong settings)."""
    spare_collector()
    try:
        return asyncio.run(work())
    except SettingsError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except StartupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
