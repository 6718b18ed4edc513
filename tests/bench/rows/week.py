"""Everything again with a week of history: 10⁷ decisions and as many events, 10⁶ finished tasks with their runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial

import psycopg

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.storage.postgres import PostgresDatabase
from scheduler_service.tick.maintenance import Maintenance
from scheduler_service.transactions.reading import read_stats
from service_runtime.clock import SystemClock
from tests.bench.measuring.bench import WITHOUT_LIMITS, Bench
from tests.bench.measuring.comparison import ByTurns, Comparison, Figures, Goal, Variant
from tests.bench.measuring.filling import fill_decisions, fill_events, fill_finished, fill_queue
from tests.bench.measuring.leading import Leading, leading, timed
from tests.bench.measuring.turns import by_turns

EMPTY, HOUR, WEEK, RETENTION = "no history", "its last hour alone", "a week of history", "retention"
DECISIONS, FINISHED, QUEUED = 10_000_000, 1_000_000, 1_000
QUICK_DECISIONS, QUICK_FINISHED = 100_000, 10_000
HOURS = 7 * 24
WEEK_S = HOURS * 3_600.0
KEPT = timedelta(days=6)
SIDES = (WEEK, HOUR, EMPTY)
STARTS, TIMES, WARM_UPS = 12, 39, 6
HOT = ("tasks", "task_runs", "dispatch_second_counts", "dispatch_minute_counts", "circuit_breaker_states", "leader")

_DEAD = "SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables WHERE relname = ANY(%s)"


async def _fill(bench: Bench, url: str) -> None:
    await fill_decisions(url, bench.size(DECISIONS, QUICK_DECISIONS), seconds=WEEK_S)
    await fill_finished(url, bench.size(FINISHED, QUICK_FINISHED))
    await fill_events(url, bench.size(DECISIONS, QUICK_DECISIONS), seconds=WEEK_S)


async def _fill_hour(bench: Bench, url: str) -> None:
    await fill_decisions(url, bench.size(DECISIONS, QUICK_DECISIONS) // HOURS, seconds=WEEK_S / HOURS)


async def prepare(bench: Bench) -> None:
    """The hour, and behind it the week, whose decisions come first: what is in the window leaves both as time goes by."""
    await bench.fill(HOUR, partial(_fill_hour, bench))
    await bench.fill(WEEK, partial(_fill, bench))


def _week(bench: Bench) -> AbstractAsyncContextManager[str]:
    return bench.filled_database(WEEK, partial(_fill, bench))


@asynccontextmanager
async def databases(bench: Bench) -> AsyncIterator[Mapping[str, str]]:
    """The URLs of a database for each side."""
    hour = bench.filled_database(HOUR, partial(_fill_hour, bench))
    async with _week(bench) as of_week, hour as of_hour, bench.fresh_database() as empty:
        yield {WEEK: of_week, HOUR: of_hour, EMPTY: empty}


async def measure_transactions(bench: Bench) -> Mapping[str, Figures]:
    """Medians of a tick, a submission, a read of the statistics and the recording of a tick's runs."""
    async with databases(bench) as urls, AsyncExitStack() as stack:
        for url in urls.values():
            await fill_queue(url, QUEUED)
        await bench.settle(*urls.values())
        leaders = {name: await stack.enter_async_context(leading(url, STARTS + 2)) for name, url in urls.items()}
        for leader in [*leaders.values()] * WARM_UPS:
            await _transactions(leader)
        return await by_turns(bench.size(TIMES, 3), leaders, [_transactions])


async def _transactions(leader: Leading) -> Figures:
    tick_s, result = await timed(leader.tick)
    if len(result.orders) != STARTS:
        raise RuntimeError(f"a tick started {len(result.orders)} tasks instead of {STARTS}: {result.verdicts}")
    record_s, _ = await timed(partial(leader.complete, result.orders))
    submit_s, _ = await timed(leader.submit)
    stats_s, _ = await timed(partial(leader.run, lambda tx: read_stats(tx, DispatchRules())))
    return {"tick_ms": 1e3 * tick_s, "submit_ms": 1e3 * submit_s, "stats_ms": 1e3 * stats_s, "record_ms": 1e3 * record_s}


async def measure_retention(bench: Bench) -> Mapping[str, float]:
    """Housekeeping that lets a day of the week go: what it removes, and the dead rows that it leaves in the hot tables."""
    rules = DispatchRules(task_retention=KEPT, event_retention=KEPT)
    async with _week(bench) as url:
        database = PostgresDatabase(url)
        await database.open()
        try:
            seconds, removed = await timed(Maintenance(database, SystemClock(), rules).once)
        finally:
            await database.close()
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            # Autovacuum may hold the tables' locks.
            await connection.execute(WITHOUT_LIMITS)
            # Counted in the tables: what connections have told of their deletions may come late.
            await connection.execute(f"ANALYZE {', '.join(HOT)}")
            row = await (await connection.execute(_DEAD, (list(HOT),))).fetchone()
            assert row is not None
    return {"retention_s": seconds, "removed": float(removed), "dead_rows": float(row[0])}


FIGURES = ("tick_ms", "submit_ms", "stats_ms", "record_ms")
COMPARISONS = (
    Comparison(
        "week",
        "Does a week of history make anything slower?",
        (
            ByTurns(SIDES, measure_transactions, prepare),
            Variant(RETENTION, measure_retention, prepare),
        ),
        (
            *(Goal(figure, WEEK, other, at_most=1.2) for other in (EMPTY, HOUR) for figure in FIGURES),
            Goal("dead_rows", RETENTION, RETENTION, at_most=0.1, other_figure="removed"),
        ),
        {**dict.fromkeys(FIGURES, "ms"), "retention_s": "s", "removed": "rows and tables", "dead_rows": "rows"},
        f"{DECISIONS:,} decisions with their counters, {DECISIONS:,} events and {FINISHED:,} completed tasks with their runs, evenly "
        f"spread over seven days, and {QUEUED:,} queued tasks; beside it the decisions of its last hour, which a window holds, with the "
        "queued tasks; and these alone. Transactions without rpcs around them, by turns on the three: a tick that claims "
        f"{STARTS} tasks, the recording of their ends, a submission, the statistics; the median of {TIMES}. Retention: one round of "
        f"housekeeping that keeps {KEPT.days} days; `dead_rows` of {', '.join(f'`{name}`' for name in HOT)} by an `ANALYZE` afterwards.",
    ),
)
