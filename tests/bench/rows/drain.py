"""A backlog of short tasks until the last one is done, and the CPU time that each takes in the whole tree."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial

import psycopg

from tests.bench.measuring.bench import Bench
from tests.bench.measuring.comparison import Comparison, Goal, Variant
from tests.bench.our_pair import BY_INDEX, POLL_S, our_pair
from tests.bench.peers.bare import OUR_ROWS, OWN_ROWS, Rows, bare_pair
from tests.bench.peers.other import CELERY, DRAMATIQ, GRAPHILE, GRAPHILE_QUEUE, PG_BOSS, PROCRASTINATE, Peer, peer

TASKS, QUICK_TASKS = 20_000, 10
DRAIN_S = 600.0
OURS, BARE = "ours, 500 at once", "bare pair, 500"
WITH_OUR_ROWS = "bare pair with our rows, 500"
OURS_100, BARE_100 = "ours, 100 at once", "bare pair, 100"
QUEUE, BOSS = "graphile-worker, local queue", "pg-boss, fetch(500)"
PEERS = {
    "graphile-worker, defaults": GRAPHILE,
    "procrastinate": PROCRASTINATE,
    "celery, Redis": CELERY,
    "dramatiq, Redis": DRAMATIQ,
    BOSS: PG_BOSS,
    QUEUE: GRAPHILE_QUEUE,
}


async def ours(bench: Bench, max_runs: int) -> Mapping[str, float]:
    """Ours: the tick is switched off while the backlog is submitted and settles, and the clock starts when it is switched on."""
    count = bench.size(TASKS, QUICK_TASKS)
    async with our_pair(bench, max_runs=max_runs) as pair:
        await pair.tick(enabled=False)
        before = await pair.count_completed()
        await pair.submit(count)
        await bench.settle(pair.url)
        cpu, begin = await bench.cpu_seconds(*pair.pids), time.perf_counter()
        await pair.tick(enabled=True)
        await pair.until_all_ended(DRAIN_S)
        figures = _figures(count, time.perf_counter() - begin, await bench.cpu_seconds(*pair.pids) - cpu)
        done = await pair.count_completed() - before
        if done != count:
            raise RuntimeError(f"{done} of {count} tasks are COMPLETED")
        return figures


async def bare(bench: Bench, credits: int, rows: Rows = OWN_ROWS) -> Mapping[str, float]:
    """The bare pair: the clock starts when its executor attaches."""
    count = bench.size(TASKS, QUICK_TASKS)
    async with bare_pair(bench, credits=credits, backlog=count, rows=rows) as pair:
        async with await psycopg.AsyncConnection.connect(pair.url, autocommit=True, options=BY_INDEX) as connection:
            cpu, begin = await bench.cpu_seconds(*pair.pids), time.perf_counter()
            await pair.attach()
            async with asyncio.timeout(DRAIN_S):
                while (await (await connection.execute(rows.left)).fetchone()) != (False,):
                    await asyncio.sleep(POLL_S)
            return _figures(count, time.perf_counter() - begin, await bench.cpu_seconds(*pair.pids) - cpu)


async def other(bench: Bench, which: Peer) -> Mapping[str, float]:
    """A peer of another package: its clock starts as it says that it begins."""
    count = bench.size(which.jobs, min(which.jobs, QUICK_TASKS))
    async with peer(bench, which) as running:
        await running.ask(f"fill {count}", "filled")
        await running.settle()
        await running.ask("drain", "begun")
        cpu, begin = await bench.cpu_seconds(*running.pids), time.perf_counter()
        await running.answer("done", DRAIN_S)
        return _figures(count, time.perf_counter() - begin, await bench.cpu_seconds(*running.pids) - cpu)


def _figures(count: int, seconds: float, cpu: float) -> Mapping[str, float]:
    return {"rate": count / seconds, "cpu": 1e6 * cpu / count}


COMPARISONS = (
    Comparison(
        name="drain",
        question="How fast is a backlog of 20,000 short tasks done, from the first start to the last durable completion, and how "
        "much CPU time does each take, PostgreSQL included?",
        variants=(
            Variant(OURS, partial(ours, max_runs=500)),
            Variant(BARE, partial(bare, credits=500)),
            Variant(WITH_OUR_ROWS, partial(bare, credits=500, rows=OUR_ROWS)),
            Variant(OURS_100, partial(ours, max_runs=100)),
            Variant(BARE_100, partial(bare, credits=100)),
            *(Variant(name, partial(other, which=which)) for name, which in PEERS.items()),
        ),
        goals=(
            Goal("rate", OURS, BARE, at_least=0.3),
            Goal("rate", OURS, BARE, at_least=0.6, step="then"),
            Goal("rate", OURS_100, BARE_100, at_least=0.3),
            Goal("rate", OURS_100, BARE_100, at_least=0.6, step="then"),
            *(Goal("rate", OURS, name, at_least=1.0, step="then" if name in (BOSS, QUEUE) else "must") for name in PEERS),
            Goal("cpu", OURS, BARE, at_most=4.0),
            Goal("cpu", OURS, BARE, at_most=2.0, step="then"),
        ),
        units={"rate": "tasks/s", "cpu": "µs/task"},
        settings="Ours: both services as programs and as shipped, `DISPATCH_ROUTES=*=noop` and a plug-in `noop` whose `max_runs` is the "
        "batch size. The pair is warm: starts ramp up for six seconds after a change of leader, and that is over. `TICK_ENABLED` is "
        "false while the backlog is submitted, vacuumed and checkpointed, and the clock starts as it is set true. The bare pair is our "
        "design without fences, journal, history, gates and pre-flight; its clock starts as its executor attaches. With our rows it keeps "
        "what we keep of a task (its row in our tables and indexes, its run, its decision with both counters, its two events), all by that "
        "one statement: what these rows cost whoever keeps them. Whether work is left is asked 50 times a second, of an index. Peers "
        "at their best documented settings: graphile-worker with 10 jobs at once, and with 24 and a local queue of 500 without batch delays "
        "(one process; its clock includes the start of its runner); procrastinate with two processes of 10; pg-boss by `fetch(500)` and "
        "`complete`; celery with `acks_late` and 8 threads, prefetch 16; dramatiq with two processes of 8 threads. Redis keeps both their "
        "queues in memory only, so that theirs are not durable. Slow peers get shorter backlogs for time's sake: 2,000 procrastinate, 2,500 "
        "celery, 5,000 dramatiq, 6,000 graphile-worker's defaults.",
    ),
)
