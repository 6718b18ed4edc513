"""Both our services as programs, as shipped: everything durable, every guard on. Its own are ports, folders, routes and the backend `noop`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from cecelia.scheduler.v1 import scheduler_service_pb2_grpc as pb_grpc

from tests.acceptance.programs import DESCRIPTION, Program, channel_to
from tests.bench.measuring.bench import Bench
from tests.bench.peers.programs import PEERS, environment
from tests.fakes.plug_ins import install

WARM_UP_TASKS = 256
"""After a change of leader starts ramp up, 1, 2, 4, ... 32 in as many seconds; what is measured is what comes after."""
RPC_S = 30.0
POLL_S = 0.02

BY_INDEX = "-c enable_seqscan=off"
"""Asking whether work is left is no part of it: read from the start of the table, it took up to 6 ms each time."""

_LEFT = "SELECT EXISTS (SELECT 1 FROM tasks WHERE status IN ('queued', 'dispatching', 'running'))"


class OurPair:
    """A running pair: `stub` calls the scheduler."""

    def __init__(self, url: str, scheduler: Program, executor: Program, stub: pb_grpc.SchedulerServiceAsyncStub) -> None:
        self.url = url
        self.scheduler = scheduler
        self.executor = executor
        self.stub = stub

    @property
    def pids(self) -> tuple[int, int]:
        """The two processes."""
        return self.scheduler.pid, self.executor.pid

    async def submit(self, count: int) -> None:
        """Short tasks, in batches of 1,000."""
        for first in range(0, count, 1_000):
            specs = specs_of(range(first, min(count, first + 1_000)))
            await self.stub.SubmitTasks(pb.SubmitTasksRequest(tasks=specs), timeout=RPC_S)

    async def tick(self, *, enabled: bool) -> None:
        """Stops or begins dispatching."""
        request = pb.SetSettingRequest(name="TICK_ENABLED", value=str(enabled).lower(), reason="the bench")
        await self.stub.SetSetting(request, timeout=RPC_S)

    async def until_all_ended(self, seconds: float) -> None:
        """Returns when no task is left that has not ended. Raises RuntimeError with what the scheduler says of it."""
        try:
            async with (
                asyncio.timeout(seconds),
                await psycopg.AsyncConnection.connect(self.url, autocommit=True, options=BY_INDEX) as connection,
            ):
                while (await (await connection.execute(_LEFT)).fetchone()) != (False,):
                    self._check_alive()
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            told = await self.stub.ExplainDispatch(pb.ExplainDispatchRequest(), timeout=RPC_S)
            raise RuntimeError(f"not all tasks have ended after {seconds:g} s: {told}") from error

    def _check_alive(self) -> None:
        for program in (self.scheduler, self.executor):
            if not program.runs:
                raise RuntimeError(f"one of our services has ended: {program.log.read_text(encoding='utf-8')[-4000:]}")

    async def count_completed(self) -> int:
        """Tasks that are COMPLETED."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            row = await (await connection.execute("SELECT count(*) FROM tasks WHERE status = 'completed'")).fetchone()
        assert row is not None
        return int(row[0])


def specs_of(numbers: Sequence[int]) -> list[pb.TaskSpec]:
    """Tasks that pre-flight lets pass."""
    return [pb.TaskSpec(title=f"Task number {number}", description=DESCRIPTION) for number in numbers]


@contextlib.asynccontextmanager
async def our_pair(bench: Bench, *, max_runs: int, started_address: str = "", database_url: str = "") -> AsyncIterator[OurPair]:
    """The pair on a database, its ramp behind it unless the bench is quick; `max_runs`: runs at once of the backend.

    `database_url`: '' for a fresh one.
    """
    with bench.scratch("ours") as folder:
        async with contextlib.nullcontext(database_url) if database_url else bench.fresh_database() as url:
            env = _settings(folder, url, max_runs, started_address)
            executor = Program("executor_service", dict(env), folder / "executor", folder / "executor.log")
            scheduler = Program("scheduler_service", dict(env), folder / "scheduler", folder / "scheduler.log")
            async with contextlib.AsyncExitStack() as stack:
                await executor.start()
                stack.push_async_callback(executor.end)
                scheduler._env["EXECUTOR_TARGETS"] = f"127.0.0.1:{executor.port}"
                await scheduler.start()
                stack.push_async_callback(scheduler.end)
                channel = await stack.enter_async_context(channel_to(scheduler.port))
                stub: Any = pb_grpc.SchedulerServiceStub(channel)  # type: ignore[no-untyped-call]
                pair = OurPair(url, scheduler, executor, stub)
                if not bench.quick:
                    await pair.submit(WARM_UP_TASKS)
                    await pair.until_all_ended(60)
                yield pair


def _settings(folder: Path, url: str, max_runs: int, started_address: str) -> dict[str, str]:
    modules = {
        "bench_started": (PEERS / "started.py").read_text(encoding="utf-8"),
        "bench_noop": (PEERS / "noop_backend.py").read_text(encoding="utf-8"),
    }
    install(folder / "installed", "bench-noop", modules, {"noop": "bench_noop:create"})
    return environment(
        PYTHONPATH=str(folder / "installed"),
        SCHEDULER_GRPC_ADDRESS="127.0.0.1:0",
        SCHEDULER_HTTP_ADDRESS="127.0.0.1:0",
        EXECUTOR_GRPC_ADDRESS="127.0.0.1:0",
        EXECUTOR_HTTP_ADDRESS="127.0.0.1:0",
        EXECUTOR_ID="bench",
        EXECUTOR_DATA_DIR=str(folder / "executor"),
        DISPATCH_DATA_DIR=str(folder / "scheduler"),
        DATABASE_URL=url,
        HK_MINIMAX_URL="http://127.0.0.1:9",
        EXECUTOR_BACKENDS="noop",
        DISPATCH_ROUTES="*=noop",
        BENCH_MAX_RUNS=str(max_runs),
        STARTED_ADDRESS=started_address,
    )
