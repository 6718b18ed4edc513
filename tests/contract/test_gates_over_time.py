"""Gates over time, on both stores: starts ramp up after each of them, and each is still there when another process leads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from scheduler_service.core.dispatch_checks import CheckSettings
from scheduler_service.core.reasons import Reason
from scheduler_service.transactions.overrides import (
    clear_billing_pause,
    set_billing_pause,
    set_budget_cap,
    set_drain,
    trip_breaker,
)
from scheduler_service.transactions.reading import read_status
from scheduler_service.transactions.ticking import TickKind, TickMemory
from tests.contract.conftest import CALLER, Cluster, report

Step = Callable[[Cluster], Awaitable[None]]


async def drain(cluster: Cluster) -> None:
    await cluster.run(lambda tx: set_drain(tx, True, "deploy", False, CALLER))


async def drain_off(cluster: Cluster) -> None:
    await cluster.run(lambda tx: set_drain(tx, False, "deploy", False, CALLER))


async def pause(cluster: Cluster) -> None:
    until = cluster.clock.now() + timedelta(minutes=2)
    await cluster.run(lambda tx: set_billing_pause(tx, "cecelia-run", until, CALLER))


async def pause_of_all(cluster: Cluster) -> None:
    until = cluster.clock.now() + timedelta(minutes=2)
    await cluster.run(lambda tx: set_billing_pause(tx, "", until, CALLER))


async def pause_cleared(cluster: Cluster) -> None:
    await cluster.run(lambda tx: clear_billing_pause(tx, "cecelia-run", CALLER))


async def pause_over(cluster: Cluster) -> None:
    cluster.clock.advance(minutes=2)
    await cluster.lead()


async def trip(cluster: Cluster) -> None:
    await cluster.run(lambda tx: trip_breaker(tx, "cecelia-run", timedelta(minutes=9), CALLER, cluster.executors, cluster.rules))


async def fail(cluster: Cluster, starts: int) -> None:
    for i in range(starts):
        task = await cluster.add(f"Cannot be started {i}")
        await cluster.tick(TickKind.WOKEN)
        await cluster.failed_start(task.id)


async def open_breaker(cluster: Cluster) -> None:
    await fail(cluster, 3)


async def probe_succeeds(cluster: Cluster) -> None:
    cluster.clock.advance(minutes=30)
    await cluster.lead()
    (order,) = (await cluster.tick(TickKind.WOKEN)).orders
    await cluster.started(order.task_id)
    cluster.clock.advance(seconds=1)


async def low_rate(cluster: Cluster) -> None:
    """Four failed starts, and the first single try spent."""
    breaker = replace(CheckSettings().breaker, failure_threshold=1_000)
    cluster.rules = replace(cluster.rules, checks=CheckSettings(min_sample=4, breaker=breaker))
    await fail(cluster, 4)
    spent = await cluster.add("The single try")
    assert [order.task_id for order in (await cluster.tick(TickKind.WOKEN)).orders] == [spent.id]


async def rate_rises(cluster: Cluster) -> None:
    """The single tries succeed until the rate is no longer low."""
    (lease,) = await cluster.run(lambda tx: tx.live_leases())
    await cluster.started((await cluster.run(lambda tx: tx.runs([lease.run_id])))[lease.run_id].task_id)
    cluster.clock.advance(seconds=60)
    await cluster.lead()
    (order,) = (await cluster.tick(TickKind.WOKEN)).orders
    await cluster.started(order.task_id)
    cluster.clock.advance(seconds=1)


@pytest.mark.parametrize(
    ("begin", "end", "first"),
    [
        (drain, drain_off, 1),
        (pause, pause_cleared, 1),
        (pause, pause_over, 1),
        (pause_of_all, pause_over, 1),
        # The probe, and the last single try, were the first step.
        (open_breaker, probe_succeeds, 2),
        (low_rate, rate_rises, 2),
    ],
)
async def test_starts_ramp_up_after_each_gate(cluster: Cluster, begin: Step, end: Step, first: int) -> None:
    cluster.executors = (report(seats=200),)
    await begin(cluster)
    for i in range(40):
        await cluster.add(f"Waits for the gate {i}")
    assert (await cluster.tick(TickKind.WOKEN)).orders == ()
    await end(cluster)
    counts = []
    for _ in range(3):
        counts.append(len((await cluster.tick(TickKind.WOKEN)).orders))
        cluster.clock.advance(seconds=1)
    assert counts == [first, 2 * first, 4 * first]


async def test_slots_that_come_free_do_not_ramp_up(cluster: Cluster) -> None:
    cluster.executors = (report(slots=0),)
    for i in range(9):
        await cluster.add(f"Waits for a slot {i}")
    assert (await cluster.tick(TickKind.WOKEN)).orders == ()
    cluster.executors = (report(),)
    assert len((await cluster.tick(TickKind.WOKEN)).orders) == 9


@pytest.mark.parametrize(
    ("begin", "reason"),
    [
        (drain, Reason.DRAINING),
        (pause, Reason.BILLING_PAUSE),
        (pause_of_all, Reason.BILLING_PAUSE),
        (trip, Reason.CIRCUIT_BREAKER_OPEN),
        (open_breaker, Reason.CIRCUIT_BREAKER_OPEN),
        (low_rate, Reason.LOW_SUCCESS_RATE),
    ],
)
async def test_each_gate_is_still_there_when_another_process_leads(cluster: Cluster, begin: Step, reason: Reason) -> None:
    await begin(cluster)
    await cluster.add("Waits for the gate")
    cluster.clock.advance(seconds=5)
    cluster.holder, cluster.memory = uuid4(), TickMemory(new_leader=True)
    await cluster.lead()
    result = await cluster.tick()
    assert result.orders == ()
    assert {verdict.reason for verdict in result.verdicts if verdict.holds} == {reason}


async def test_a_cap_and_who_set_what_are_still_there_when_another_process_leads(cluster: Cluster) -> None:
    await drain(cluster)
    await pause(cluster)
    await trip(cluster)
    await cluster.run(lambda tx: set_budget_cap(tx, 2, CALLER))
    cluster.clock.advance(seconds=5)
    cluster.holder, cluster.memory = uuid4(), TickMemory(new_leader=True)
    await cluster.lead()
    view = await cluster.run(lambda tx: read_status(tx, cluster.executors, cluster.rules))
    assert [(one.source, one.actor, one.reason) for one in view.drains] == [("deploy", "tester", "because")]
    assert [(one.backend, one.actor, one.reason) for one in view.billing_pauses] == [("cecelia-run", "tester", "because")]
    assert (view.slots.cap.slots, view.slots.cap.actor) == (2, "tester")
    assert view.tripped_by == {"cecelia-run@host-a": "tester"}


async def test_a_shorter_pause_changes_neither_the_end_nor_who_gave_it_and_only_a_clear_shortens_it(cluster: Cluster) -> None:
    await pause(cluster)
    (before,) = await cluster.run(lambda tx: tx.billing_pauses())
    shorter = cluster.clock.now() + timedelta(minutes=1)
    other = replace(CALLER, actor="another", reason="shorter")
    assert await cluster.run(lambda tx: set_billing_pause(tx, "cecelia-run", shorter, other)) == before
    longer = cluster.clock.now() + timedelta(minutes=3)
    after = await cluster.run(lambda tx: set_billing_pause(tx, "cecelia-run", longer, other))
    assert (after.until_time, after.actor, after.since_time) == (longer, "another", before.since_time)
    await pause_cleared(cluster)
    again = await cluster.run(lambda tx: set_billing_pause(tx, "cecelia-run", shorter, other))
    assert again.until_time == shorter


async def test_a_read_ends_no_drain(cluster: Cluster) -> None:
    await cluster.run(lambda tx: set_drain(tx, True, "deploy", True, CALLER))
    for _ in range(2):
        view = await cluster.run(lambda tx: read_status(tx, cluster.executors, cluster.rules))
        assert [one.source for one in view.drains] == ["deploy"]
    await cluster.tick()
    assert await cluster.run(lambda tx: tx.drains()) == []
