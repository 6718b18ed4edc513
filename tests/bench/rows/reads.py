"""What people and dashboards read, with 10³ to 10⁶ decisions in the window, beside a call that runs one query of one row."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from statistics import median

import psycopg
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from cecelia.scheduler.v1 import scheduler_service_pb2_grpc as pb_grpc

from tests.acceptance.programs import Pair, channel_to
from tests.bench.measuring.bench import ROOT, Bench
from tests.bench.measuring.comparison import ByTurns, Comparison, Figures, Goal
from tests.bench.measuring.filling import fill_window
from tests.bench.measuring.turns import by_turns
from tests.bench.peers import one_query

SIZES = {"10³ in the window": 10**3, "10⁵ in the window": 10**5, "10⁶ in the window": 10**6}
PLAIN = "one-row query"
CALLERS, CALLS, WARM_UPS = 8, 1_000, 40
TURNS = 4
END_S = 10.0
CALL_S = 10.0
FIGURES = ("stats", "breakers", "status")
Call = Callable[[], Awaitable[object]]


def _window(decisions: int) -> tuple[str, Callable[[str], Awaitable[None]]]:
    return f"{decisions} decisions", partial(fill_window, count=decisions)


async def prepare(bench: Bench) -> None:
    """The decisions."""
    for decisions in SIZES.values():
        await bench.fill(*_window(bench.size(decisions, decisions // 100)))


async def measure(bench: Bench) -> Mapping[str, Figures]:
    """The three rpcs of a pair for each size and the plain one, by turns; pairs as shipped that have nothing to do."""
    async with AsyncExitStack() as stack:
        sides: dict[str, Mapping[str, Call]] = {
            name: await stack.enter_async_context(_pair(bench, bench.size(decisions, decisions // 100)))
            for name, decisions in SIZES.items()
        }
        # There is one thing to read.
        sides[PLAIN] = dict.fromkeys(FIGURES, await stack.enter_async_context(plain(bench)))

        return await by_turns(bench.size(TURNS, 1), sides, [partial(read, bench, figure) for figure in FIGURES])


@asynccontextmanager
async def _pair(bench: Bench, decisions: int) -> AsyncIterator[Mapping[str, Call]]:
    async with bench.filled_database(*_window(decisions)) as url, idle_pair(bench, url) as stub:
        seen = (await stub.GetDispatchStats(pb.GetDispatchStatsRequest(), timeout=CALL_S)).window_1h.total
        if not 0.9 * decisions < seen < 1.1 * decisions:
            raise RuntimeError(f"the window has {seen} decisions instead of {decisions}")
        yield readings(stub)


@asynccontextmanager
async def idle_pair(bench: Bench, url: str) -> AsyncIterator[pb_grpc.SchedulerServiceAsyncStub]:
    """The scheduler of a pair as shipped that has nothing to do, on the database at `url`."""
    with bench.scratch("idle") as folder:
        pair = Pair(folder, url, TICK_INTERVAL_MS="5000", LEADER_LEASE_MS="3000")
        try:
            await pair.start()
            async with pair.calls() as stub:
                yield stub
        finally:
            await pair.stop()


def readings(stub: pb_grpc.SchedulerServiceAsyncStub) -> Mapping[str, Call]:
    """The calls that FIGURES name."""
    return {
        "stats": partial(stub.GetDispatchStats, pb.GetDispatchStatsRequest(), timeout=CALL_S),
        "breakers": partial(stub.ListBreakers, pb.ListBreakersRequest(), timeout=CALL_S),
        "status": partial(stub.GetStatus, pb.GetStatusRequest(), timeout=CALL_S),
    }


async def read(bench: Bench, figure: str, calls: Mapping[str, Call], count: int = CALLS) -> Figures:
    """The speed of one of the calls; see `_speed`."""
    return {f"{figure}_{unit}": value for unit, value in (await _speed(bench, calls[figure], count)).items()}


@asynccontextmanager
async def plain(bench: Bench) -> AsyncIterator[Call]:
    """The call that is answered by one query of one row."""
    async with bench.fresh_database() as url:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(
                "INSERT INTO circuit_breaker_states (key, state, failures, generation, reason) VALUES (%s, 'CLOSED', 0, 0, '')",
                (one_query.KEY,),
            )
        async with _plain_server(url) as port, channel_to(port) as channel:
            stub = pb_grpc.SchedulerServiceStub(channel)  # type: ignore[no-untyped-call]
            yield partial(stub.GetBreaker, pb.GetBreakerRequest(key=one_query.KEY), timeout=CALL_S)


@asynccontextmanager
async def _plain_server(url: str) -> AsyncIterator[int]:
    env = {"PATH": os.environ["PATH"], "GRPC_ENABLE_FORK_SUPPORT": "0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", one_query.__name__, url, cwd=ROOT, env=env, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(END_S):
            line = await process.stdout.readline()
        yield int(line)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _speed(bench: Bench, call: Call, calls: int) -> Mapping[str, float]:
    """Of `calls` calls: calls a second of CALLERS that call one after the other, and the median of a caller that is alone."""
    total = bench.size(calls, 40)

    async def caller(count: int) -> list[float]:
        took = []
        for _ in range(count):
            began = time.perf_counter()
            await call()
            took.append(time.perf_counter() - began)
        return took

    await asyncio.gather(*(caller(WARM_UPS // CALLERS) for _ in range(CALLERS)))
    alone = await caller(total // 4)
    began = time.perf_counter()
    await asyncio.gather(*(caller(total // CALLERS) for _ in range(CALLERS)))
    return {"calls_s": total / (time.perf_counter() - began), "p50_ms": 1_000 * median(alone)}


COMPARISONS = (
    Comparison(
        "reads",
        "What do statistics, breakers and status cost, and does it grow with the window?",
        (ByTurns((*SIZES, PLAIN), measure, prepare),),
        tuple(Goal(f"{name}_calls_s", size, PLAIN, at_least=0.8) for name in FIGURES for size in SIZES),
        {f"{name}_{figure}": unit for name in FIGURES for figure, unit in (("calls_s", "1/s"), ("p50_ms", "ms"))},
        "`GetDispatchStats`, `ListBreakers` and `GetStatus` of a pair for each window, as shipped, that has nothing to do. Beside "
        "them a server of the same kind (our `GrpcServer` with its interceptor, one pool) with one rpc that reads one row by its primary key in autocommit. "
        f"`calls_s`: {CALLERS} callers on one channel; `p50_ms`: one caller alone. All run; {CALLS} calls of "
        f"one after the other, {TURNS} times a round, of which a figure is the median.",
    ),
)
