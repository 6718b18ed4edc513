"""Fairness and head of line, on both stores: nothing starves, and nothing that cannot start stands before what can."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from scheduler_service.core.limits import TaskSpec
from scheduler_service.core.task import Priority
from scheduler_service.transactions.overrides import set_billing_pause, trip_breaker
from scheduler_service.transactions.planning import TickKind
from tests.contract.conftest import CALLER, DESCRIPTION, Cluster, report

ONE_SLOT = (report(seats=3, max_runs=1),)


async def started(cluster: Cluster, kind: TickKind = TickKind.CLOCK) -> list[UUID]:
    return [order.task_id for order in (await cluster.tick(kind)).orders]


async def bad(cluster: Cluster, n: int, priority: Priority = Priority.P0) -> None:
    """Tasks that pre-flight refuses."""
    await cluster.submit(*(TaskSpec(title="x", description=DESCRIPTION, priority=priority) for _ in range(n)))


async def test_a_stream_of_the_highest_priority_does_not_starve_the_lowest(cluster: Cluster) -> None:
    cluster.executors = ONE_SLOT
    low = await cluster.add("Low and patient", priority=Priority.P2)
    hours = 0
    while True:
        await cluster.add(f"High of hour {hours}", priority=Priority.P0)
        await cluster.lead()
        (first,) = await started(cluster)
        await cluster.completed(first)
        if first == low.id:
            break
        hours += 1
        cluster.clock.advance(hours=1)
    assert hours == 4, "what was submitted more than four hours later goes behind"


async def test_among_equals_the_first_that_came_goes_first(cluster: Cluster) -> None:
    cluster.executors = ONE_SLOT
    tasks = await cluster.submit(*(TaskSpec(title=f"Of one batch {i}", description=DESCRIPTION) for i in range(3)))
    for task in tasks:
        assert await started(cluster) == [task.id]
        await cluster.completed(task.id)


async def test_a_full_backend_is_passed_over_however_many_wait_for_it(cluster: Cluster) -> None:
    cluster.executors = ONE_SLOT
    remote = [await cluster.add(f"Remote {i}", task_type="talk", priority=Priority.P0) for i in range(30)]
    assert await started(cluster) == [remote[0].id]
    local = await cluster.add("Local and last", priority=Priority.P2)
    assert await started(cluster) == [local.id]
    await cluster.completed(remote[0].id)
    assert await started(cluster) == [remote[1].id]


@pytest.mark.parametrize("hold", ["pause", "breaker", "no executor"])
async def test_a_backend_that_is_held_is_passed_over(cluster: Cluster, hold: str) -> None:
    cluster.executors = ONE_SLOT
    for i in range(10):
        await cluster.add(f"Remote {i}", task_type="talk", priority=Priority.P0)
    local = await cluster.add("Local and last", priority=Priority.P2)
    if hold == "pause":
        until = cluster.clock.now() + timedelta(hours=1)
        await cluster.run(lambda tx: set_billing_pause(tx, "hk-minimax", until, CALLER))
    elif hold == "breaker":
        await cluster.run(lambda tx: trip_breaker(tx, "hk-minimax", None, CALLER, cluster.executors, cluster.rules))
    else:
        own = cluster.executors[0]
        cluster.executors = (report(seats=3, backends=own.backends[:1]),)
    assert await started(cluster) == [local.id]


async def test_six_bad_candidates_never_stop_a_good_one(cluster: Cluster) -> None:
    cluster.executors = ONE_SLOT
    await bad(cluster, 6, Priority.P1)
    good = await cluster.add("Good and behind six", priority=Priority.P1)
    first = await cluster.tick()
    assert first.orders == ()
    assert first.hurry, "the loop ticks again at once"
    assert await started(cluster, TickKind.WOKEN) == [good.id]


@pytest.mark.parametrize("bad_ones", [1, 5])
async def test_the_highest_priority_never_waits_behind_what_is_skipped(cluster: Cluster, bad_ones: int) -> None:
    cluster.executors = ONE_SLOT
    await bad(cluster, bad_ones)
    high = await cluster.add("High and good", priority=Priority.P0)
    await cluster.add("Middling and good", priority=Priority.P1)
    assert await started(cluster) == [high.id], "in the very tick that puts the bad ones aside"


async def test_a_waiting_task_of_the_highest_priority_takes_no_turn_from_others(cluster: Cluster) -> None:
    cluster.executors = ONE_SLOT
    first = await cluster.add("First", priority=Priority.P0)
    await cluster.add("Depends on it", priority=Priority.P0, depends_on=(first.id,))
    await cluster.add("Not yet", priority=Priority.P0, not_before_time=cluster.clock.now() + timedelta(hours=1))
    assert await started(cluster) == [first.id]
    low = await cluster.add("Low and due", priority=Priority.P2)
    await cluster.failed_start(first.id)
    assert await started(cluster) == [low.id], "also one that waits out its back-off"
