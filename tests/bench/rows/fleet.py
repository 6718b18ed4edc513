"""One scheduler with 10 executors and 1,000 running tasks, and with 100 and 10,000."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from cecelia.scheduler.v1 import scheduler_service_pb2_grpc as pb_grpc

from tests.acceptance.metrics import samples, scraped
from tests.acceptance.programs import Program, channel_to
from tests.bench.measuring.bench import ROOT, Bench
from tests.bench.measuring.comparison import Comparison, Goal, Variant
from tests.bench.our_pair import RPC_S, specs_of
from tests.bench.peers import fleet
from tests.bench.peers.programs import PeerProgram, environment, running

RUNS_EACH = 100
RUN_S, MEASURED_S = 600.0, 30.0
LEASE_MS, TICK_MS = 600_000, 5_000
RENEWAL_S = LEASE_MS / 12 / 1_000
ACKNOWLEDGE_LIMIT_S = 5.0
FILL_S = 220.0
# What ends is noticed, and another one takes its place, a moment later.
FULL = 0.9
SMALL, LARGE, LIMIT = "10 executors, 1,000 running", "100 executors, 10,000 running", "limit"

_TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"


async def measure(bench: Bench, executors: int) -> Mapping[str, float]:
    """Filled up first; then what MEASURED_S show, with a thousandth of the running tasks ending each tenth of a second or so."""
    executors, runs_each = bench.size(executors, max(2, executors // 25)), bench.size(RUNS_EACH, 10)
    run_s, measured_s = (10.0, 5.0) if bench.quick else (RUN_S, MEASURED_S)
    wanted = executors * runs_each
    with bench.scratch("fleet") as folder:
        async with (
            bench.fresh_database() as url,
            _fleet(folder, executors, runs_each, run_s) as (program, targets),
            _scheduler(folder, url, targets) as scheduler,
            channel_to(scheduler.port) as channel,
        ):
            stub: pb_grpc.SchedulerServiceAsyncStub = pb_grpc.SchedulerServiceStub(channel)
            # Enough to fill every place, and to take the place of what ends until the measurement is over.
            tasks = int(wanted * (1.3 + (FILL_S + measured_s) / run_s))
            for first in range(0, tasks, 1_000):
                specs = specs_of(range(first, min(tasks, first + 1_000)))
                for spec in specs:
                    spec.task_type = "talk"
                await stub.SubmitTasks(pb.SubmitTasksRequest(tasks=specs), timeout=RPC_S)
            async with asyncio.timeout(FILL_S):
                while (await _figures(program))["running"] < FULL * wanted:
                    await asyncio.sleep(0.5)
            return await _measure(bench, measured_s, url, program, scheduler)


async def _measure(bench: Bench, measured_s: float, url: str, program: PeerProgram, scheduler: Program) -> Mapping[str, float]:
    await program.say("begin")
    ticks = await _ticks(scheduler)
    transactions, cpu = await _transactions(url), await bench.cpu_seconds(scheduler.pid)
    began = time.perf_counter()
    await asyncio.sleep(measured_s)
    seconds = time.perf_counter() - began
    used = await bench.cpu_seconds(scheduler.pid) - cpu
    asked = await _transactions(url) - transactions
    seen = await _figures(program)
    later = await _ticks(scheduler)
    running = float(seen["running"])
    waits = sorted(seen["acknowledge_s"])
    return {
        "tick_p99_ms": 1_000 * _quantile({bound: later[bound] - ticks[bound] for bound in later}, 0.99),
        "renewal_gap_s": max(seen["renewal_gap_s"]),
        **({"acknowledge_p99_s": waits[int(0.99 * len(waits))]} if waits else {}),
        "cpu_us": 1e6 * used / running / seconds,
        "transactions": asked / running / seconds * 60,
        "completed_s": seen["completed"] / seconds,
        "running": running,
    }


async def _figures(program: PeerProgram) -> dict[str, Any]:
    await program.say("figures")
    return dict(json.loads(await program.line()))


async def _transactions(url: str) -> int:
    # A backend tells of its transactions at most once a second, and when it is idle for longer than that.
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        row = await (await connection.execute(_TRANSACTIONS)).fetchone()
    assert row is not None
    return int(row[0])


async def _ticks(scheduler: Program) -> dict[float, float]:
    """How many ticks so far took at most so many seconds."""
    found = samples(await scraped(scheduler), "cecelia_scheduler_tick_duration_seconds_bucket")
    return {float(bound): count for (bound,), count in found.items()}


def _quantile(buckets: Mapping[float, float], share: float) -> float:
    """The upper bound of the bucket that it falls into: no less than the quantile."""
    total = max(buckets.values())
    return next((bound for bound, count in sorted(buckets.items()) if total and count >= share * total), float("inf"))


@contextlib.asynccontextmanager
async def _fleet(folder: Path, executors: int, runs_each: int, run_s: float) -> AsyncIterator[tuple[PeerProgram, str]]:
    command = (sys.executable, "-m", fleet.__name__, str(executors), str(runs_each), str(run_s))
    async with running(command, environment(), folder / "fleet.log", cwd=ROOT) as program:
        yield program, await program.line()


@contextlib.asynccontextmanager
async def _scheduler(folder: Path, url: str, targets: str) -> AsyncIterator[Program]:
    env = environment(
        SCHEDULER_GRPC_ADDRESS="127.0.0.1:0", SCHEDULER_HTTP_ADDRESS="127.0.0.1:0", DISPATCH_DATA_DIR=str(folder / "scheduler"),
        DATABASE_URL=url, EXECUTOR_TARGETS=targets,
    )  # fmt: skip
    program = Program("scheduler_service", env, folder / "scheduler", folder / "scheduler.log")
    await program.start()
    try:
        yield program
    finally:
        await program.end()


async def limit(_: Bench) -> Mapping[str, float]:
    """What is asked of it: a tick within its period, renewals each twelfth of a lease, and an end recorded before the next tick."""
    return {"tick_p99_ms": TICK_MS, "renewal_gap_s": 2 * RENEWAL_S, "acknowledge_p99_s": ACKNOWLEDGE_LIMIT_S}


COMPARISONS = (
    Comparison(
        "fleet",
        "Does one scheduler keep up with 100 executors and 10,000 running tasks?",
        (
            Variant(SMALL, partial(measure, executors=10)),
            Variant(LARGE, partial(measure, executors=100)),
            Variant(LIMIT, limit),
        ),
        (
            Goal("tick_p99_ms", LARGE, LIMIT, at_most=1.0),
            Goal("renewal_gap_s", LARGE, LIMIT, at_most=1.0),
            Goal("acknowledge_p99_s", LARGE, LIMIT, at_most=1.0),
            Goal("cpu_us", LARGE, SMALL, at_most=1.2),
            Goal("transactions", LARGE, SMALL, at_most=1.2),
        ),
        {
            "tick_p99_ms": "ms", "renewal_gap_s": "s", "acknowledge_p99_s": "s", "cpu_us": "µs of CPU a running task and second",
            "transactions": "a running task and minute", "completed_s": "tasks/s", "running": "tasks",
        },
        f"The scheduler as shipped but for its ports: a tick each {TICK_MS / 1_000:g} s, leases renewed each {RENEWAL_S:g} s. Executors "
        f"are simulated: real gRPC servers of one process, {RUNS_EACH} runs each, a run lasts "
        f"{RUN_S:g} s in the mean, and the backlog takes its place. {MEASURED_S:g} s are measured after all places are taken. "
        "`tick_p99_ms`: the bucket of the scheduler's own histogram; `renewal_gap_s`: the longest time between two renewals of one "
        "executor; `acknowledge_p99_s`: from a run's end to its acknowledgement, after it is stored; CPU of the scheduler and PostgreSQL; "
        "transactions and single statements by `pg_stat_database`.",
    ),
)  # fmt: skip
