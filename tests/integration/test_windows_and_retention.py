"""The statistics against a naive count, whatever the clocks did; what they cost; and what retention takes away."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.errors import StorageUnavailable
from scheduler_service.storage.migrate import migrate, migrations
from scheduler_service.storage.postgres import PostgresDatabase
from scheduler_service.storage.transaction import PostgresTransaction
from scheduler_service.tick.maintenance import BATCH, Maintenance
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import AuditEntry, AuditFilter, DispatchEvent, Event, EventFilter, WindowRow
from service_runtime.clock import SystemClock
from tests.bench.measuring.filling import fill_finished
from tests.fakes.fake_clock import FakeClock

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
START = datetime(2026, 2, 25, 12, 0, 0, 123456, UTC)


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
async def database(database_url: str, clock: FakeClock) -> AsyncIterator[PostgresDatabase]:
    made = PostgresDatabase(database_url, size=4, clock=clock.now)
    await made.open()
    yield made
    await made.close()


def naive(events: list[DispatchEvent], since: datetime, *, by_executor: bool) -> set[WindowRow]:
    rows: dict[tuple[Any, ...], list[datetime]] = {}
    for e in events:
        if e.create_time >= since:
            executor_id = e.executor_id if by_executor else ""
            rows.setdefault((e.backend, executor_id, e.attempt, e.success, e.reason), []).append(e.create_time)
    return {WindowRow(*key, len(times), max(times)) for key, times in rows.items()}


@pytest.mark.parametrize("seed", range(3))
async def test_a_window_is_exact_at_any_instant_whatever_the_clocks_did(
    database: PostgresDatabase, clock: FakeClock, seed: int
) -> None:
    chance = random.Random(seed)
    written: list[DispatchEvent] = []

    async def write(tx: Transaction) -> None:
        for _ in range(60):
            # Late ones, and ones of a clock that ran an hour ahead before it was set back.
            age = timedelta(
                seconds=chance.choice([0.0, 0.1, 0.9, 1.0, 59.9, 60.0, 61.5, 3599.9, 3600.0, 3600.2, 7300.0, -3600.0])
            )
            success = chance.random() < 0.4
            reason = "" if success else chance.choice(["executor_failed", "pool_c_full", ""])
            backend, executor = chance.choice(["cecelia-run", "hk-minimax"]), chance.choice(["host-a", "host-b"])
            event = DispatchEvent(tx.now - age, success, reason, "", chance.random() < 0.5, backend, executor_id=executor)
            written.append(event)
            tx.record(event)

    for jump in (timedelta(0), timedelta(seconds=0.4), timedelta(seconds=61), HOUR, -2 * HOUR, DAY):
        clock.jump(seconds=jump.total_seconds())
        await database.run(lambda tx: tx.ensure_partitions())
        await database.run(write)
        for length in (timedelta(seconds=1), timedelta(minutes=1), timedelta(minutes=5), HOUR, 2 * HOUR, 7 * DAY):
            since = clock.now() - length
            for by_executor in (False, True):
                rows = await database.run(lambda tx, s=since, b=by_executor: tx.window_rows(s, by_executor=b))  # type: ignore[misc]  # mypy infers no lambda with defaults
                assert set(rows) == naive(written, since, by_executor=by_executor), (jump, length)


READ = """
SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) AS n FROM pg_stat_xact_user_tables
WHERE relname ~ '^dispatch_((second|minute)_counts|events_[0-9]{8})$'
"""


async def count_million_an_hour(
    tx: Transaction, now: datetime, minutes_of: timedelta = 14 * DAY, seconds_of: timedelta = 2 * HOUR
) -> None:
    """As a million decisions an hour leave the counters: what was recorded one by one is counted in each minute and second."""
    assert isinstance(tx, PostgresTransaction)
    for unit, long, count in (("second", seconds_of, 278), ("minute", minutes_of, 16_680)):
        await tx._connection.execute(f"DELETE FROM dispatch_{unit}_counts")  # type: ignore[arg-type]  # two literals
        await tx._connection.execute(
            f"INSERT INTO dispatch_{unit}_counts SELECT t, 'cecelia-run', 'host-a', true, true, '', %s, t"  # type: ignore[arg-type]  # two literals
            f" FROM generate_series(date_trunc('{unit}', %s::timestamptz) - %s::interval, %s, interval '1 {unit}') t",
            (count, now, long, now),
        )
        await tx._connection.execute(f"ANALYZE dispatch_{unit}_counts")  # type: ignore[arg-type]  # two literals


async def test_a_million_decisions_cost_no_more_than_their_minutes(database: PostgresDatabase, clock: FakeClock) -> None:
    async def count_rows_read(tx: Transaction) -> int:
        assert isinstance(tx, PostgresTransaction)
        # One plan for every edge is used at the sixth reading at the latest.
        for _ in range(10):
            await tx.window_rows(clock.now() - HOUR)
        before = await (await tx._connection.execute(READ)).fetchone()
        await tx.window_rows(clock.now() - HOUR)
        after = await (await tx._connection.execute(READ)).fetchone()
        assert before is not None
        assert after is not None
        return int(dict(after)["n"] - dict(before)["n"])

    await database.run(lambda tx: tx.ensure_partitions())
    await database.run(lambda tx: count_million_an_hour(tx, clock.now()))
    rows = await database.run(lambda tx: tx.window_rows(clock.now() - HOUR))
    assert sum(row.n for row in rows) > 990_000
    read = await database.run(count_rows_read)
    assert 60 < read <= 60 + 60 + 278, "the minutes, the seconds of one of them, one second's events"


async def plans_of_windows(database_url: str) -> dict[str, list[dict[str, Any]]]:
    """The nodes of the plans that the functions keep, each as its own settings have it made."""

    def nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
        return [node, *(found for child in node.get("Plans", ()) for found in nodes(child))]

    plans = {}
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        functions = await connection.execute("SELECT proname, prosrc, proconfig FROM pg_proc WHERE proname ~ '^dispatch_window'")
        for name, body, settings in await functions.fetchall():
            async with connection.transaction():
                for setting in settings or ():
                    await connection.execute("SELECT set_config(%s, %s, true)", setting.split("="))
                of_any_edge = re.sub(r"\bsince\b", "$1::timestamptz", body)
                (row,) = await (await connection.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {of_any_edge}")).fetchall()
            plans[name] = nodes(row[0][0]["Plan"])
    return plans


async def test_a_window_makes_room_for_its_groups_whatever_the_history(
    database: PostgresDatabase, database_url: str, clock: FakeClock
) -> None:
    async def groups() -> dict[str, list[float]]:
        plans = await plans_of_windows(database_url)
        return {name: [node["Plan Rows"] for node in plan if node["Node Type"] == "Aggregate"] for name, plan in plans.items()}

    await database.run(lambda tx: tx.ensure_partitions())
    await database.run(lambda tx: count_million_an_hour(tx, clock.now(), minutes_of=DAY))
    of_a_day = await groups()
    await database.run(lambda tx: count_million_an_hour(tx, clock.now(), seconds_of=DAY))
    assert of_a_day == await groups()
    assert all(of_a_day.values()), "each sums"


async def test_a_young_systems_window_is_not_sorted(database: PostgresDatabase, database_url: str, clock: FakeClock) -> None:
    await database.run(lambda tx: tx.ensure_partitions())
    await database.run(lambda tx: count_million_an_hour(tx, clock.now(), minutes_of=HOUR, seconds_of=HOUR))
    plans = await plans_of_windows(database_url)
    assert {node["Node Type"] for plan in plans.values() for node in plan} >= {"Aggregate", "Function Scan"}
    assert not [node for plan in plans.values() for node in plan if node["Node Type"] == "Sort"]


async def test_one_plan_is_kept_for_all_edges(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        reads = await connection.execute("SELECT proconfig FROM pg_proc WHERE prosrc ~ 'FROM dispatch_minute_counts'")
        ((settings,),) = await reads.fetchall()
    assert "plan_cache_mode=force_generic_plan" in settings


async def test_retention_drops_whole_days_of_decisions_and_events(database: PostgresDatabase, clock: FakeClock) -> None:
    async def write(tx: Transaction) -> None:
        tx.record(DispatchEvent(tx.now, True, "", "", True, "cecelia-run"))
        tx.emit(Event("task_submitted", tx.now, "test", {}))

    async def dead_rows(tx: Transaction) -> int:
        assert isinstance(tx, PostgresTransaction)
        await tx._connection.execute("SELECT pg_stat_force_next_flush()")
        cursor = await tx._connection.execute(
            "SELECT coalesce(sum(n_tup_del), 0) AS n FROM pg_stat_user_tables WHERE relname ~ 'events_[0-9]{8}$'"
        )
        row = await cursor.fetchone()
        assert row is not None
        return int(dict(row)["n"])

    for _ in range(4):
        await database.run(lambda tx: tx.ensure_partitions())
        await database.run(write)
        clock.advance(hours=24)
    assert await database.run(lambda tx: tx.purge(0, int(3 * DAY.total_seconds() * 1000), 0, 1_000)) > 0
    events = await database.run(lambda tx: tx.events_after(0, (), 100))
    decisions = await database.run(lambda tx: tx.dispatch_events(EventFilter(), None, 100))
    assert [e.id for e in events] == [2, 3, 4], "a day is dropped when all of it is old"
    assert [d.id for d in decisions] == [4, 3, 2]
    assert await database.run(dead_rows) == 0
    await database.run(write)
    assert [e.id for e in await database.run(lambda tx: tx.events_after(4, (), 100))] == [5]


async def test_a_large_purge_leaves_no_dead_rows(database_url: str) -> None:
    await fill_finished(database_url, 2 * BATCH)
    database = PostgresDatabase(database_url)
    await database.open()
    try:
        removed = await Maintenance(database, SystemClock(), DispatchRules(task_retention=3 * DAY)).once()
    finally:
        await database.close()
    assert removed >= BATCH
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        # Counted in the tables: what connections have told of their deletions may come late.
        await connection.execute("ANALYZE tasks, task_runs")
        found = await connection.execute(
            "SELECT relname, n_dead_tup FROM pg_stat_user_tables WHERE relname IN ('tasks', 'task_runs')"
        )
        assert sorted(await found.fetchall()) == [("task_runs", 0), ("tasks", 0)]


async def test_a_vacuum_that_finds_no_database_says_so() -> None:
    with pytest.raises(StorageUnavailable, match="deleted rows still take their room: OperationalError"):
        await PostgresDatabase("postgresql://nobody@127.0.0.1:1/none").vacuum()


async def test_the_audit_log_outlives_what_it_tells_of(database: PostgresDatabase, clock: FakeClock) -> None:
    rules = DispatchRules(task_retention=DAY, event_retention=DAY, audit_retention=3 * DAY)
    housekeeping = Maintenance(database, clock, rules)

    async def write(tx: Transaction) -> None:
        await tx.append_audit(AuditEntry(tx.now, "somebody", "SetDrain", "ci", "", ""))

    for _ in range(5):
        await database.run(write)
        clock.advance(hours=24)
    await housekeeping.once()
    kept = await database.run(lambda tx: tx.audit_entries(AuditFilter(), None, 10))
    assert [entry.id for entry in kept] == [5, 4, 3], "three days old to the second is not past it"


async def test_an_older_schemas_decisions_and_events_are_taken_over(empty_database_url: str) -> None:
    first = migrations()[0]
    async with await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as connection:
        await connection.execute(
            "CREATE TABLE schema_migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " checksum text NOT NULL, apply_time timestamptz NOT NULL DEFAULT now())"
        )
        await connection.execute(first.statement)
        values = (first.number, first.name, first.checksum)
        await connection.execute("INSERT INTO schema_migrations (number, name, checksum) VALUES (%s, %s, %s)", values)
        await connection.execute("SELECT ensure_dispatch_event_partitions(current_date - 2, current_date + 2)")
        await connection.execute(
            "INSERT INTO dispatch_events SELECT nextval('dispatch_events_id'), now() - n * interval '7 s', n %% 2 = 0, '', '', true,"
            " 'cecelia-run', NULL, NULL, 'host-a' FROM generate_series(1, 100) n".replace("%%", "%")
        )
        await connection.execute(
            "INSERT INTO events SELECT nextval('events_id'), 'task_submitted', now() - n * interval '5 h', 'test', '{}'"
            " FROM generate_series(30, 1, -1) n"
        )
    await migrate(empty_database_url)
    database = PostgresDatabase(empty_database_url, size=2)
    await database.open()
    try:
        rows = await database.run(lambda tx: tx.window_rows(tx.now - HOUR, by_executor=True))
        assert {(row.executor_id, row.success): row.n for row in rows} == {("host-a", True): 50, ("host-a", False): 50}
        assert [e.id for e in await database.run(lambda tx: tx.events_after(0, (), 100))] == list(range(1, 31))
        await database.run(lambda tx: tx.ensure_partitions())

        async def write(tx: Transaction) -> None:
            tx.emit(Event("task_submitted", tx.now, "test", {}))

        await database.run(write)
        assert await database.run(lambda tx: tx.newest_event_id()) == 31
    finally:
        await database.close()
