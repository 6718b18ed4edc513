"""Rows that no program of ours writes: what cannot be kept out of the table stops nobody but itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg import errors, sql

from scheduler_service.core.task import TaskStatus
from scheduler_service.storage.postgres import PostgresDatabase
from scheduler_service.transactions.editing import cancel_task
from scheduler_service.transactions.reading import explain
from tests.contract.conftest import Cluster, report
from tests.fakes.fake_clock import FakeClock

DEEP = '{"x": ' + "[" * 3_000 + "]" * 3_000 + "}"


@pytest.fixture
async def cluster(database_url: str) -> AsyncIterator[Cluster]:
    clock = FakeClock()
    database = PostgresDatabase(database_url, clock=clock.now)
    await database.open()
    made = Cluster(database, clock)
    await made.lead()
    yield made
    await made.check_events()
    await database.close()


async def spoil(url: str, task_id: object, column: str, value: object) -> None:
    """Writes by hand what a transition never would."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            sql.SQL("UPDATE tasks SET {} = %s WHERE id = %s").format(sql.Identifier(column)), (value, task_id)
        )


UNREADABLE = {"a payload too deep to decode": ("payload", DEEP), "a hold of another version": ("hold_reason", "new_in_v9")}
OUT_OF_BOUNDS = {
    "a title without end": ("title", "A long title" * 1_000),
    "a description larger than a message": ("description", "word " * 600_000),
    "a time-out that is none": ("timeout", "-1 hour"),
    "a time-out of years": ("timeout", "3 years"),
    "no tries at all": ("max_tries", -1),
    "a type that is no name": ("task_type", "; drop"),
}


@pytest.mark.parametrize("case", UNREADABLE)
async def test_a_row_that_cannot_be_read_is_put_aside_and_the_others_start(
    cluster: Cluster, database_url: str, case: str
) -> None:
    bad = await cluster.add("Spoilt by hand")
    good = await cluster.add("Behind the spoilt one")
    await spoil(database_url, bad.id, *UNREADABLE[case])
    cluster.executors = (report(seats=3),)
    said = await cluster.run(lambda tx: explain(tx, cluster.executors, cluster.rules, good.id))
    assert said.would_dispatch
    result = await cluster.tick()
    assert [order.task_id for order in result.orders] == [good.id]
    assert [(d.reason, d.task_id) for d in result.decisions] == [("pre_flight_check_failed", bad.id)]
    status, hold, error = await stored(database_url, bad.id)
    assert (status, hold) == ("quarantined", "unreadable")
    assert error
    assert (await cluster.events()).count("task_quarantined") == 1
    assert (await cluster.tick()).decisions == ()


@pytest.mark.parametrize("case", UNREADABLE)
async def test_a_dependent_that_cannot_be_read_does_not_keep_the_others_from_ending(
    cluster: Cluster, database_url: str, case: str
) -> None:
    head = await cluster.add("Head of the chain")
    bad, good = [await cluster.add(f"Depends on it {i}", depends_on=(head.id,)) for i in range(2)]
    await spoil(database_url, bad.id, *UNREADABLE[case])
    await cluster.run(lambda tx: cancel_task(tx, head.id, actor="me", reason="", request_id=""))
    assert (await cluster.task(good.id)).status is TaskStatus.FAILED


@pytest.mark.parametrize("case", OUT_OF_BOUNDS)
async def test_a_row_beyond_the_bounds_is_put_aside_and_the_others_start(cluster: Cluster, database_url: str, case: str) -> None:
    bad = await cluster.add("Spoilt by hand")
    good = await cluster.add("Behind the spoilt one")
    await spoil(database_url, bad.id, *OUT_OF_BOUNDS[case])
    cluster.executors = (report(seats=3),)
    assert [order.task_id for order in (await cluster.tick()).orders] == [good.id]
    found = await cluster.task(bad.id)
    assert (found.status, found.hold_reason) == (TaskStatus.QUARANTINED, "pre_flight_check_failed")
    assert OUT_OF_BOUNDS[case][0] in found.error


async def test_a_backend_that_nobody_knows_stops_no_other(cluster: Cluster, database_url: str) -> None:
    lost = await cluster.add("Of a plug-in that has gone")
    good = await cluster.add("Behind it")
    await spoil(database_url, lost.id, "backend", "no-such-backend")
    assert [order.task_id for order in (await cluster.tick()).orders] == [good.id]
    assert (await cluster.task(lost.id)).status is TaskStatus.QUEUED
    said = await cluster.run(lambda tx: explain(tx, cluster.executors, cluster.rules, lost.id))
    assert (said.would_dispatch, said.task_reason) == (False, "no_executor")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("payload", "[1]"),
        ("payload", "null"),
        ("not_before_time", "infinity"),
        ("rank_time", "-infinity"),
        ("create_time", "9999-12-31 23:59:59.5+00"),
        ("depends_on", [None]),
        ("fence", 2**63 - 1),
        ("dependency_policy", "hope"),
        ("priority", 3),
        ("status", "sleeping"),
    ],
)
async def test_what_no_program_could_read_back_is_refused_by_the_table(
    cluster: Cluster, database_url: str, column: str, value: object
) -> None:
    task = await cluster.add()
    with pytest.raises(errors.CheckViolation, match="tasks_"):
        await spoil(database_url, task.id, column, value)
    assert await cluster.task(task.id) == task


async def stored(url: str, task_id: object) -> tuple[str, str, str]:
    """Status, hold reason and error, as they are in the table."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute("SELECT status, hold_reason, error FROM tasks WHERE id = %s", (task_id,))
        row = await cursor.fetchone()
        assert row is not None
        return row[0], row[1], row[2]
