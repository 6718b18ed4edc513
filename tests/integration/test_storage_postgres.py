"""PostgreSQL for real: migrations, named statements, parallel claims, outages."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from msgspec.structs import replace
from psycopg.pq import PipelineStatus, TransactionStatus

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.events import EventType
from scheduler_service.core.limits import TaskSpec
from scheduler_service.core.outcome_window import Window
from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.routing import DEFAULT_ROUTES
from scheduler_service.core.run import Run
from scheduler_service.core.task import Task, claim
from scheduler_service.errors import StorageUnavailable
from scheduler_service.storage import postgres, query_files, transaction
from scheduler_service.storage.migrate import MigrationError, migrate
from scheduler_service.storage.postgres import PostgresDatabase
from scheduler_service.storage.rows import EDITED_TASK, MOVED_RUN, MOVED_TASK, NEW_RUN, task_of
from scheduler_service.storage.statements import NotCommitted
from scheduler_service.storage.transaction import PostgresTransaction
from scheduler_service.transactions import submitting
from scheduler_service.transactions.consequences import tell
from scheduler_service.transactions.editing import cancel_task
from scheduler_service.transactions.gathering import GATE_PARTS
from scheduler_service.transactions.leading import acquire_or_renew
from scheduler_service.transactions.leases import require_leadership
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.reading import read_stats
from scheduler_service.transactions.stored import DispatchEvent, Event, ExecutorRow, Leadership, Lock, Part
from scheduler_service.transactions.submitting import submit
from tests.contract.conftest import DESCRIPTION


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[PostgresDatabase]:
    made = PostgresDatabase(database_url, size=4)
    await made.open()
    yield made
    await made.close()


async def test_eight_replicas_migrate_at_once_and_one_does_it(empty_database_url: str) -> None:
    results = await asyncio.gather(*(migrate(empty_database_url) for _ in range(8)))
    assert sorted(len(result) for result in results)[:7] == [0] * 7
    assert sum(len(result) for result in results) >= 1
    assert await migrate(empty_database_url) == []


async def test_another_schema_is_refused(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    async with await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as connection:
        await connection.execute("UPDATE schema_migrations SET checksum = 'other'")
        with pytest.raises(MigrationError, match="other contents"):
            await migrate(empty_database_url)
        await connection.execute("INSERT INTO schema_migrations (number, name, checksum) VALUES (9999, 'future', 'x')")
        with pytest.raises(MigrationError, match="newer"):
            await migrate(empty_database_url)


def test_every_named_statement_is_used_and_every_used_name_exists() -> None:
    source = "".join(module.read_text() for module in Path(query_files.__file__).parent.glob("*.py"))
    used = set(
        re.findall(r"(?:_all|_one|_count|_write|_rows|_tasks|_values|_time)\((?:connection,)?\s*\"([a-z_]+)\"", source)
    ) | set(re.findall(r"_queries\[\"([a-z_]+)\"\]", source))
    used |= {f"part_{part}" for part in Part}
    used |= {"get_leader", "get_leader_for_key_share", "get_leader_for_no_key_update", "get_leader_for_update"}
    used |= {"get_breakers", "get_breakers_for_update", "get_tasks", "get_tasks_for_share", "get_tasks_for_update"}
    used |= {"due_tasks", "due_tasks_for_update", "due_task_ids", "due_task_ids_for_update", "get_tasks"}
    assert used == set(query_files.load())


def test_no_statement_is_so_long_that_psycopg_takes_it_apart_each_time() -> None:
    from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH

    queries = query_files.load()
    standing = "".join(queries[f"part_{part}"] for part in (*GATE_PARTS, Part.QUEUED_BACKENDS))
    assert [text for text in [*queries.values(), standing] if len(text) > MAX_CACHED_STATEMENT_LENGTH - 300] == []


async def test_columns_stand_in_the_order_of_the_fields_that_are_made_of_them(database_url: str) -> None:
    orders = {
        "get_tasks": Task,
        "get_tasks_for_share": Task,
        "get_tasks_for_update": Task,
        "get_tasks_to_move": Task,
        "due_tasks": Task,
        "due_tasks_for_update": Task,
        "list_tasks": Task,
        "get_runs": Run,
        "live_runs": Run,
        "runs_of_task": Run,
    }
    given = {"ids": "{}", "run_ids": "{}", "task_id": uuid4(), "executor_id": "", "backend": "", "limit": 1, "skip": "{}"}
    given |= dict.fromkeys(("before_seq", "statuses", "task_types", "priorities"))
    queries = query_files.load()
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        for name, of in orders.items():
            cursor = await connection.execute(queries[name], {**given, "unfailed_only": False, "now": datetime.now(UTC)})
            assert cursor.description is not None
            numbered = ("seq",) if name == "list_tasks" else ()
            assert tuple(column.name for column in cursor.description) == (*numbered, *of.__struct_fields__), name


def test_every_column_of_a_row_is_written_by_some_statement() -> None:
    submitted = {"task_type", "depends_on", "max_tries", "timeout", "backend", "create_time", "dependency_policy"}
    assert {*MOVED_TASK.columns, *EDITED_TASK.columns, *submitted} == set(Task.__struct_fields__)
    assert {*MOVED_RUN.columns, *NEW_RUN.columns} == set(Run.__struct_fields__)


async def test_what_is_usual_again_is_written_too(database: PostgresDatabase) -> None:
    (task,) = await database.run(
        lambda tx: submit(tx, [TaskSpec(title="A good title", description=DESCRIPTION)], DEFAULT_ROUTES, uuid4)
    )
    at = datetime(2026, 1, 1, tzinfo=UTC)
    unusual = replace(
        task,
        hold_reason=HoldReason.BACKOFF, run_id=uuid4(), tries=2, start_failures=1, last_start_failure_time=at, backoff_count=3,
        executor_id="host-a", exit_code=1, result="some", error="wrong", cancel_requested=True, blocked_by=1, start_time=at,
        end_time=at, next_attempt_time=at,
    )  # fmt: skip
    for written in (unusual, task):
        await database.run(lambda tx, it=written: tx.save_tasks([it]))  # type: ignore[misc]  # mypy infers no lambda with defaults
        assert (await database.run(lambda tx: tx.tasks([task.id])))[task.id] == written


async def test_parallel_claimers_never_take_the_same_task(database: PostgresDatabase) -> None:
    specs = [TaskSpec(title=f"Task number {i}", description=DESCRIPTION) for i in range(60)]
    await database.run(lambda tx: submit(tx, specs, DEFAULT_ROUTES, uuid4))
    taken: list[object] = []

    async def claimer() -> None:
        while True:

            async def take(tx: Transaction) -> list[object]:
                found = (await tx.due_tasks("cecelia-run", 3)).tasks
                await tx.save_tasks([claim(task, uuid4(), "host", tx.now) for task in found])
                return [task.id for task in found]

            mine = await database.run(take)
            if not mine:
                return
            taken.extend(mine)

    await asyncio.gather(*(claimer() for _ in range(8)))
    assert len(taken) == len(set(taken)) == 60


async def test_who_only_looks_is_not_shown_what_is_claimed_meanwhile(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a row cannot be read, the others are read one by one, and later than their ids."""
    specs = [TaskSpec(title=f"Task number {i}", description=DESCRIPTION) for i in range(3)]
    _, *others = await database.run(lambda tx: submit(tx, specs, DEFAULT_ROUTES, uuid4))
    read = PostgresTransaction._readable

    def unreadable(values: Sequence[Any]) -> Task:
        monkeypatch.setattr(transaction, "task_of", task_of)
        raise ValueError("as one row would make it")

    async def claim_first(tx: Transaction) -> None:
        await tx.save_tasks([claim(task, uuid4(), "host", tx.now) for task in (await tx.due_tasks("cecelia-run", 1)).tasks])

    async def read_late(tx: PostgresTransaction, *words: Any) -> Any:
        monkeypatch.setattr(PostgresTransaction, "_readable", read)
        await database.run(claim_first)
        return await read(tx, *words)

    monkeypatch.setattr(transaction, "task_of", unreadable)
    monkeypatch.setattr(PostgresTransaction, "_readable", read_late)
    found = await database.run(lambda tx: tx.due_tasks("cecelia-run", 3, lock=Lock.NONE), read_only=True)
    assert [task.id for task in found.tasks] == [task.id for task in others]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
async def test_the_view_counts_as_the_rpc_does(database: PostgresDatabase, share: float) -> None:
    await database.run(lambda tx: tx.ensure_partitions())
    chance = random.Random(7)

    async def write(tx: Transaction) -> None:
        for _ in range(300):
            age = timedelta(seconds=chance.choice([0.0, 1.5, 1800.0, 3599.0, 3599.9, 3600.5, 7200.0]))
            success = chance.random() < share
            reason = "" if success else chance.choice(["executor_failed", "pool_c_full", ""])
            tx.record(DispatchEvent(tx.now - age, success, reason, "", reason == "executor_failed", "cecelia-run"))

    await database.run(write)

    # Both at one instant, so that nothing leaves the window between them.
    async def ask(tx: Transaction) -> tuple[Window, dict[str, Any]]:
        assert isinstance(tx, PostgresTransaction)
        cursor = await tx._connection.execute("SELECT value_json FROM working_memory WHERE key = 'dispatch_stats'")
        row = await cursor.fetchone()
        assert row is not None
        return (await read_stats(tx, DispatchRules())).window_1h, dict(row)["value_json"]

    stats, value = await database.run(ask)
    shown = value["window_1h"]
    assert (shown["total"], shown["success"], shown["failed"]) == (stats.total, stats.success, stats.failed)
    assert shown["rate"] == stats.rate
    assert shown["failure_reasons"] == dict(stats.failure_reasons)
    times = [event["ts"] for event in value["events"]]
    assert times == sorted(times)
    assert len(times) == stats.total
    assert all(("reason" in event) is (not event["success"] and event.get("reason", "") != "") for event in value["events"])


async def test_the_pool_survives_a_storm_of_cancelled_waiters(database: PostgresDatabase) -> None:
    async def ask(tx: Transaction) -> None:
        await tx.leadership()

    for _ in range(10):
        calls = [asyncio.ensure_future(database.run(ask)) for _ in range(40)]
        await asyncio.sleep(0.002)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    async with asyncio.timeout(10):
        await asyncio.gather(*(database.run(ask) for _ in range(40)))


async def test_a_failing_script_leaves_nothing_behind(database: PostgresDatabase) -> None:
    async def broken(tx: Transaction) -> None:
        await submit(tx, [TaskSpec(title="Half done", description=DESCRIPTION)], DEFAULT_ROUTES, uuid4)
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        await database.run(broken)
    assert await database.run(lambda tx: tx.count_waiting()) == 0


async def connections_of(database: PostgresDatabase) -> list[psycopg.AsyncConnection[dict[str, Any]]]:
    """Every connection of the pool, each once."""
    seen: list[psycopg.AsyncConnection[dict[str, Any]]] = []
    all_there = asyncio.Barrier(4)

    async def borrow(tx: Transaction) -> None:
        assert isinstance(tx, PostgresTransaction)
        seen.append(tx._connection)
        await all_there.wait()

    async with asyncio.timeout(10):
        await asyncio.gather(*(database.run(borrow) for _ in range(4)))
    return seen


async def test_a_script_is_written_whole_or_not_at_all_however_it_is_broken_off(database: PostgresDatabase) -> None:
    chance = random.Random(7)

    async def add_two(tx: Transaction) -> None:
        # psycopg gives way to others before it begins to write only where the loop has been busy.
        until = time.perf_counter() + chance.choice((0, 0.006))
        while time.perf_counter() < until:
            pass
        for _ in range(2):
            await submit(tx, [TaskSpec(title="One of two", description=DESCRIPTION)], DEFAULT_ROUTES, uuid4)

    for _ in range(15):
        calls = [asyncio.ensure_future(database.run(add_two)) for _ in range(12)]
        for call in calls:
            await asyncio.sleep(chance.uniform(0, 0.004))
            call.cancel()
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError | StorageUnavailable), outcome
    connections = await connections_of(database)
    assert len(set(connections)) == 4
    assert {connection.pgconn.pipeline_status for connection in connections} == {PipelineStatus.OFF}
    async with asyncio.timeout(10):
        await database.run(add_two)
        waiting = await database.run(lambda tx: tx.count_waiting())
    assert waiting >= 2
    assert waiting % 2 == 0


async def test_a_connection_that_was_left_sending_ahead_is_closed(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled_as_it_is_switched_on(self: psycopg.AsyncPipeline) -> psycopg.AsyncPipeline:
        self.pgconn.enter_pipeline_mode()
        self.level += 1
        raise asyncio.CancelledError

    found: list[psycopg.AsyncConnection[dict[str, Any]]] = []

    async def write(tx: Transaction) -> None:
        assert isinstance(tx, PostgresTransaction)
        found.append(tx._connection)
        await tx.add_breakers(["x"])

    with monkeypatch.context() as patched:
        patched.setattr(psycopg.AsyncPipeline, "__aenter__", cancelled_as_it_is_switched_on)
        with pytest.raises(asyncio.CancelledError):
            await database.run(write)
    assert found[0].closed
    await database.run(write)


@pytest.mark.parametrize("first_that_ends_transactions", [0, 999_999])
async def test_a_process_that_is_stopped_while_it_writes_holds_its_locks_for_seconds_only(
    database_url: str, monkeypatch: pytest.MonkeyPatch, first_that_ends_transactions: int
) -> None:
    monkeypatch.setattr(postgres, "_TRANSACTION_TIMEOUT_FROM", first_that_ends_transactions)
    database = PostgresDatabase(database_url, size=1, deadline_s=1.0)
    await database.open()

    async def write_and_stop(tx: Transaction) -> None:
        await tx.save_leadership(Leadership(None, "", 0, None))
        # Nothing of this process runs until the other has the row, as if it were stopped.
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("SET lock_timeout = '4s'")
            other.execute("SELECT 1 FROM leader FOR UPDATE")

    try:
        with pytest.raises(StorageUnavailable):
            await database.run(write_and_stop)
        assert (await database.run(lambda tx: tx.leadership())).term == 0
    finally:
        await database.close()


async def test_a_commit_that_the_server_has_taken_back_is_none(database: PostgresDatabase) -> None:
    async def pass_over_an_error(tx: Transaction) -> None:
        assert isinstance(tx, PostgresTransaction)
        with contextlib.suppress(psycopg.DataError):
            await tx._connection.execute("SELECT 1 / 0")

    with pytest.raises(NotCommitted, match="answered with ROLLBACK"):
        await database.run(pass_over_an_error)


async def test_an_error_of_what_waited_is_told_and_what_came_behind_it_is_not_done(database: PostgresDatabase) -> None:
    async def twice(tx: Transaction) -> None:
        tasks = await submit(tx, [TaskSpec(title="One of two", description=DESCRIPTION)], DEFAULT_ROUTES, uuid4)
        await tx.add_tasks(tasks)
        tell(tx, EventType.TASK_COMPLETED, {})

    with pytest.raises(StorageUnavailable, match="in the way 6 times: 23505"):
        await database.run(twice)
    assert await database.run(lambda tx: tx.count_waiting()) == 0
    assert await database.run(lambda tx: tx.newest_event_id()) == 0


async def test_what_was_written_is_seen_by_the_next_reading(database: PostgresDatabase) -> None:
    async def write_and_look(tx: Transaction) -> int:
        await submit(tx, [TaskSpec(title="One of two", description=DESCRIPTION)], DEFAULT_ROUTES, uuid4)
        return await tx.count_waiting()

    assert await database.run(write_and_look) == 1


async def test_a_reading_that_begins_with_a_standing_has_its_time(database_url: str) -> None:
    database = PostgresDatabase(database_url, size=1)
    await database.open()

    async def too_early(tx: Transaction) -> datetime:
        return tx.now

    async def after_standing(tx: Transaction) -> datetime:
        await tx.standing((Part.WINDOW,), timedelta(hours=1))
        return tx.now

    try:
        now = await database.run(after_standing, read_only=True, begins_with_standing=True)
        assert abs(now - datetime.now(UTC)) < timedelta(minutes=1)
        with pytest.raises(RuntimeError, match="before the standing has been read"):
            await database.run(too_early, read_only=True, begins_with_standing=True)
        with pytest.raises(RuntimeError, match="before the standing has been read"):
            await database.run(lambda tx: tx.due_tasks("x", 1, lock=Lock.NONE), read_only=True, begins_with_standing=True)
    finally:
        await database.close()


async def test_the_queue_is_counted_only_when_it_might_be_full(
    database: PostgresDatabase, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def census() -> tuple[int, int]:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            row = await (await connection.execute("SELECT open_tasks, seq FROM queue_census")).fetchone()
            assert row is not None
            return row[0], row[1]

    async def add(count: int) -> list[Task]:
        specs = [TaskSpec(title=f"Task number {i}", description=DESCRIPTION) for i in range(count)]
        return await database.run(lambda tx: submit(tx, specs, DEFAULT_ROUTES, uuid4))

    monkeypatch.setattr(submitting, "QUEUE_MAX_TASKS", 10)
    first = await add(6)
    assert await census() == (0, 0)
    for task in first:
        await database.run(lambda tx, id_=task.id: cancel_task(tx, id_, actor="me", reason="", request_id=""))
    await add(4)
    assert await census() == (0, 0)
    # Ten have come, four of them wait: the eleventh must be let in, and the count serves those after it too.
    await add(1)
    assert await census() == (4, 10)
    await add(5)
    assert await census() == (4, 10)
    assert await database.run(lambda tx: tx.waiting_at_most()) == await database.run(lambda tx: tx.count_waiting()) == 10


@pytest.mark.parametrize(("read_only", "status"), [(True, TransactionStatus.IDLE), (False, TransactionStatus.INTRANS)])
async def test_reading_costs_no_begin_and_commit(database: PostgresDatabase, read_only: bool, status: TransactionStatus) -> None:
    async def look(tx: Transaction) -> TransactionStatus:
        assert isinstance(tx, PostgresTransaction)
        await tx.leadership()
        return tx._connection.info.transaction_status

    assert await database.run(look, read_only=read_only) is status


@pytest.mark.parametrize(
    "error", [psycopg.OperationalError("the connection is closed"), psycopg.errors.LockNotAvailable("lock"), None]
)
async def test_a_cancellation_is_not_lost_to_what_meets_it(database: PostgresDatabase, error: psycopg.Error | None) -> None:
    begun = asyncio.Event()

    async def work(tx: Transaction) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # As psycopg does when the server's lock time-out comes before its own request to cancel; and as asyncio.wait_for of
            # Python 3.11 does, on which psycopg waits, when what it waits for comes in the same turn of the loop.
            if error is not None:
                raise error from None

    running = asyncio.create_task(database.run(work))
    async with asyncio.timeout(10):
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_renewal_does_not_wait_for_a_tick_and_a_change_of_holder_does(database: PostgresDatabase) -> None:
    holder, other, lease = uuid4(), uuid4(), timedelta(seconds=0.2)
    term = (await database.run(lambda tx: acquire_or_renew(tx, holder, "here", lease))).term
    held, committed = asyncio.Event(), asyncio.Event()

    async def tick(tx: Transaction) -> None:
        await require_leadership(tx, holder, term)
        held.set()
        await committed.wait()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        ticking = group.create_task(database.run(tick))
        await held.wait()
        renewed = await database.run(lambda tx: acquire_or_renew(tx, holder, "here", lease))
        assert (renewed.holder, renewed.term) == (holder, term)
        taking_over = group.create_task(_taken_over(database, other, lease))
        # Longer than the lease: only the lock keeps the other away.
        done, _ = await asyncio.wait([taking_over], timeout=3 * lease.total_seconds())
        assert not done
        committed.set()
        assert await taking_over == term + 1
        await ticking


async def test_who_has_waited_for_the_lease_does_not_take_it_from_whom_was_faster(database: PostgresDatabase) -> None:
    first, waiting, faster, lease = uuid4(), uuid4(), uuid4(), timedelta(seconds=0.2)
    term = (await database.run(lambda tx: acquire_or_renew(tx, first, "here", lease))).term
    begun = asyncio.Event()

    async def take_late(tx: Transaction) -> UUID | None:
        """Its time is that of a moment at which the first one's lease is over, and the next one's not yet begun."""
        seen = await tx.leadership()
        read = tx.leadership

        async def leadership(lock: Lock = Lock.NONE) -> Leadership:
            if lock is Lock.NONE:
                begun.set()
                return seen
            await taken.wait()
            return await read(lock)

        tx.leadership = leadership  # type: ignore[method-assign]
        return (await acquire_or_renew(tx, waiting, "there", lease)).holder

    taken = asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        while (await database.run(lambda tx: _over(tx))) is False:
            await asyncio.sleep(0.01)
        late = group.create_task(database.run(take_late))
        await begun.wait()
        # Its lease ends later than two of ours from when the late one began, which alone would look like a clock that went back.
        assert (await database.run(lambda tx: acquire_or_renew(tx, faster, "there", 10 * lease))).holder == faster
        taken.set()
        assert await late == faster
    assert (await database.run(lambda tx: tx.leadership())).term == term + 1


async def _over(tx: Transaction) -> bool:
    until = (await tx.leadership()).lease_until
    return until is not None and until < tx.now


async def _taken_over(database: PostgresDatabase, holder: UUID, lease: timedelta) -> int:
    while True:
        leader = await database.run(lambda tx: acquire_or_renew(tx, holder, "there", lease))
        if leader.holder == holder:
            return leader.term
        await asyncio.sleep(0.01)


async def test_no_database_is_storage_unavailable_and_soon() -> None:
    database = PostgresDatabase("postgresql://nobody@127.0.0.1:9/none", deadline_s=0.5)
    await database.open()

    async def ask(tx: Transaction) -> None:
        await tx.leadership()

    async with asyncio.timeout(10):
        with pytest.raises(StorageUnavailable):
            await database.run(ask)
    await database.close()


async def test_event_ids_become_visible_in_their_order(database: PostgresDatabase) -> None:
    seen: list[int] = []
    done = asyncio.Event()

    async def writer(n: int) -> None:
        for _ in range(10):

            async def write(tx: Transaction) -> None:
                await tx.drains()
                for _ in range(n):
                    tx.emit(Event("task_dispatched", tx.now, "test", {}))

            await database.run(write)

    async def reader() -> None:
        last = 0
        while True:
            finished = done.is_set()
            events = await database.run(lambda tx, last=last: tx.events_after(last, (), 1_000), read_only=True)
            seen.extend(event.id for event in events)
            last = seen[-1] if seen else 0
            if finished and not events:
                return

    reading = asyncio.ensure_future(reader())
    await asyncio.gather(*(writer(n) for n in (1, 2, 3)))
    done.set()
    await reading
    assert len(seen) == 60, "a reader that goes on after the last id misses none"
    assert seen == sorted(set(seen))


async def test_the_view_of_an_empty_window_has_no_rate(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        row = await (await connection.execute("SELECT value_json FROM working_memory WHERE key = 'dispatch_stats'")).fetchone()
    assert row is not None
    empty = {"total": 0, "success": 0, "failed": 0, "rate": None, "last_updated": None, "failure_reasons": {}}
    assert row[0] == {"window_1h": empty, "events": []}


async def test_a_decision_on_a_day_without_a_partition_makes_one(database: PostgresDatabase, database_url: str) -> None:
    far = datetime.now(UTC) + timedelta(days=90)
    ahead = PostgresDatabase(database_url, clock=lambda: far)
    await ahead.open()

    async def record(tx: Transaction) -> None:
        tx.record(DispatchEvent(tx.now, True, "", "", True, "cecelia-run"))

    try:
        await ahead.run(record)
        rows = await ahead.run(lambda tx: tx.window_rows(far - timedelta(hours=1)))
    finally:
        await ahead.close()
    assert sum(row.n for row in rows) == 1


async def test_a_partition_that_cannot_be_made_now_is_an_outage_and_no_broken_call(database_url: str) -> None:
    far = datetime.now(UTC) + timedelta(days=90)
    ahead = PostgresDatabase(database_url, clock=lambda: far, deadline_s=5)
    await ahead.open()

    async def record(tx: Transaction) -> None:
        tx.record(DispatchEvent(tx.now, True, "", "", True, "cecelia-run"))

    try:
        async with await psycopg.AsyncConnection.connect(database_url) as reader:
            # Its transaction stays open, and with it a lock that a new partition cannot pass.
            await reader.execute("SET idle_in_transaction_session_timeout = 0")
            await reader.execute("SELECT 1 FROM dispatch_events LIMIT 1")
            with pytest.raises(StorageUnavailable):
                await ahead.run(record)
        await ahead.run(record)
    finally:
        await ahead.close()


async def test_partitions_made_by_many_at_once_are_made_once(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    far = datetime.now(UTC) + timedelta(days=90)
    databases = [PostgresDatabase(empty_database_url, clock=lambda: far) for _ in range(5)]
    for one in databases:
        await one.open()
    try:
        await asyncio.gather(*(one.run(lambda tx: tx.ensure_partitions()) for one in databases))
    finally:
        for one in databases:
            await one.close()


async def test_a_demoted_primary_is_an_outage(database: PostgresDatabase, database_url: str) -> None:
    async def write(tx: Transaction) -> None:
        await tx.add_breakers(["any"])

    await database.run(write)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
        await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(StorageUnavailable):
        await database.run(write)


async def test_forgetting_an_executor_leaves_those_of_like_names_alone(database: PostgresDatabase) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=30)
    now = datetime.now(UTC)

    async def prepare(tx: Transaction) -> None:
        await tx.add_breakers(["cecelia-run@gpu_1", "cecelia-run@gpu-1", "cecelia-run@1", "hk-minimax"])
        for name, heard in (("gpu_1", long_ago), ("gpu-1", now), ("1", now)):
            await tx.save_executor(ExecutorRow(name, "t", "b", {}, heard))

    await database.run(prepare)
    await database.run(lambda tx: tx.purge(1, 1, 1, 10))
    assert len(await database.run(lambda tx: tx.breakers())) == 4, "an ordinary round forgets no executor"
    await database.run(lambda tx: tx.purge_executors())
    assert set(await database.run(lambda tx: tx.breakers())) == {"cecelia-run@gpu-1", "cecelia-run@1", "hk-minimax"}
    assert [row.executor_id for row in await database.run(lambda tx: tx.executors())] == ["1", "gpu-1"]
