"""The scheduler's metrics, told by real ticks and real reports on the memory store: what is counted, when, and on which replica."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from math import isnan
from typing import Any
from uuid import uuid4

import pytest
from msgspec import structs
from prometheus_client import CollectorRegistry

from scheduler_service.core.breaker import Breaker, BreakerState
from scheduler_service.core.dispatch_checks import GuardMode
from scheduler_service.core.routing import DEFAULT_BACKENDS, BackendKind
from scheduler_service.core.run import BackendReport
from scheduler_service.core.task import Priority
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict
from scheduler_service.metrics import SchedulerMetrics
from scheduler_service.transactions.editing import cancel_task
from scheduler_service.transactions.overrides import (
    ForcedBreaker,
    reset_breaker,
    set_billing_pause,
    set_budget_cap,
    set_drain,
    trip_breaker,
)
from scheduler_service.transactions.reading import StatusView, read_status
from scheduler_service.transactions.ticking import TickResult
from tests.contract.conftest import CALLER, Cluster, report
from tests.fakes.fake_clock import FakeClock
from tests.fakes.memory_database import MemoryDatabase

KEY = "cecelia-run@host-a"
PREFIX = "cecelia_scheduler_"


class Replica:
    """One replica's metrics. `value` and `others` read the registry, as a scrape does."""

    def __init__(self, cluster: Cluster, *, leads: bool = True) -> None:
        self.cluster = cluster
        self.registry = CollectorRegistry()
        self.metrics = SchedulerMetrics(self.registry, "1", DEFAULT_BACKENDS)
        if leads:
            self.metrics.led(True)

    def series(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of this name, by their labels' values."""
        full = PREFIX + name
        return {tuple(s.labels.values()): s.value for m in self.registry.collect() for s in m.samples if s.name == full}

    def above_zero(self, name: str) -> dict[tuple[str, ...], float]:
        return {labels: value for labels, value in self.series(name).items() if value}

    async def ticked(self, **changes: Any) -> TickResult:
        result = replace(await self.cluster.tick(), **changes)
        self.metrics.ticked(0.003, result)
        return result

    async def view(self) -> StatusView:
        return await self.cluster.run(lambda tx: read_status(tx, self.cluster.executors, self.cluster.rules))

    async def look(self) -> None:
        self.cluster.clock.advance(seconds=0.001)
        self.metrics.observe(await self.view())


@pytest.fixture
async def cluster() -> Cluster:
    clock = FakeClock()
    made = Cluster(MemoryDatabase(clock.now), clock)
    await made.lead()
    return made


@pytest.fixture
def replica(cluster: Cluster) -> Replica:
    return Replica(cluster)


async def test_every_series_is_there_at_zero_before_anything_has_happened(cluster: Cluster) -> None:
    fresh = Replica(cluster, leads=False)
    samples = [sample for metric in fresh.registry.collect() for sample in metric.samples]
    told = {s.name for s in samples if s.value and not isnan(s.value) and not s.name.endswith("_created")}
    assert told == {PREFIX + "build_info"}
    assert all(isnan(value) for value in fresh.series("window_success_ratio").values()), "an empty window has no ratio"
    before = {(s.name, *s.labels.values()) for s in samples}
    await fresh.look()
    after = {(s.name, *s.labels.values()) for metric in fresh.registry.collect() for s in metric.samples}
    assert {series[1] for series in after - before} == {KEY}, "only executors' own breakers are learnt of later"


async def test_acceptance_counts_nothing_and_the_verdict_once(cluster: Cluster, replica: Replica) -> None:
    good, bad = await cluster.add(), await cluster.add()
    cluster.memory = replace(cluster.memory, new_leader=False)
    await replica.ticked()
    for task in (good, bad):
        replica.metrics.recorded(await cluster.answered(task.id, accepted=True))
    assert replica.above_zero("dispatch_decisions_total") == {}
    assert replica.above_zero("dispatch_attempts_total") == {}
    cluster.clock.advance(seconds=2)
    for _ in range(2):  # the second report is a repeated one
        replica.metrics.recorded(await cluster.started(good.id))
    replica.metrics.recorded(await cluster.failed_start(bad.id))
    replica.metrics.recorded(await cluster.completed(good.id))
    assert replica.above_zero("dispatch_decisions_total") == {("dispatched", ""): 1, ("failed", "executor_failed"): 1}
    assert replica.above_zero("dispatch_attempts_total") == {("cecelia-run", "success"): 1, ("cecelia-run", "failure"): 1}
    assert replica.above_zero("task_start_latency_seconds_count") == {("cecelia-run",): 1}
    assert replica.series("task_start_latency_seconds_sum")[("cecelia-run",)] == pytest.approx(2, abs=0.01)


async def test_rejections_and_neutral_verdicts_are_no_attempts(cluster: Cluster, replica: Replica) -> None:
    rejected = await cluster.add()
    await replica.ticked()
    replica.metrics.recorded(await cluster.answered(rejected.id, accepted=False, reason="server_overloaded"))
    neutral = await cluster.add()
    cluster.clock.advance(seconds=1)
    await replica.ticked()
    verdict = {"verdict": StartVerdict.NEUTRAL, "verdict_reason": "cancelled", "outcome": OutcomeClass.CANCELLED}
    replica.metrics.recorded(await cluster.reported(neutral.id, **verdict))
    assert replica.above_zero("dispatch_decisions_total") == {("rejected", "server_overloaded"): 1}
    assert replica.above_zero("dispatch_attempts_total") == {}


async def test_a_tick_counts_the_holds_that_it_records(cluster: Cluster, replica: Replica) -> None:
    await cluster.run(lambda tx: set_drain(tx, True, "operator", False, CALLER))
    await replica.ticked()
    assert replica.above_zero("dispatch_decisions_total") == {}, "nothing was queued"
    await cluster.add()
    await replica.ticked()
    await replica.ticked()
    assert replica.above_zero("dispatch_decisions_total") == {("blocked", "draining"): 2}
    assert replica.series("tick_duration_seconds_count") == {(): 3}
    assert replica.series("tick_duration_seconds_sum")[()] == pytest.approx(0.009)
    assert replica.series("tick_last_success_timestamp_seconds")[()] > 0


async def test_tasks_are_counted_by_their_own_status_and_priority(cluster: Cluster, replica: Replica) -> None:
    running, dispatching = await cluster.add(priority=Priority.P0), await cluster.add(priority=Priority.P0)
    aside = await cluster.add("x", priority=Priority.P2)
    cluster.memory = replace(cluster.memory, new_leader=False)
    await cluster.tick()
    await cluster.started(running.id)
    cluster.executors = ()
    queued = [await cluster.add(priority=priority) for priority in (Priority.P1, Priority.P1, Priority.P1, Priority.P2)]
    done = await cluster.add()
    await cluster.run(lambda tx: cancel_task(tx, done.id, actor="me", reason="", request_id=""))
    statuses = [(await cluster.task(task.id)).status for task in (running, dispatching, aside, *queued, done)]
    assert statuses == ["running", "dispatching", "quarantined", *["queued"] * 4, "cancelled"]
    cluster.clock.advance(seconds=10)
    await replica.look()
    counted = {("running", "P0"): 1, ("dispatching", "P0"): 1, ("quarantined", "P2"): 1, ("queued", "P1"): 3, ("queued", "P2"): 1}
    assert replica.above_zero("tasks") == counted
    ages = replica.series("oldest_due_task_age_seconds")
    assert ages == {("P0",): 0, ("P1",): pytest.approx(10, abs=0.1), ("P2",): pytest.approx(10, abs=0.1)}


async def test_windows_slots_and_overrides_are_shown_as_they_are(cluster: Cluster, replica: Replica) -> None:
    cluster.memory = replace(cluster.memory, new_leader=False)
    tasks = [await cluster.add() for _ in range(4)]
    await cluster.tick()
    for task in tasks[:3]:
        await cluster.started(task.id)
    await cluster.failed_start(tasks[3].id)
    await replica.look()
    assert replica.series("window_samples") == {("window_1h",): 4, ("attempts",): 4}
    assert replica.series("window_success_ratio") == {("window_1h",): 0.75, ("attempts",): 0.75}
    total = (await replica.view()).slots.fleet.total
    assert total is not None
    assert replica.series("slots") == {
        (pool, kind): getattr(getattr(total, pool), kind)
        for pool in ("user", "internal", "task_pool")
        for kind in ("budget", "used")
    }
    assert total.task_pool.used == 3
    assert replica.above_zero("override_active") == {}
    until = cluster.clock.now() + timedelta(minutes=1)
    forced = [
        ("drain", lambda tx: set_drain(tx, True, "operator", False, CALLER)),
        ("billing_pause", lambda tx: set_billing_pause(tx, "hk-minimax", until, CALLER)),
        ("budget_cap", lambda tx: set_budget_cap(tx, 3, CALLER)),
        ("breaker_tripped", lambda tx: trip(cluster, tx)),
    ]
    since: dict[tuple[str, ...], float] = {}
    for n, (newest, work) in enumerate(forced, start=1):
        cluster.clock.advance(seconds=1)
        since[(newest,)] = cluster.clock.now().timestamp()
        await cluster.run(work)
        await replica.look()
        assert replica.above_zero("override_active") == {(kind,): 1 for kind, _ in forced[:n]}
        assert replica.above_zero("override_since_timestamp_seconds") == since
    cluster.clock.advance(seconds=1)
    await cluster.run(lambda tx: set_drain(tx, True, "another", False, CALLER))
    await replica.look()
    assert replica.above_zero("override_since_timestamp_seconds") == since, "the oldest of a kind counts"
    cluster.clock.advance(minutes=2)
    await replica.look()
    assert ("billing_pause",) not in replica.above_zero("override_active"), "its time has come"
    assert ("billing_pause",) not in replica.above_zero("override_since_timestamp_seconds")


# --- holds


async def test_a_hold_is_shown_while_the_newest_tick_held_a_task_for_it(cluster: Cluster, replica: Replica) -> None:
    await cluster.run(lambda tx: set_drain(tx, True, "operator", False, CALLER))
    await replica.ticked()
    assert replica.above_zero("hold_active") == {}, "a gate that has nobody to hold holds nothing"
    task = await cluster.add()
    await replica.ticked()
    assert replica.above_zero("hold_active") == {("draining",): 1}
    await replica.look()
    assert replica.above_zero("hold_active") == {("draining",): 1}, "the task still waits"
    await cluster.run(lambda tx: cancel_task(tx, task.id, actor="me", reason="", request_id=""))
    await replica.ticked()
    assert replica.above_zero("hold_active") == {}


async def test_a_hold_ends_with_the_last_queued_task_though_no_tick_comes(cluster: Cluster, replica: Replica) -> None:
    await cluster.run(lambda tx: set_drain(tx, True, "operator", False, CALLER))
    old = await replica.view()
    task = await cluster.add()
    await replica.ticked()
    replica.metrics.observe(old)
    assert replica.above_zero("hold_active") == {("draining",): 1}, "a look from before the tick knows nothing of it"
    await cluster.run(lambda tx: cancel_task(tx, task.id, actor="me", reason="", request_id=""))
    await replica.look()
    assert replica.above_zero("hold_active") == {}


async def test_a_full_pool_and_an_absent_executor_are_holds(cluster: Cluster, replica: Replica) -> None:
    cluster.executors = (report(max_runs=1),)
    cluster.memory = replace(cluster.memory, new_leader=False)
    for title in ("The first one", "The second one"):
        await cluster.add(title, task_type="research")
    await replica.ticked()
    await replica.ticked()
    assert replica.above_zero("hold_active") == {("pool_c_full",): 1}
    cluster.executors = ()
    await replica.ticked()
    assert replica.above_zero("hold_active") == {("no_executor",): 1}


async def test_a_replica_that_does_not_lead_and_a_tick_that_failed_hold_nothing(cluster: Cluster, replica: Replica) -> None:
    await cluster.run(lambda tx: set_drain(tx, True, "operator", False, CALLER))
    await cluster.add()
    for end in (replica.metrics.tick_failed, lambda: replica.metrics.led(False)):
        replica.metrics.led(True)
        late = await replica.ticked()
        assert replica.above_zero("hold_active") == {("draining",): 1}
        end()
        assert replica.above_zero("hold_active") == {}
    assert replica.series("leader") == {(): 0}
    replica.metrics.ticked(0.1, late)
    assert replica.above_zero("hold_active") == {}, "the last tick of a leadership was told after its end"


# --- breakers


async def trip(cluster: Cluster, tx: Any) -> ForcedBreaker:
    return await trip_breaker(tx, "cecelia-run", None, CALLER, cluster.executors, cluster.rules)


async def reset(cluster: Cluster, tx: Any) -> ForcedBreaker:
    return await reset_breaker(tx, "cecelia-run", CALLER, cluster.executors, cluster.rules)


async def test_transitions_are_counted_once_on_the_replica_that_made_them(cluster: Cluster, replica: Replica) -> None:
    other = Replica(cluster, leads=False)
    for each in (replica, other):
        await each.look()
    cluster.memory = replace(cluster.memory, new_leader=False)
    tasks = [await cluster.add() for _ in range(3)]
    await replica.ticked()
    for task in tasks:
        replica.metrics.recorded(await cluster.failed_start(task.id))
    assert replica.above_zero("breaker_transitions_total") == {(KEY, "OPEN"): 1}
    cluster.clock.advance(minutes=31)
    await replica.look()
    probed = await replica.ticked()
    replica.metrics.breakers_moved(probed.probed)
    (order,) = probed.orders
    replica.metrics.recorded(await cluster.started(order.task_id))
    other.metrics.breakers_moved((await cluster.run(lambda tx: trip(cluster, tx))).moved)
    other.metrics.breakers_moved((await cluster.run(lambda tx: trip(cluster, tx))).moved)
    other.metrics.breakers_moved((await cluster.run(lambda tx: reset(cluster, tx))).moved)
    for each in (replica, other):
        await each.look()
    assert replica.above_zero("breaker_transitions_total") == {(KEY, "OPEN"): 1, (KEY, "HALF_OPEN"): 1, (KEY, "CLOSED"): 1}
    assert other.above_zero("breaker_transitions_total") == {(KEY, "OPEN"): 1, (KEY, "CLOSED"): 1}, "tripped again is no change"


async def test_only_rows_have_transitions_and_bare_names_a_state(cluster: Cluster, replica: Replica) -> None:
    await replica.look()
    await cluster.run(lambda tx: trip(cluster, tx))
    await replica.look()
    states = [state.value for state in BreakerState]
    keys = ("cecelia-run", KEY, "hk-minimax")
    assert set(replica.series("breaker_state")) == {(key, state) for key in keys for state in states}
    assert set(replica.series("breaker_transitions_total")) == {(key, state) for key in (KEY, "hk-minimax") for state in states}
    opened = {("cecelia-run", "OPEN"): 1, (KEY, "OPEN"): 1, ("hk-minimax", "CLOSED"): 1}
    assert replica.above_zero("breaker_state") == opened


async def test_the_series_of_an_executor_that_is_gone_go_with_its_row(cluster: Cluster, replica: Replica) -> None:
    view = await replica.view()
    replica.metrics.observe(view)
    assert (KEY, "OPEN") in replica.series("breaker_transitions_total")
    replica.metrics.observe(structs.replace(view, breakers={}))
    names = {key for name in ("breaker_state", "breaker_transitions_total") for key, _ in replica.series(name)}
    assert names == {"cecelia-run", "hk-minimax"}


async def test_the_first_transition_of_a_new_key_brings_all_of_its_series(replica: Replica) -> None:
    key = f"cecelia-run@{uuid4()}"
    replica.metrics.breakers_moved([Breaker(key, BreakerState.OPEN)])
    found = {labels: n for labels, n in replica.series("breaker_transitions_total").items() if labels[0] == key}
    assert found == {(key, "CLOSED"): 0, (key, "OPEN"): 1, (key, "HALF_OPEN"): 0}


@pytest.mark.parametrize("kind", [BackendKind.SHARED, BackendKind.PER_EXECUTOR])
async def test_the_series_of_a_plug_in_come_once_its_executor_has_told_of_it(
    cluster: Cluster, replica: Replica, kind: BackendKind
) -> None:
    await replica.look()
    assert not any("gpu" in labels for name in ("dispatch_attempts_total", "breaker_state") for labels in replica.series(name))
    own = report()
    gpu = BackendReport("gpu", False, True, True, "", "", 2, 0, False, kind)
    cluster.executors = (replace(own, backends=(*own.backends, gpu)),)
    row = "gpu" if kind is BackendKind.SHARED else "gpu@host-a"
    await cluster.run(lambda tx: tx.add_breakers([row]))
    await replica.look()
    assert replica.series("dispatch_attempts_total")["gpu", "success"] == 0
    assert replica.series("task_start_latency_seconds_count")["gpu",] == 0
    assert {key for key, _ in replica.series("breaker_transitions_total")} >= {row}
    assert ("gpu", "OPEN") in replica.series("breaker_state")
    assert (("gpu", "OPEN") in replica.series("breaker_transitions_total")) is (kind is BackendKind.SHARED)
    view = await replica.view()
    replica.metrics.observe(structs.replace(view, breakers={}))
    assert not any("gpu" in key for key, _ in replica.series("breaker_state"))


async def _low_rate(cluster: Cluster, guard: GuardMode) -> None:
    """Three failed starts, which the success rate and the breaker both mind."""
    checks = replace(cluster.rules.checks, min_sample=3, rate_guard=guard, breaker_guard=guard)
    cluster.rules = replace(cluster.rules, checks=checks)
    for _ in range(3):
        await cluster.add()
    for order in (await cluster.tick()).orders:
        await cluster.failed_start(order.task_id)
    await cluster.add()
    # As if the first single try had just been spent.
    await cluster.run(lambda tx: tx.note_trickles({"cecelia-run": cluster.clock.now()}))


@pytest.mark.parametrize(
    ("guard", "observed", "held"),
    [
        (GuardMode.OBSERVE, {("low_success_rate",), ("circuit_breaker_open",)}, set()),
        (GuardMode.OFF, set(), set()),
        (GuardMode.ENFORCE, set(), {("low_success_rate",)}),
    ],
)
async def test_a_guard_that_only_observes_is_shown_apart_from_those_that_hold(
    cluster: Cluster, replica: Replica, guard: GuardMode, observed: set[tuple[str]], held: set[tuple[str]]
) -> None:
    await _low_rate(cluster, guard)
    await replica.ticked()
    assert set(replica.above_zero("hold_observed")) == observed
    assert set(replica.above_zero("hold_active")) == held
    replica.metrics.tick_failed()
    assert replica.above_zero("hold_observed") == {}


async def test_drains_are_counted_and_timed_when_they_end(replica: Replica) -> None:
    replica.metrics.drains_ended([timedelta(seconds=3), timedelta(minutes=2)])
    replica.metrics.drains_ended([])
    assert replica.series("drain_duration_seconds_count") == {(): 2}
    assert replica.series("drain_duration_seconds_sum") == {(): 123}
