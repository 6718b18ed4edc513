"""Starting and idling: both services beside the least that a service of their kind is, with a budget as a ratio to that."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import psutil
import psycopg

from tests.acceptance.programs import Pair, Program
from tests.bench.measuring.bench import ROOT, Bench
from tests.bench.measuring.comparison import Comparison, Goal, Variant
from tests.bench.peers import bare_service
from tests.bench.peers.programs import environment, running

SCHEDULER, EXECUTOR, BARE, LIMIT = "scheduler", "executor", "bare service", "limit"
IDLE_QUERIES = 450.0
IDLE_S, SETTLE_S = 40.0, 12.0
IMPORTS = {
    SCHEDULER: "import scheduler_service.app",
    EXECUTOR: "import executor_service.app",
    BARE: f"import {bare_service.__name__}",
}
_TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"


async def measure_scheduler(bench: Bench) -> Mapping[str, float]:
    """On a migrated database, with an executor that has nothing to do."""
    async with _pair(bench) as (pair, url):
        await pair.executor.start()
        pair.scheduler._env["EXECUTOR_TARGETS"] = f"127.0.0.1:{pair.executor.port}"
        ready = await _ready(pair.scheduler)
        before = await _after_settling(bench, url)
        idle = await _idle(bench, pair.scheduler.pid)
        queries = (await _transactions(url) - before) / idle.pop("seconds") * 60
        return {"import_s": await _import(SCHEDULER), "ready_s": ready, **idle, "transactions": queries}


async def measure_executor(bench: Bench) -> Mapping[str, float]:
    """With a scheduler that has nothing to start."""
    async with _pair(bench) as (pair, url):
        ready = await _ready(pair.executor)
        pair.scheduler._env["EXECUTOR_TARGETS"] = f"127.0.0.1:{pair.executor.port}"
        await pair.scheduler.start()
        await _after_settling(bench, url)
        idle = await _idle(bench, pair.executor.pid)
        del idle["seconds"]
        return {"import_s": await _import(EXECUTOR), "ready_s": ready, **idle}


async def measure_bare(bench: Bench) -> Mapping[str, float]:
    """Alone."""
    with bench.scratch("bare") as folder:
        async with bench.fresh_database(migrated=False) as url:
            command = (sys.executable, "-m", bare_service.__name__, url)
            began = time.perf_counter()
            async with running(command, environment(), folder / "log", cwd=ROOT) as program:
                await program.line()
                ready = time.perf_counter() - began
                await _after_settling(bench, url)
                idle = await _idle(bench, program.pid)
                del idle["seconds"]
                return {"import_s": await _import(BARE), "ready_s": ready, **idle}


@contextlib.asynccontextmanager
async def _pair(bench: Bench) -> AsyncIterator[tuple[Pair, str]]:
    with bench.scratch("start") as folder:
        async with bench.fresh_database() as url:
            pair = Pair(folder, url, TICK_INTERVAL_MS="5000", LEADER_LEASE_MS="3000", SESSION_PROCESS_NAME="claude")
            try:
                yield pair, url
            finally:
                await pair.stop()


async def _ready(program: Program) -> float:
    """Seconds from its start until it is SERVING."""
    began = time.perf_counter()
    await program.start()
    return time.perf_counter() - began


async def _after_settling(bench: Bench, url: str) -> int:
    """Transactions so far, once what comes after a start is over."""
    await asyncio.sleep(bench.size(int(SETTLE_S), 2))
    return await _transactions(url)


async def _idle(bench: Bench, pid: int) -> dict[str, float]:
    """What a process takes of memory and CPU while nothing is to do."""
    used, began = _cpu_seconds(pid), time.perf_counter()
    await asyncio.sleep(bench.size(int(IDLE_S), 3))
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "rss_mb": psutil.Process(pid).memory_info().rss / 2**20,
        "idle_cpu_ms": 1_000 * (_cpu_seconds(pid) - used) / seconds,
    }


def _cpu_seconds(pid: int) -> float:
    """Of all threads; finer than the clock ticks of /proc/PID/stat, of which an idle process uses few."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


async def _transactions(url: str) -> int:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        row = await (await connection.execute(_TRANSACTIONS)).fetchone()
    assert row is not None
    return int(row[0])


async def _import(which: str) -> float:
    """Seconds of CPU that a fresh interpreter takes for it, its own start included."""
    used = psutil.Process().cpu_times()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", IMPORTS[which], cwd=Path(ROOT), env=environment())
    if await process.wait() != 0:
        raise RuntimeError(f"{IMPORTS[which]} fails")
    now = psutil.Process().cpu_times()
    return now.children_user + now.children_system - used.children_user - used.children_system


async def limit(_: Bench) -> Mapping[str, float]:
    """Queries a minute when there is nothing to do: mostly the lease, the look at the database and at each executor, once a second."""
    return {"transactions": IDLE_QUERIES}


COMPARISONS = (
    Comparison(
        "start",
        "What do the services cost to start, and when they have nothing to do?",
        (
            Variant(SCHEDULER, measure_scheduler),
            Variant(EXECUTOR, measure_executor),
            Variant(BARE, measure_bare),
            Variant(LIMIT, limit),
        ),
        (
            *(Goal("import_s", ours, BARE, at_most=4.0) for ours in (SCHEDULER, EXECUTOR)),
            *(Goal("ready_s", ours, BARE, at_most=6.0) for ours in (SCHEDULER, EXECUTOR)),
            *(Goal("rss_mb", ours, BARE, at_most=2.0) for ours in (SCHEDULER, EXECUTOR)),
            *(Goal("idle_cpu_ms", ours, BARE, at_most=20.0) for ours in (SCHEDULER, EXECUTOR)),
            Goal("transactions", SCHEDULER, LIMIT, at_most=1.0),
        ),
        {"import_s": "s of CPU", "ready_s": "s", "rss_mb": "MiB", "idle_cpu_ms": "ms a second", "transactions": "1/min"},
        "A pair as shipped on a migrated database. Beside it a process with nothing but `grpc.aio`, its health service and a "
        "`psycopg` pool that it asks for `SELECT 1` once a second. The bounds are budgets, so that what creeps in is seen. "
        f"`import_s`: a fresh interpreter that imports it; `ready_s`: from its start until it is SERVING; {IDLE_S:g} s without a task for the rest. `transactions`: with single statements, of the scheduler, by `pg_stat_database`.",
    ),
)
