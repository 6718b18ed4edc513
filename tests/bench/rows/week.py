"""Everything again with a week of history: 10⁷ decisions and as many events, 10⁶ finished tasks with their runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from statistics import median

import psycopg

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.storage.postgres import PostgresDatabase
from scheduler_service.tick.maintenance import Maintenance
from scheduler_service.transactions.reading import read_stats
from service_runtime.clock import SystemClock
from tests.bench.measuring.bench import Bench
from tests.bench.measuring.comparison import Comparison, Goal, Variant
from tests.bench.measuring.filling import fill_decisions, fill_events, fill_finished, fill_queue
from tests.bench.measuring.leading import leading, timed

EMPTY, WEEK, RETENTION = "no history", "a week of history", "retention"
DECISIONS, FINISHED, QUEUED = 10_000_000, 1_000_000, 1_000
QUICK_DECISIONS, QUICK_FINISHED = 100_000, 10_000
WEEK_S = 7 * 24 * 3_600.0
KEPT = timedelta(days=6)
STARTS, TIMES, WARM_UPS = 12, 40, 6
HOT = ("tasks", "task_runs", "dispatch_second_counts", "dispatch_minute_counts", "circuit_breaker_states", "leader")

_DEAD = "SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables WHERE relname = ANY(%s)"


async def _fill(bench: Bench, url: str, *, week: bool) -> None:
    if week:
        await fill_finished(url, bench.size(FINISHED, QUICK_FINISHED))
        await fill_decisions(url, bench.size(DECISIONS, QUICK_DECISIONS), seconds=WEEK_S)
        await fill_events(url, bench.size(DECISIONS, QUICK_DECISIONS), seconds=WEEK_S)
    await fill_queue(url, QUEUED)


async def prepare(bench: Bench, *, week: bool) -> None:
    """The database, with its week or without."""
    await bench.fill(WEEK if week else EMPTY, partial(_fill, bench, week=week))


async def measure(bench: Bench, *, week: bool) -> Mapping[str, float]:
    """Medians of a tick, a submission, a read of the statistics and the recording of a tick's runs."""
    times = bench.size(TIMES, 3)
    took: dict[str, list[float]] = {name: [] for name in ("tick_ms", "submit_ms", "stats_ms", "record_ms")}
    async with bench.filled_database(WEEK if week else EMPTY, partial(_fill, bench, week=week)) as url:
        async with leading(url, seats=STARTS + 2) as leader:
            for _ in range(WARM_UPS + times):
                seconds, result = await timed(leader.tick)
                if len(result.orders) != STARTS:
                    raise RuntimeError(f"a tick started {len(result.orders)} tasks instead of {STARTS}: {result.verdicts}")
                took["tick_ms"].append(seconds)
                took["record_ms"].append((await timed(partial(leader.complete, result.orders)))[0])
                took["submit_ms"].append((await timed(leader.submit))[0])
                took["stats_ms"].append((await timed(partial(leader.run, lambda tx: read_stats(tx, DispatchRules()))))[0])
    return {name: 1_000 * median(seconds[WARM_UPS:]) for name, seconds in took.items()}


async def measure_retention(bench: Bench) -> Mapping[str, float]:
    """Housekeeping that lets a day of the week go: what it removes, and the dead rows that it leaves in the hot tables."""
    rules = DispatchRules(task_retention=KEPT, event_retention=KEPT)
    async with bench.filled_database(WEEK, partial(_fill, bench, week=True)) as url:
        database = PostgresDatabase(url)
        await database.open()
        try:
            seconds, removed = await timed(Maintenance(database, SystemClock(), rules).once)
        finally:
            await database.close()
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            # Counted in the tables: what connections have told of their deletions may come late.
            await connection.execute("SET statement_timeout = 0")
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
            Variant(WEEK, partial(measure, week=True), partial(prepare, week=True)),
            Variant(EMPTY, partial(measure, week=False), partial(prepare, week=False)),
            Variant(RETENTION, measure_retention, partial(prepare, week=True)),
        ),
        (
            *(Goal(figure, WEEK, EMPTY, at_most=1.2) for figure in FIGURES),
            Goal("dead_rows", RETENTION, RETENTION, at_most=0.1, other_figure="removed"),
        ),
        {**dict.fromkeys(FIGURES, "ms"), "retention_s": "s", "removed": "rows and tables", "dead_rows": "rows"},
        f"{DECISIONS:,} decisions with their counters, {DECISIONS:,} events and {FINISHED:,} completed tasks with their runs, evenly spread "
        f"over seven days, and {QUEUED:,} queued tasks; beside it the queued tasks alone. Transactions without rpcs around them: a tick that "
        f"claims {STARTS} tasks, the recording of their ends, a submission, the statistics; the median of {TIMES}. Retention: one round of "
        f"housekeeping that keeps {KEPT.days} days; `dead_rows` of {', '.join(f'`{name}`' for name in HOT)} by an `ANALYZE` afterwards.",
    ),
)
