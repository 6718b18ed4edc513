"""The processes of `up`: both services, and the sample server that stands in for MiniMax; started, kept, and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import psutil

from dispatchctl.child_process import Child
from dispatchctl.client import is_serving
from dispatchctl.failures import Failure
from dispatchctl.run_processes import alive, descendants, end_runs, named, run_processes
from dispatchctl.settings_check import settings_failure
from dispatchctl.up_plan import Addresses, drain_s, executor_folder, reachable, runs_outlast
from service_runtime.lifecycle import split_address

BOUND_S = 60.0
# The first start makes a database.
READY_S = 180.0
SAMPLE_SERVER_S = 15.0
LOOK_S = 0.1
CONNECT_S = 1.0
STOP_S = 25.0
SAMPLE_SERVER_STOP_S = 5.0
REVIVE_S = 10.0
HURRY_S = 3.0
WRONG_SETTINGS = "status 2"
GONE_S = 5.0


class LocalServices:
    """The children of one `up`. `say` is told of restarts."""

    def __init__(self, logs: Path, say: Callable[[str], None]) -> None:
        self._logs = logs
        self._say = say
        self._sample_server: Child | None = None
        self._scheduler: Child | None = None
        self._executor: Child | None = None
        self._executor_address = ""
        self._executor_folder: Path | None = None
        self._environ: Mapping[str, str] = {}
        self._hurry: asyncio.Task[None] | None = None

    async def start_sample_server(self, program: Path, environ: Mapping[str, str]) -> str:
        """Starts it on a free port of loopback; its URL. Raises Failure."""
        port_file = self._logs / "minimax_server.port"
        port_file.unlink(missing_ok=True)
        command = [sys.executable, str(program)]
        arguments = [*command, "--port", "0", "--port-file", str(port_file)]
        child = self._sample_server = Child("sample server", arguments, environ, self._logs / "minimax_server.log")
        await child.start()

        async def told() -> bool:
            return port_file.exists() and port_file.read_text("ascii").strip().isdecimal()

        await _until(told, [child], SAMPLE_SERVER_S, "the sample server did not start")
        port = port_file.read_text("ascii").strip()
        # Started again, it has to be where the executor looks for it.
        child.arguments = [*command, "--port", port, "--port-file", str(port_file)]
        return f"http://127.0.0.1:{port}"

    async def start(self, addresses: Addresses, environ: Mapping[str, str]) -> None:
        """Starts both services; returns when all four ports are bound. Raises Failure with a child's last words."""
        self._executor_address = reachable(addresses.executor_grpc)
        self._environ = environ
        self._scheduler = Child("scheduler", [sys.executable, "-m", "scheduler_service"], environ, self._logs / "scheduler.log")
        self._executor = Child("executor", [sys.executable, "-m", "executor_service"], environ, self._logs / "executor.log")
        both = [self._scheduler, self._executor]
        for child in both:
            await child.start()

        async def bound() -> bool:
            return all([await _accepts(reachable(address)) for address in addresses.all])

        await _until(bound, both, BOUND_S, "the services did not bind their ports")

    async def until_serving(self, addresses: Addresses) -> None:
        """Returns when both say SERVING. Raises Failure."""

        async def serving() -> bool:
            grpc = (addresses.scheduler_grpc, addresses.executor_grpc)
            return all([await is_serving(reachable(address), CONNECT_S) for address in grpc])

        both = [child for child in (self._scheduler, self._executor) if child is not None]
        await _until(serving, both, READY_S, "the services did not become ready")
        # Not before: until it has locked its folder, the runs there may be another executor's.
        self._executor_folder = executor_folder(self._environ)

    @property
    def _all(self) -> list[Child]:
        return [child for child in (self._executor, self._scheduler, self._sample_server) if child is not None]

    def upkeep(self) -> list[Coroutine[Any, Any, None]]:
        """The work that goes on while they run: starting again what ended by itself, and keeping logs bounded."""
        return [work for child in self._all for work in (child.keep(self._say), child.keep_log_bounded())]

    async def stop(self) -> list[str]:
        """Ends them: the executor with its runs first, while the scheduler can still record how they ended.

        Returns what is left of them, a line each.
        """
        executor = self._executor
        if executor is not None and self._executor_folder is not None and not executor.running:
            await self._revive(executor)
        below = descendants([child.pid for child in self._all if child.pid is not None])
        for child in self._all:
            patience = SAMPLE_SERVER_STOP_S if child is self._sample_server else STOP_S
            if child is self._executor:
                patience += drain_s(self._environ)
            if not await child.stop(patience):
                self._say(f"the {child.name} did not end in time and was killed; see {child.log}")
        if self._hurry is not None:
            await self._hurry
        return await self._left(below)

    async def _left(self, below: list[psutil.Process]) -> list[str]:
        """Ends runs that an executor could not end, waits for what ends by itself, such as PostgreSQL, and names the rest."""
        folder = self._executor_folder
        if folder is not None and runs_outlast(self._environ):
            runs = len(run_processes(folder)[0])
            return [f"{runs} runs go on, as EXECUTOR_END_RUNS_ON_STOP=false says"] if runs else []
        left = await end_runs(folder, HURRY_S) if folder is not None else []
        loop = asyncio.get_running_loop()
        until = loop.time() + GONE_S
        while alive(below) and loop.time() < until:
            await asyncio.sleep(LOOK_S)
        return [named(process) for process in {process.pid: process for process in [*left, *alive(below)]}.values()]

    async def _revive(self, executor: Child) -> None:
        """An executor that died has left its runs to their guards: only an executor finds and ends them."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(REVIVE_S):
                await executor.start()
                while executor.running and not await is_serving(self._executor_address, CONNECT_S):
                    await asyncio.sleep(LOOK_S)

    def hurry(self) -> None:
        """Makes a stop that is under way a quick one: runs are killed without grace, then what does not end soon."""
        if self._hurry is None:
            self._hurry = asyncio.get_running_loop().create_task(self._end_soon())

    async def _end_soon(self) -> None:
        if self._executor_folder is not None and not runs_outlast(self._environ):
            await end_runs(self._executor_folder, HURRY_S)
        for child in self._all:
            await child.gone(HURRY_S)
            child.kill()


async def _accepts(address: str) -> bool:
    host, port = split_address(address)
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _until(ready: Callable[[], Awaitable[bool]], children: list[Child], seconds: float, what: str) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while not await ready():
        for child in children:
            if not child.running:
                wrong = await settings_failure(child.environ) if await child.ended() == WRONG_SETTINGS else None
                raise wrong or child.failure(f"the {child.name} ended by {await child.ended()} before it was ready")
        if loop.time() > until:
            said = "; ".join(f"{child.name}: {' '.join(child.last_lines()) or 'silent'}" for child in children)
            raise Failure(what, f"timed_out: after {seconds:g} s; {said}", f"read the logs in {children[0].log.parent}")
        await asyncio.sleep(LOOK_S)
