"""Settings changed at run time, on both stores: what they do to the next decision, and that they stay."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from scheduler_service.core.breaker import BreakerState
from scheduler_service.core.tuning import SettingValue
from scheduler_service.settings import SchedulerSettings
from scheduler_service.storage.postgres import PostgresDatabase
from scheduler_service.tick.maintenance import Maintenance
from scheduler_service.transactions.overrides import set_drain, trip_breaker
from scheduler_service.transactions.reading import read_stats, read_status
from scheduler_service.transactions.stored import AuditFilter
from scheduler_service.transactions.ticking import TickKind, TickMemory
from scheduler_service.transactions.tuning import SettingChange, reset_setting, set_setting
from service_runtime.clock import SystemClock
from tests.contract.conftest import CALLER, Cluster, report

CONFIGURED = SchedulerSettings(failure_threshold=3).configured()
RUN_KEY = "cecelia-run@host-a"


async def put(cluster: Cluster, name: str, value: SettingValue) -> SettingChange:
    return await cluster.run(lambda tx: set_setting(tx, name, value, CALLER, CONFIGURED[name], cluster.rules))


async def reset(cluster: Cluster, name: str) -> SettingChange:
    return await cluster.run(lambda tx: reset_setting(tx, name, CALLER, CONFIGURED[name], cluster.rules))


async def changes(cluster: Cluster) -> list[tuple[str, ...]]:
    found = await cluster.run(lambda tx: tx.events_after(0, ("setting_changed",), 100))
    return [tuple(event.payload[key] for key in ("name", "previous_value", "value", "origin")) for event in found]


async def restart(cluster: Cluster) -> None:
    """Another process leads: of the old one nothing is left but the database."""
    cluster.clock.advance(seconds=5)
    cluster.holder, cluster.memory = uuid4(), TickMemory(new_leader=True)
    await cluster.lead()


async def fail_starts(cluster: Cluster, n: int) -> None:
    for i in range(n):
        task = await cluster.add(f"Cannot be started {i}")
        await cluster.tick(TickKind.WOKEN)
        await cluster.failed_start(task.id)


async def breaker_state(cluster: Cluster) -> BreakerState:
    return (await cluster.run(lambda tx: tx.breakers([RUN_KEY])))[RUN_KEY].state


async def test_an_override_is_stored_told_and_audited_and_a_reset_ends_it(cluster: Cluster) -> None:
    change = await put(cluster, "OPEN_DURATION_MS", 600_000)
    assert change.before is None
    assert change.after is not None
    assert (change.after.value, change.after.actor, change.after.reason) == (600_000, "tester", "because")
    assert change.after.since_time == cluster.clock.now()
    cluster.clock.advance(seconds=1)
    again = await put(cluster, "OPEN_DURATION_MS", 1_200_000)
    assert again.before == change.after
    ended = await reset(cluster, "OPEN_DURATION_MS")
    assert (ended.before, ended.after) == (again.after, None)
    assert (await reset(cluster, "OPEN_DURATION_MS")).before is None
    assert (await cluster.run(lambda tx: tx.operator_settings())).overrides == {}
    assert await changes(cluster) == [
        ("OPEN_DURATION_MS", "1800000", "600000", "override"),
        ("OPEN_DURATION_MS", "600000", "1200000", "override"),
        ("OPEN_DURATION_MS", "1200000", "1800000", "default"),
    ]
    log = await cluster.run(lambda tx: tx.audit_entries(AuditFilter(target="OPEN_DURATION_MS"), None, 10))
    assert [entry.method for entry in log] == ["ResetSetting", "ResetSetting", "SetSetting", "SetSetting"]
    assert log[1].detail == {
        "before": {"value": "1200000", "origin": "override"},
        "after": {"value": "1800000", "origin": "default"},
    }


async def test_the_same_value_again_is_audited_and_tells_nothing_new(cluster: Cluster) -> None:
    await put(cluster, "TICK_ENABLED", False)
    await put(cluster, "TICK_ENABLED", False)
    assert await changes(cluster) == [("TICK_ENABLED", "true", "false", "override")]
    assert len(await cluster.run(lambda tx: tx.audit_entries(AuditFilter(), None, 10))) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("DISPATCH_RATE_THRESHOLD", 0.25), ("DISPATCH_MIN_SAMPLE", 20), ("TICK_ENABLED", True), ("DISPATCH_RATE_GUARD", "observe")],
)
async def test_every_kind_of_value_comes_back_as_it_was(cluster: Cluster, name: str, value: SettingValue) -> None:
    await put(cluster, name, value)
    stored = (await cluster.run(lambda tx: tx.operator_settings())).values[name]
    assert (stored, type(stored)) == (value, type(value))


async def test_an_override_is_there_after_a_restart_and_a_change_of_leader(cluster: Cluster) -> None:
    await put(cluster, "INTERACTIVE_RESERVE", 11)
    await restart(cluster)
    for i in range(3):
        await cluster.add(f"Task number {i}")
    assert len((await cluster.tick()).orders) == 1, "12 seats less 11"
    assert (await cluster.run(lambda tx: read_status(tx, cluster.executors, cluster.rules))).rules.interactive_reserve == 11


async def test_the_next_verdict_goes_by_the_new_threshold(cluster: Cluster) -> None:
    await put(cluster, "FAILURE_THRESHOLD", 1)
    await fail_starts(cluster, 1)
    assert await breaker_state(cluster) is BreakerState.OPEN


async def test_an_open_breaker_goes_by_the_new_duration_at_once(cluster: Cluster) -> None:
    await fail_starts(cluster, 3)
    cluster.clock.advance(minutes=10)
    await cluster.lead()
    assert (await cluster.tick()).orders == ()
    await put(cluster, "OPEN_DURATION_MS", 600_000)
    assert len((await cluster.tick()).orders) == 1, "the probe"


async def test_the_back_off_goes_by_the_new_settings(cluster: Cluster) -> None:
    await put(cluster, "RETRY_BACKOFF_MS", 100_000)
    cluster.fraction = 0.999
    task = await cluster.add()
    await cluster.tick()
    await cluster.failed_start(task.id)
    next_time = (await cluster.task(task.id)).next_attempt_time
    assert next_time is not None
    assert next_time - cluster.clock.now() > timedelta(seconds=90)


async def test_the_rate_guard_goes_by_the_new_settings(cluster: Cluster) -> None:
    await put(cluster, "FAILURE_THRESHOLD", 100)
    await fail_starts(cluster, 4)
    for i in range(4):
        await cluster.add(f"Waits its turn {i}")
    await put(cluster, "DISPATCH_MIN_SAMPLE", 4)
    assert len((await cluster.tick()).orders) == 1, "the trickle"
    assert (await cluster.tick()).orders == ()
    await put(cluster, "DISPATCH_RATE_THRESHOLD", 0.0)
    cluster.clock.advance(seconds=1)
    assert len((await cluster.tick()).orders) == 1, "not low any more: the ramp's foot, long before the next single try"
    cluster.clock.advance(seconds=1)
    assert len((await cluster.tick()).orders) == 2


async def test_the_window_is_counted_by_the_new_length(cluster: Cluster) -> None:
    await fail_starts(cluster, 2)
    cluster.clock.advance(minutes=10)
    await put(cluster, "WINDOW_MS", 300_000)
    assert (await cluster.run(lambda tx: read_stats(tx, cluster.rules))).attempts.total == 0
    if isinstance(cluster.database, PostgresDatabase):
        shown = (await cluster.run(lambda tx: tx.operator_settings())).shown_window_ms
        assert shown == 300_000, "the view counts the same"
    await put(cluster, "WINDOW_MS", 900_000)
    assert (await cluster.run(lambda tx: read_stats(tx, cluster.rules))).attempts.total == 2


async def test_the_view_follows_the_leaders_environment_too(cluster: Cluster) -> None:
    cluster.rules = replace(cluster.rules, window=timedelta(minutes=7))
    await cluster.tick()
    assert (await cluster.run(lambda tx: tx.operator_settings())).shown_window_ms == 420_000


async def test_with_the_tick_off_the_clock_only_ends_overrides_and_an_operators_tick_dispatches(cluster: Cluster) -> None:
    await put(cluster, "TICK_ENABLED", False)
    task = await cluster.add()
    await cluster.run(lambda tx: set_drain(tx, True, "deploy", True, CALLER))
    cluster.clock.advance(seconds=2)
    for kind in (TickKind.CLOCK, TickKind.WOKEN):
        result = await cluster.tick(kind)
        assert (result.taken, result.orders, result.decisions) == (False, (), ())
    assert await cluster.run(lambda tx: tx.drains()) == []
    assert await cluster.decisions() == []
    assert [order.task_id for order in (await cluster.tick(TickKind.RUN)).orders] == [task.id]
    await cluster.add("Another task")
    await reset(cluster, "TICK_ENABLED")
    assert len((await cluster.tick()).orders) == 1


async def test_a_drain_that_a_tick_ends_is_timed(cluster: Cluster) -> None:
    await cluster.run(lambda tx: set_drain(tx, True, "deploy", True, CALLER))
    cluster.clock.advance(seconds=2)
    assert (await cluster.tick()).ended_drains == (timedelta(seconds=2),)
    assert (await cluster.tick()).ended_drains == ()
    await cluster.run(lambda tx: set_drain(tx, True, "deploy", False, CALLER))
    cluster.clock.advance(seconds=3)
    assert (await cluster.run(lambda tx: set_drain(tx, False, "deploy", False, CALLER))).ended == timedelta(seconds=3)
    assert (await cluster.run(lambda tx: set_drain(tx, False, "deploy", False, CALLER))).ended is None


async def test_retention_goes_by_the_new_settings(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    await cluster.completed(task.id)
    cluster.clock.advance(minutes=1)
    maintenance = Maintenance(cluster.database, SystemClock(), cluster.rules)
    await maintenance.once()
    assert await cluster.run(lambda tx: tx.tasks([task.id]))
    await put(cluster, "TASK_RETENTION_MS", 1_000)
    await maintenance.once()
    assert not await cluster.run(lambda tx: tx.tasks([task.id]))


# --- the breaker's guard


async def orders_behind_an_open_breaker(cluster: Cluster) -> int:
    for i in range(4):
        await cluster.add(f"Waits behind the breaker {i}")
    return len((await cluster.tick()).orders)


async def test_a_breaker_that_is_only_observed_opens_and_holds_nothing(cluster: Cluster) -> None:
    await put(cluster, "DISPATCH_BREAKER_GUARD", "observe")
    await fail_starts(cluster, 3)
    assert await breaker_state(cluster) is BreakerState.OPEN
    assert await orders_behind_an_open_breaker(cluster) == 4
    assert [(v.holds, v.would_hold) for v in (await cluster.tick()).verdicts if v.name == "circuit_breaker_open"] == [
        (False, True),
        (False, False),
    ]
    assert "circuit_breaker_open" not in [reason for _, reason, _ in await cluster.decisions()]
    (opened,) = await cluster.run(lambda tx: tx.events_after(0, ("circuit_open",), 10))
    assert opened.payload["enforced"] is False


@pytest.mark.parametrize("mode", ["observe", "off"])
async def test_a_breaker_that_holds_nothing_is_probed_and_closes_all_the_same(cluster: Cluster, mode: str) -> None:
    await put(cluster, "DISPATCH_BREAKER_GUARD", mode)
    await fail_starts(cluster, 3)
    cluster.clock.advance(minutes=31)
    await cluster.lead()
    cluster.executors = (report(seats=5),)
    orders = (await cluster.tick()).orders
    assert len(orders) == 3, "the probe, and beside it what else there is room for"
    runs = [await cluster.run_of(order.task_id) for order in orders]
    assert [run.is_probe for run in runs].count(True) == 1
    assert await breaker_state(cluster) is BreakerState.HALF_OPEN
    probe = next(run for run in runs if run.is_probe)
    for run in runs:
        if run is not probe:
            await cluster.failed_start(run.task_id)
    assert await breaker_state(cluster) is BreakerState.HALF_OPEN, "only the probe has a say"
    await cluster.started(probe.task_id)
    assert await breaker_state(cluster) is BreakerState.CLOSED


@pytest.mark.parametrize("mode", ["observe", "off"])
async def test_a_breaker_that_a_person_has_tripped_holds_in_every_mode(cluster: Cluster, mode: str) -> None:
    await put(cluster, "DISPATCH_BREAKER_GUARD", mode)
    await cluster.run(lambda tx: trip_breaker(tx, RUN_KEY, None, CALLER, cluster.executors, cluster.rules))
    assert await orders_behind_an_open_breaker(cluster) == 0
    assert (False, "circuit_breaker_open", "cecelia-run") in await cluster.decisions()


async def test_enforced_again_an_open_breaker_holds_at_once(cluster: Cluster) -> None:
    await put(cluster, "DISPATCH_BREAKER_GUARD", "off")
    await fail_starts(cluster, 3)
    await reset(cluster, "DISPATCH_BREAKER_GUARD")
    assert await orders_behind_an_open_breaker(cluster) == 0
