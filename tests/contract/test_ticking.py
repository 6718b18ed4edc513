"""What a tick claims, holds and records, on both stores."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from scheduler_service.core.breaker import BreakerState
from scheduler_service.core.dispatch_checks import CheckSettings, GuardMode
from scheduler_service.core.limits import TaskSpec
from scheduler_service.core.task import Priority, TaskStatus
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict
from scheduler_service.errors import NotLeader
from scheduler_service.transactions.overrides import (
    DRAINS_MAX,
    clear_billing_pause,
    reset_breaker,
    set_billing_pause,
    set_budget_cap,
    set_drain,
    trip_breaker,
)
from scheduler_service.transactions.planning import TickKind, TickMemory
from scheduler_service.transactions.reading import explain, read_stats
from scheduler_service.transactions.stored import Part
from service_runtime.errors import ResourceExhausted
from tests.contract.conftest import CALLER, DESCRIPTION, Cluster, report


async def test_claims_go_by_rank_and_give_each_claim_a_run_and_a_fence(cluster: Cluster) -> None:
    low = await cluster.add("Low priority", priority=Priority.P2)
    high = await cluster.add("High priority", priority=Priority.P0)
    middle = await cluster.add("Middle priority")
    result = await cluster.tick()
    assert [order.task_id for order in result.orders] == [high.id, middle.id, low.id]
    task = await cluster.task(high.id)
    assert (task.status, task.fence, task.executor_id) == (TaskStatus.DISPATCHING, 1, "host-a")
    assert task.run_id == result.orders[0].run_id
    assert (await cluster.run_of(high.id)).fence == 1
    assert (await cluster.tick()).orders == ()


async def test_age_gains_on_priority(cluster: Cluster) -> None:
    old = await cluster.add("Old and low", priority=Priority.P2)
    cluster.clock.advance(hours=5)
    await cluster.lead()
    await cluster.add("Young and middling", priority=Priority.P1)
    cluster.executors = (report(seats=3),)
    assert [order.task_id for order in (await cluster.tick()).orders] == [old.id]


async def test_what_is_not_due_is_not_claimed(cluster: Cluster) -> None:
    later = await cluster.add(not_before_time=cluster.clock.now() + timedelta(seconds=30))
    assert (await cluster.tick()).orders == ()
    cluster.clock.advance(seconds=31)
    assert [order.task_id for order in (await cluster.tick()).orders] == [later.id]


async def test_bad_candidates_never_block_a_good_one(cluster: Cluster) -> None:
    bad = [await cluster.add("x") for _ in range(5)]
    good = await cluster.add("A good one behind five bad ones")
    cluster.executors = (report(seats=3),)
    result = await cluster.tick()
    assert [order.task_id for order in result.orders] == [good.id]
    assert [(await cluster.task(t.id)).status for t in bad] == ["quarantined"] * 5
    assert (await cluster.task(bad[0].id)).hold_reason == "pre_flight_check_failed"
    assert [d.reason for d in result.decisions] == ["pre_flight_check_failed"] * 5
    assert await cluster.decisions() == [(False, "pre_flight_check_failed", "cecelia-run")] * 5


async def test_slots_bound_local_starts_and_max_runs_bounds_remote_ones(cluster: Cluster) -> None:
    for i in range(5):
        await cluster.add(f"Local task {i}")
        await cluster.add(f"Remote task {i}", task_type="talk")
    cluster.executors = (report(seats=5, max_runs=2),)  # 5 seats less the reserve of 2
    orders = (await cluster.tick()).orders
    assert sorted(order.backend for order in orders) == ["cecelia-run"] * 3 + ["hk-minimax"] * 2
    assert (await cluster.tick()).orders == ()
    assert [d for d in await cluster.decisions() if d[1]] == [
        (False, "pool_c_full", "cecelia-run"),
        (False, "pool_c_full", "hk-minimax"),
    ]


async def test_a_start_goes_where_there_is_most_room(cluster: Cluster) -> None:
    cluster.executors = (report("host-a", seats=4), report("host-b", seats=10))
    await cluster.lead()
    for i in range(6):
        await cluster.add(f"Task number {i}")
    orders = (await cluster.tick()).orders
    assert [o.executor_id for o in orders].count("host-b") == 6
    for i in range(4):
        await cluster.add(f"More of them {i}")
    assert sorted(o.executor_id for o in (await cluster.tick()).orders) == ["host-a", "host-a", "host-b", "host-b"]


async def test_a_hold_is_recorded_once_a_clock_tick_and_not_when_a_woken_tick_repeats_it(cluster: Cluster) -> None:
    await cluster.run(lambda tx: set_drain(tx, True, "operator", False, CALLER))
    await cluster.tick()
    assert await cluster.decisions() == [], "nothing is queued, nothing is recorded"
    await cluster.add()
    await cluster.add(task_type="talk")
    await cluster.tick(TickKind.WOKEN)
    assert await cluster.decisions() == [(False, "draining", "")], "a new hold, once for all backends"
    await cluster.tick(TickKind.WOKEN)
    assert len(await cluster.decisions()) == 1
    await cluster.tick(TickKind.CLOCK)
    await cluster.tick(TickKind.RUN)
    assert await cluster.decisions() == [(False, "draining", "")] * 3


async def test_no_more_is_sent_than_the_executor_lets_in(cluster: Cluster) -> None:
    cluster.executors = (report(seats=12, admission_slots=2),)
    for i in range(5):
        await cluster.add(f"Task number {i}")
    assert len((await cluster.tick()).orders) == 2
    cluster.executors = (report(seats=12, admission_slots=0, admission_reason="memory 0 MiB left"),)
    await cluster.tick()
    said = await cluster.run(lambda tx: explain(tx, cluster.executors, cluster.rules, None))
    slots = next(guard for guard in said.verdicts if guard.name == "slots" and guard.backend == "cecelia-run")
    assert "the machine's load leaves no task slot: memory 0 MiB left" in slots.detail


async def test_a_full_pool_is_not_recorded_in_the_tick_that_filled_it(cluster: Cluster) -> None:
    cluster.executors = (report(seats=3),)
    for i in range(3):
        await cluster.add(f"Task number {i}")
    assert len((await cluster.tick()).orders) == 1
    assert await cluster.decisions() == []


async def test_without_an_executor_bad_tasks_are_still_put_aside(cluster: Cluster) -> None:
    bad = await cluster.add("x")
    good = await cluster.add()
    cluster.executors = ()
    result = await cluster.tick()
    assert result.orders == ()
    assert (await cluster.task(bad.id)).status is TaskStatus.QUARANTINED
    assert (await cluster.task(good.id)).status is TaskStatus.QUEUED
    assert await cluster.decisions() == [(False, "pre_flight_check_failed", "cecelia-run"), (False, "no_executor", "cecelia-run")]


async def test_a_missing_sample_refuses(cluster: Cluster) -> None:
    await cluster.add()
    cluster.executors = (report(resources_reason="no_sample", effective_slots=0, max_seats=0),)
    assert (await cluster.tick()).orders == ()
    assert await cluster.decisions() == [(False, "pool_exhausted", "cecelia-run")]


async def test_three_interactive_sessions_are_team_mode(cluster: Cluster) -> None:
    await cluster.add()
    cluster.executors = (report(seats=4, headed_sessions=3),)
    await cluster.tick()
    assert await cluster.decisions() == [(False, "user_team_mode", "cecelia-run")]


async def test_an_old_term_claims_nothing(cluster: Cluster) -> None:
    task = await cluster.add()
    cluster.clock.advance(seconds=10)
    old_holder, old_term = cluster.holder, cluster.term
    cluster.holder = uuid4()
    await cluster.lead()
    assert cluster.term == old_term + 1
    cluster.holder, cluster.term = old_holder, old_term
    with pytest.raises(NotLeader):
        await cluster.tick()
    assert (await cluster.task(task.id)).status is TaskStatus.QUEUED


async def test_a_new_leader_and_an_ended_hold_ramp_up(cluster: Cluster) -> None:
    for i in range(9):
        await cluster.add(f"Task number {i}")
    cluster.memory = TickMemory(new_leader=True)
    counts = []
    for _ in range(3):
        result = await cluster.tick(TickKind.WOKEN)
        counts.append(len(result.orders))
        assert result.more is (counts[-1] > 0 and len(counts) < 4)
        cluster.clock.advance(seconds=1)
    assert counts == [1, 2, 4]


async def test_a_billing_pause_of_one_backend_leaves_the_other_alone_and_ends_by_itself(cluster: Cluster) -> None:
    local = await cluster.add()
    talk = await cluster.add(task_type="talk")
    until = cluster.clock.now() + timedelta(minutes=5)
    await cluster.run(lambda tx: set_billing_pause(tx, "hk-minimax", until, CALLER))
    earlier = await cluster.run(lambda tx: set_billing_pause(tx, "hk-minimax", until - timedelta(minutes=1), CALLER))
    assert earlier.until_time == until, "a pause only extends"
    assert [o.task_id for o in (await cluster.tick()).orders] == [local.id]
    cluster.clock.advance(minutes=5)
    assert [o.task_id for o in (await cluster.tick()).orders] == [talk.id]
    assert [e for e in await cluster.events() if "billing" in e] == ["billing_pause_started", "billing_pause_ended"]
    assert await cluster.run(lambda tx: clear_billing_pause(tx, "hk-minimax", CALLER)) is None


async def test_a_drain_that_waits_for_idleness_is_ended_by_the_leader(cluster: Cluster) -> None:
    running = await cluster.add()
    await cluster.tick()
    state = await cluster.run(lambda tx: set_drain(tx, True, "deploy", True, CALLER))
    assert (state.draining, state.running) == (True, 1)
    waiting = await cluster.add("Waits for the drain")
    assert (await cluster.tick()).orders == ()
    await cluster.completed(running.id)
    assert [o.task_id for o in (await cluster.tick()).orders] == [waiting.id]
    assert [e for e in await cluster.events() if "drain" in e] == ["drain_started", "drain_ended"]


async def test_a_drain_has_so_many_sources_at_the_most(cluster: Cluster) -> None:
    for number in range(DRAINS_MAX):
        await cluster.run(lambda tx, number=number: set_drain(tx, True, f"source {number}", False, CALLER))
    with pytest.raises(ResourceExhausted, match="50 sources"):
        await cluster.run(lambda tx: set_drain(tx, True, "one more", False, CALLER))
    await cluster.run(lambda tx: set_drain(tx, True, "source 7", False, CALLER))
    await cluster.run(lambda tx: set_drain(tx, False, "source 7", False, CALLER))
    await cluster.run(lambda tx: set_drain(tx, True, "one more", False, CALLER))


async def test_a_drain_by_one_source_is_not_ended_by_another(cluster: Cluster) -> None:
    await cluster.run(lambda tx: set_drain(tx, True, "deploy", False, CALLER))
    await cluster.run(lambda tx: set_drain(tx, True, "operator", False, CALLER))
    state = await cluster.run(lambda tx: set_drain(tx, False, "operator", False, CALLER))
    assert state.draining
    assert not (await cluster.run(lambda tx: set_drain(tx, False, "deploy", False, CALLER))).draining


async def test_the_budget_cap_bounds_local_starts(cluster: Cluster) -> None:
    for i in range(4):
        await cluster.add(f"Task number {i}")
    await cluster.run(lambda tx: set_budget_cap(tx, 2, CALLER))
    assert len((await cluster.tick()).orders) == 2
    assert (await cluster.tick()).orders == ()
    await cluster.run(lambda tx: set_budget_cap(tx, None, CALLER))
    assert len((await cluster.tick()).orders) == 2


async def _open_breaker(cluster: Cluster) -> None:
    for i in range(3):
        task = await cluster.add(f"Cannot start {i}")
        await cluster.tick()
        await cluster.failed_start(task.id)


async def test_three_failed_starts_open_the_breaker_and_one_probe_closes_it(cluster: Cluster) -> None:
    await _open_breaker(cluster)
    row = (await cluster.run(lambda tx: tx.breakers(["cecelia-run@host-a"])))["cecelia-run@host-a"]
    assert (row.state, row.failures, row.generation) == (BreakerState.OPEN, 3, 1)
    cluster.clock.advance(minutes=10)
    assert (await cluster.tick()).orders == ()
    assert (await cluster.decisions())[-1] == (False, "circuit_breaker_open", "cecelia-run")
    fresh = await cluster.add("Never failed to start")
    cluster.clock.advance(minutes=20)
    orders = (await cluster.tick()).orders
    assert [o.task_id for o in orders] == [fresh.id], "exactly one probe, and the task whose last start did not fail"
    assert (await cluster.tick()).orders == ()
    await cluster.started(fresh.id)
    assert (await cluster.run(lambda tx: tx.breakers()))["cecelia-run@host-a"].state is BreakerState.CLOSED
    assert [e for e in await cluster.events() if e.startswith("circuit")] == ["circuit_open", "circuit_closed"]


@pytest.mark.parametrize("end", ["failure", "neutral", "rejected", "lost"])
async def test_every_end_of_a_probe_frees_it(cluster: Cluster, end: str) -> None:
    await _open_breaker(cluster)
    cluster.clock.advance(minutes=30)
    probe = (await cluster.tick()).orders[0].task_id
    opened = (await cluster.run(lambda tx: tx.breakers()))["cecelia-run@host-a"].opened_time
    if end == "failure":
        await cluster.failed_start(probe)
    elif end == "neutral":
        await cluster.reported(probe, verdict=StartVerdict.NEUTRAL, verdict_reason="lost", outcome=OutcomeClass.NOT_STARTED)
    elif end == "rejected":
        await cluster.answered(probe, False, "server_overloaded")
    else:
        await cluster.lost(probe)
    row = (await cluster.run(lambda tx: tx.breakers()))["cecelia-run@host-a"]
    assert row.state is BreakerState.OPEN
    assert (row.opened_time == opened) is (end != "failure")
    cluster.clock.advance(minutes=6)
    assert len((await cluster.tick()).orders) == (0 if end == "failure" else 1)


async def test_an_outcome_from_before_a_reset_counts_nowhere_in_the_breaker(cluster: Cluster) -> None:
    tasks = [await cluster.add(f"Under way {i}") for i in range(3)]
    await cluster.tick()
    await cluster.run(lambda tx: reset_breaker(tx, "cecelia-run", CALLER, cluster.executors, cluster.rules))
    for task in tasks:
        await cluster.failed_start(task.id)
    row = (await cluster.run(lambda tx: tx.breakers()))["cecelia-run@host-a"]
    assert (row.state, row.failures) == (BreakerState.CLOSED, 0)


async def test_a_trip_holds_and_a_reset_by_the_bare_name_lets_go(cluster: Cluster) -> None:
    await cluster.add()
    tripped = await cluster.run(
        lambda tx: trip_breaker(tx, "cecelia-run", timedelta(hours=2), CALLER, cluster.executors, cluster.rules)
    )
    assert tripped.after.state is BreakerState.OPEN
    assert [breaker.key for breaker in tripped.moved] == ["cecelia-run@host-a"]
    assert (await cluster.run(lambda tx: tx.standing([Part.TRIPPED_BY], timedelta(hours=1)))).tripped_by == {
        "cecelia-run@host-a": "tester"
    }
    cluster.clock.advance(minutes=90)
    assert (await cluster.tick()).orders == ()
    reset = await cluster.run(lambda tx: reset_breaker(tx, "cecelia-run", CALLER, cluster.executors, cluster.rules))
    assert (reset.before.state, reset.after.state) == (BreakerState.OPEN, BreakerState.CLOSED)
    assert (await cluster.run(lambda tx: tx.standing([Part.TRIPPED_BY], timedelta(hours=1)))).tripped_by == {}
    assert len((await cluster.tick()).orders) == 1


async def test_a_low_success_rate_lets_one_task_an_interval_through_and_never_feeds_itself(cluster: Cluster) -> None:
    cluster.rules = replace(
        cluster.rules, checks=CheckSettings(min_sample=3, breaker=replace(CheckSettings().breaker, failure_threshold=100))
    )
    for i in range(3):
        task = await cluster.add(f"Fails to start {i}")
        await cluster.tick()
        await cluster.failed_start(task.id)
    for i in range(4):
        await cluster.add(f"Waits its turn {i}")
    assert len((await cluster.tick()).orders) == 1, "the permit of the first interval"
    before = (await cluster.run(lambda tx: read_stats(tx, cluster.rules))).attempts
    for _ in range(5):
        assert (await cluster.tick()).orders == ()
    assert (await cluster.run(lambda tx: read_stats(tx, cluster.rules))).attempts == before
    assert (await cluster.decisions())[-5:] == [(False, "low_success_rate", "cecelia-run")] * 5
    assert (await cluster.events()).count("dispatch_low_success_rate") == 1
    cluster.clock.advance(seconds=60)
    assert len((await cluster.tick()).orders) == 1
    cluster.rules = replace(cluster.rules, checks=replace(cluster.rules.checks, rate_guard=GuardMode.OBSERVE))
    cluster.clock.advance(seconds=1)
    assert len((await cluster.tick()).orders) == 2, "observed only, and the second step of the ramp"


async def test_an_explanation_says_what_the_next_tick_does(cluster: Cluster) -> None:
    task = await cluster.add()
    said = await cluster.run(lambda tx: explain(tx, cluster.executors, cluster.rules, task.id))
    assert (said.would_dispatch, said.task_reason, said.queue_position) == (True, "", 1)
    await cluster.run(lambda tx: set_drain(tx, True, "operator", False, CALLER))
    said = await cluster.run(lambda tx: explain(tx, cluster.executors, cluster.rules, task.id))
    assert (said.would_dispatch, said.task_reason) == (False, "draining")
    assert (await cluster.tick()).orders == ()


async def test_a_clock_that_went_back_does_not_stop_what_is_queued(cluster: Cluster) -> None:
    task = await cluster.add()
    cluster.clock.jump(hours=-1)
    await cluster.lead()
    said = await cluster.run(lambda tx: explain(tx, cluster.executors, cluster.rules, task.id))
    assert said.would_dispatch
    assert [order.task_id for order in (await cluster.tick()).orders] == [task.id]


async def test_a_bad_task_is_put_aside_once_also_when_a_probe_is_sought(cluster: Cluster) -> None:
    await _open_breaker(cluster)
    bad = await cluster.add("x")
    cluster.clock.advance(minutes=31)
    await cluster.lead()
    result = await cluster.tick()
    assert len(result.orders) == 1
    reasons = [reason for _, reason, _ in await cluster.decisions()]
    assert reasons.count("pre_flight_check_failed") == 1
    assert (await cluster.events()).count("task_quarantined") == 1
    assert (await cluster.task(bad.id)).status is TaskStatus.QUARANTINED


async def test_many_bad_tasks_in_front_make_the_tick_hurry_to_the_good_one(cluster: Cluster) -> None:
    cluster.executors = (report(slots=1),)
    await cluster.submit(*(TaskSpec(title="x", description=DESCRIPTION) for _ in range(20)))
    good = await cluster.add(priority=Priority.P2)
    ticks = 0
    result = await cluster.tick()
    while result.hurry:
        ticks += 1
        result = await cluster.tick(TickKind.WOKEN)
    assert [order.task_id for order in result.orders] == [good.id]
    assert ticks == 3, "six candidates a tick"


async def test_a_probe_that_cannot_be_placed_does_not_shut_off_the_trickle(cluster: Cluster) -> None:
    cluster.executors = (report("host-a", slots=0), report("host-b"))
    await cluster.lead()
    checks = CheckSettings(min_sample=3, breaker=replace(CheckSettings().breaker, failure_threshold=3))
    cluster.rules = replace(cluster.rules, checks=checks)
    cluster.executors = (report("host-a"),)
    await _open_breaker(cluster)
    cluster.executors = (report("host-a", slots=0), report("host-b"))
    cluster.clock.advance(minutes=31)
    await cluster.lead()
    waiting = await cluster.add("Waits for a try")
    result = await cluster.tick()
    assert [order.executor_id for order in result.orders] == ["host-b"], waiting.id
    assert len((await cluster.tick()).orders) == 0, "one an interval"


async def _open_breaker(cluster: Cluster) -> None:
    """Three failed starts on the first executor."""
    for i in range(3):
        await cluster.add(f"Fails to start {i}")
    for order in (await cluster.tick()).orders:
        await cluster.failed_start(order.task_id)


async def test_a_backend_that_is_set_up_wrongly_is_not_called_a_missing_executor(cluster: Cluster) -> None:
    words = "CECELIA_RUN_PATH=/no/such is missing or not executable"
    own = report()
    cluster.executors = (
        replace(own, backends=tuple(replace(b, configured=not b.local, detail=words if b.local else "") for b in own.backends)),
    )
    await cluster.add()
    result = await cluster.tick()
    assert [(d.reason, d.detail) for d in result.decisions] == [("config_error", f"host-a: {words}")]
    said = await cluster.run(lambda tx: explain(tx, cluster.executors, cluster.rules, None))
    assert words in said.sentence
    attempts = (await cluster.run(lambda tx: read_stats(tx, cluster.rules))).attempts
    assert attempts.total == 0


async def test_a_pool_without_slots_names_what_leaves_none(cluster: Cluster) -> None:
    await cluster.add()
    cluster.rules = replace(cluster.rules, interactive_reserve=1_000)
    (kept,) = (await cluster.tick()).decisions
    assert kept.reason == "pool_exhausted"
    assert "12 seats" in kept.detail
    assert "1000 are kept for people (INTERACTIVE_RESERVE" in kept.detail
    cluster.rules = replace(cluster.rules, interactive_reserve=0)
    cluster.executors = (report(slots=0, resources_reason="CPU 99% >= 80%"),)
    (loaded,) = (await cluster.tick()).decisions
    assert loaded.detail == "the machine's load leaves no task slot: CPU 99% >= 80%"
