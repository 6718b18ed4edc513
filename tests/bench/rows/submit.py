"""Submitting while nothing runs: a thousand in one call, and many callers with one each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from uuid import uuid4

import psycopg
from cecelia.scheduler.v1 import scheduler_service_pb2 as ours_pb

from tests.acceptance.programs import DESCRIPTION
from tests.bench.measuring.bench import Bench
from tests.bench.measuring.comparison import Comparison, Goal, Variant
from tests.bench.our_pair import RPC_S, our_pair, specs_of
from tests.bench.peers.bare import bare_pair, pb

BATCH, BATCHES, QUICK_BATCHES = 1_000, 20, 1
CALLERS, CALLS, QUICK_CALLS = 64, 5_000, 64
OURS, BARE, UNNEST = "ours", "bare pair", "unnest inserts"

# What a submit writes, as one statement can at best.
TABLE = "CREATE TABLE bare_tasks (LIKE tasks INCLUDING ALL)"
INSERT = """
INSERT INTO bare_tasks (
    id, title, description, task_type, priority, skill, payload, depends_on, max_tries, timeout, backend, status, hold_reason,
    fence, tries, start_failures, backoff_count, executor_id, result, error, cancel_requested, blocked_by, rank_time, due_time,
    create_time, update_time)
SELECT id, title, description, 'dev', 1, '', '{}', '{}', 3, interval '1 hour', 'noop', 'queued', '', 0, 0, 0, 0, '', '', '',
    false, 0, now() + interval '1 hour', now(), now(), now()
FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS given (id, title, description)
RETURNING id
"""


async def ours(bench: Bench) -> Mapping[str, float]:
    """Ours, with the tick switched off."""
    batches, calls = bench.size(BATCHES, QUICK_BATCHES), bench.size(CALLS, QUICK_CALLS)
    requests = [
        ours_pb.SubmitTasksRequest(tasks=specs_of(range(first, first + BATCH))) for first in range(0, BATCH * batches, BATCH)
    ]
    (spec,) = specs_of([1])
    one = ours_pb.SubmitTaskRequest(task=spec)
    async with our_pair(bench, max_runs=500) as pair:
        await pair.tick(enabled=False)
        await pair.submit(BATCH)
        begin = time.perf_counter()
        for request in requests:
            await pair.stub.SubmitTasks(request, timeout=RPC_S)
        bulk = len(requests) * BATCH / (time.perf_counter() - begin)
        return {"bulk": bulk, "callers": await by_callers(calls, lambda: pair.stub.SubmitTask(one, timeout=RPC_S))}


async def bare(bench: Bench) -> Mapping[str, float]:
    """The bare pair, its executor not attached."""
    batches, calls = bench.size(BATCHES, QUICK_BATCHES), bench.size(CALLS, QUICK_CALLS)
    one = pb.Jobs(jobs=[pb.Job(payload='{"k": 1}')])
    many = pb.Jobs(jobs=[pb.Job(payload='{"k": 1}')] * BATCH)
    async with bare_pair(bench, credits=500) as pair:
        await pair.stub.Enqueue(many, timeout=RPC_S)
        begin = time.perf_counter()
        for _ in range(batches):
            await pair.stub.Enqueue(many, timeout=RPC_S)
        bulk = batches * BATCH / (time.perf_counter() - begin)
        return {"bulk": bulk, "callers": await by_callers(calls, lambda: pair.stub.Enqueue(one, timeout=RPC_S))}


async def unnest(bench: Bench) -> Mapping[str, float]:
    """`INSERT ... SELECT FROM unnest` into a table of the same columns, indexes and checks; no service between."""
    batches = bench.size(BATCHES, QUICK_BATCHES)
    async with bench.fresh_database() as url, await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(TABLE)

        async def insert() -> None:
            ids, titles = [uuid4() for _ in range(BATCH)], [f"Task number {number}" for number in range(BATCH)]
            rows = await (await connection.execute(INSERT, (ids, titles, [DESCRIPTION] * BATCH))).fetchall()
            if len(rows) != BATCH:
                raise RuntimeError(f"{len(rows)} of {BATCH} rows were inserted")

        await insert()
        begin = time.perf_counter()
        for _ in range(batches):
            await insert()
        return {"bulk": batches * BATCH / (time.perf_counter() - begin)}


async def by_callers(calls: int, call: Callable[[], Awaitable[object]]) -> float:
    """Calls a second of 64 callers, each of whom calls again as soon as it is answered."""
    left: Iterator[int] = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            await call()

    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller())
    return calls / (time.perf_counter() - begin)


COMPARISONS = (
    Comparison(
        name="submit",
        question="How many tasks can be submitted a second while nothing runs: a thousand in one call (`bulk`), and by 64 callers with one "
        "each (`callers`)?",
        variants=(Variant(OURS, ours), Variant(BARE, bare), Variant(UNNEST, unnest)),
        goals=(
            Goal("bulk", OURS, UNNEST, at_least=0.6),
            Goal("callers", OURS, BARE, at_least=0.8),
        ),
        units={"bulk": "tasks/s", "callers": "tasks/s"},
        settings="Ours: `SubmitTasks` of 1,000, 20 calls one after the other, then 5,000 `SubmitTask` by 64 callers over one channel, with "
        "`TICK_ENABLED` false. The bare pair: `Enqueue` likewise, whose rows have eight short columns; its executor is not attached. The inserts: "
        "`INSERT ... SELECT FROM unnest` of 1,000 rows, a commit each, into a table made `LIKE tasks INCLUDING ALL`, from one connection "
        "without a service between.",
    ),
)
