"""The leader's work against the memory store and a scripted executor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from msgspec import structs

from scheduler_service.core.breaker import Breaker
from scheduler_service.core.limits import TaskSpec
from scheduler_service.core.routing import BackendKind
from scheduler_service.core.run import (
    BackendReport,
    DispatchAnswer,
    ExecutorReport,
    LeaderIdentity,
    ReplayEnd,
    RunReport,
    RunState,
)
from scheduler_service.core.task import Task, TaskStatus
from scheduler_service.core.tuning import SettingValue
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict
from scheduler_service.errors import NotLeader, StorageUnavailable
from scheduler_service.settings import SchedulerSettings
from scheduler_service.tick import loop
from scheduler_service.tick.executor_link import ExecutorLink
from scheduler_service.tick.leader import Leader
from scheduler_service.tick.maintenance import Maintenance
from scheduler_service.tick.reaper import Reaper
from scheduler_service.transactions.auditing import Caller
from scheduler_service.transactions.editing import cancel_task
from scheduler_service.transactions.leading import acquire_or_renew
from scheduler_service.transactions.overrides import set_drain
from scheduler_service.transactions.recording import Recorded
from scheduler_service.transactions.submitting import submit
from scheduler_service.transactions.ticking import TickResult
from scheduler_service.transactions.tuning import set_setting
from service_runtime.clock import SystemClock
from tests.contract.conftest import DESCRIPTION, Cluster, report
from tests.fakes.fake_clock import FakeClock
from tests.fakes.memory_database import MemoryDatabase
from tests.fakes.scripted_executor import ScriptedExecutor

DEADLINE_S = 20.0


class Notes:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.leading: list[bool] = []
        self.ticks: list[bool] = []

    def ticked(self, seconds: float, result: TickResult) -> None:
        self.ticks.append(True)

    def tick_failed(self) -> None:
        self.ticks.append(False)

    def recorded(self, recorded: Recorded) -> None:
        """Nothing to keep."""

    def breakers_moved(self, breakers: Iterable[Breaker]) -> None:
        """Nothing to keep."""

    def drains_ended(self, took: Iterable[timedelta]) -> None:
        """Nothing to keep."""

    def led(self, leading: bool) -> None:
        self.leading.append(leading)


class Bench(Cluster):
    """A leader on the memory store whose clock does not tick: the tests do."""

    def __init__(self) -> None:
        clock = SystemClock()
        super().__init__(MemoryDatabase(clock.now), FakeClock())
        self.rules = replace(self.rules, tick_interval=timedelta(seconds=0.2), tick_enabled=False)
        self.executor = ScriptedExecutor()
        self.notes = Notes()
        self.leader = Leader(
            self.database,
            [self.executor],
            self.rules,
            clock,
            self.notes,
            holder=self.holder,
            address="here",
            lease=timedelta(seconds=3),
            lease_database=self.database,
            maintenance=Maintenance(self.database, clock, self.rules),
        )

    async def until(self, look: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not await look():
                await asyncio.sleep(0.005)

    async def until_status(self, task: Task, status: TaskStatus) -> None:
        async def there() -> bool:
            return (await self.task(task.id)).status is status

        await self.until(there)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    work = asyncio.ensure_future(made.leader.run())
    made.executor.news.put_nowait(report())
    made.executor.replay()
    yield made
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def test_a_tick_sends_what_it_claims_and_a_report_completes_it(bench: Bench) -> None:
    task = await bench.add()
    decisions = await bench.leader.run_tick()
    assert [(d.dispatched, d.task_id) for d in decisions] == [(True, task.id)]
    (order,) = bench.executor.ordered
    final = RunReport(order.run_id, task.id, 1, False, StartVerdict.SUCCESS, outcome=OutcomeClass.COMPLETED, exit_code=0)
    bench.executor.news.put_nowait(final)
    await bench.until_status(task, TaskStatus.COMPLETED)
    await bench.until(lambda: _is(bench.executor.acknowledged == [order.run_id]))


async def test_whoever_watches_is_told_of_failed_ticks_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.leader.run_tick()

    async def away(*_: object, **__: object) -> None:
        raise StorageUnavailable("as told")

    with monkeypatch.context() as broken:
        broken.setattr(bench.database, "run", away)
        with pytest.raises(StorageUnavailable):
            await bench.leader.run_tick()
    await bench.leader.run_tick()
    assert bench.notes.ticks == [True, False, True]


async def test_an_unanswered_dispatch_is_sent_again_under_the_same_run(bench: Bench) -> None:
    task = await bench.add()
    bench.executor.reachable = False
    (decision,) = await bench.leader.run_tick()
    assert (decision.dispatched, decision.reason) == (False, "")
    assert (await bench.task(task.id)).status is TaskStatus.DISPATCHING
    bench.executor.reachable = True
    await bench.until(lambda: _is(len(bench.executor.ordered) >= 2))
    assert len({order.run_id for order in bench.executor.ordered}) == 1
    assert (await bench.task(task.id)).fence == 1


async def test_a_full_executor_is_left_alone_until_its_next_snapshot(bench: Bench) -> None:
    await bench.add()
    bench.executor.answer = lambda order: DispatchAnswer(order.run_id, False, "server_overloaded", "CPU 99% >= 80%")
    (decision,) = await bench.leader.run_tick()
    assert decision.reason == "server_overloaded"
    await bench.add("Another one")
    assert [d.reason for d in await bench.leader.run_tick()] == ["pool_exhausted"]
    bench.executor.answer = lambda order: DispatchAnswer(order.run_id, True)
    bench.executor.news.put_nowait(report())
    await asyncio.sleep(1.05)  # the ramp of a new leader doubles once a second
    dispatched = [d for d in await bench.leader.run_tick() if d.dispatched]
    assert dispatched


def with_gpu(kind: BackendKind | None, *, configured: bool = True, local: bool = False, max_runs: int = 2) -> ExecutorReport:
    own = report()
    return replace(
        own, backends=(*own.backends, BackendReport("gpu", local, configured, configured, "", "", max_runs, 0, False, kind))
    )


async def test_a_plug_in_has_its_breaker_as_soon_as_its_executor_knows_what_it_is(bench: Bench) -> None:
    async def keys() -> set[str]:
        return {key for key in await bench.run(lambda tx: tx.breakers()) if key.startswith("gpu")}

    async def shared() -> bool:
        return await keys() == {"gpu"}

    async def both() -> bool:
        return await keys() == {"gpu", "gpu@host-a"}

    bench.executor.news.put_nowait(with_gpu(None, configured=False))
    bench.executor.news.put_nowait(with_gpu(BackendKind.SHARED))
    await bench.until(shared)
    bench.executor.news.put_nowait(with_gpu(BackendKind.PER_EXECUTOR))
    await bench.until(both)


async def test_a_backend_that_has_reached_its_own_limit_leaves_the_others_their_slots(bench: Bench) -> None:
    bench.executor.news.put_nowait(with_gpu(BackendKind.PER_EXECUTOR, local=True))
    await bench.until(lambda: _has_gpu(bench))
    bench.executor.answer = lambda order: DispatchAnswer(order.run_id, order.backend != "gpu", "server_overloaded", "2 of 2 runs")
    await bench.run(
        lambda tx: submit(tx, [TaskSpec(title="A sweep", description=DESCRIPTION, task_type="sweep")], {"sweep": "gpu"}, uuid4)
    )
    (refused,) = await bench.leader.run_tick()
    assert (refused.backend, refused.reason) == ("gpu", "server_overloaded")
    local = await bench.add()
    assert [(d.dispatched, d.task_id) for d in await bench.leader.run_tick()] == [(True, local.id)]


async def _has_gpu(bench: Bench) -> bool:
    (link,) = bench.leader.known_links
    return link.report is not None and len(link.report.backends) == 3


async def test_a_run_that_the_executor_disowns_is_refused_for_good_and_waits_for_its_lease(bench: Bench) -> None:
    task = await bench.add()
    await bench.leader.run_tick()
    first = bench.executor.ordered[0]
    assert (await bench.task(task.id)).run_id == first.run_id
    bench.executor.break_off()
    bench.executor.news.put_nowait(report())
    bench.executor.replay()  # a new opening of the stream that does not name it
    await bench.until(lambda: _is(first.run_id in bench.executor.cancelled))
    assert (await bench.task(task.id)).status is TaskStatus.DISPATCHING, "it may live on somewhere: its lease must run out"


async def test_a_replay_that_cannot_be_read_whole_ends_nothing(bench: Bench) -> None:
    await bench.add()
    await bench.leader.run_tick()
    run_id = bench.executor.ordered[0].run_id
    bench.executor.known.add(run_id)
    bench.executor.break_off()
    bench.executor.news.put_nowait(report())
    bench.executor.news.put_nowait(ReplayEnd(1))  # it says that it has named one, and nothing was heard of it
    await bench.until(lambda: _is(bench.executor.openings == 2 and bench.leader.links[0]._opening.caught_up))
    assert run_id not in bench.executor.cancelled


async def test_a_cancelled_task_is_ended_there(bench: Bench) -> None:
    task = await bench.add()
    await bench.leader.run_tick()
    run_id = bench.executor.ordered[0].run_id
    bench.executor.known.add(run_id)
    await bench.run(lambda tx: cancel_task(tx, task.id, actor="me", reason="", request_id=""))
    bench.leader.wake_links()
    await bench.until(lambda: _is(run_id in bench.executor.cancelled))
    bench.executor.news.put_nowait(RunReport(run_id, task.id, 1, False, outcome=OutcomeClass.CANCELLED))
    await bench.until_status(task, TaskStatus.CANCELLED)


async def test_a_run_whose_end_is_recorded_is_let_go_of_as_that(bench: Bench) -> None:
    """As an HTTP bridge's callback leaves it: ended here, and unknown to its executor."""
    task = await bench.add()
    await bench.leader.run_tick()
    run_id = bench.executor.ordered[0].run_id
    bench.executor.known.add(run_id)
    await bench.completed(task.id)
    bench.leader.compare_soon()
    await bench.until(lambda: _is(bench.executor.let_go_as == {run_id: OutcomeClass.COMPLETED}))
    assert bench.executor.cancelled == [run_id]


async def test_a_taken_over_leader_claims_nothing_and_says_who_leads(bench: Bench) -> None:
    await bench.add()
    await bench.leader.run_tick()
    other = uuid4()

    async def usurp(tx: object) -> None:
        state = bench.database.state  # type: ignore[attr-defined]  # the memory store
        state.leadership = replace(state.leadership, lease_until=None)

    await usurp(None)
    await bench.run(lambda tx: acquire_or_renew(tx, other, "there", timedelta(seconds=30)))
    task = await bench.add("After the change")
    with pytest.raises(NotLeader):
        await bench.leader.run_tick()
    assert (await bench.task(task.id)).status is TaskStatus.QUEUED
    await bench.until(lambda: _is(bench.notes.leading[-1] is False))


async def test_a_lease_expires_only_by_both_clocks() -> None:
    clock = FakeClock()
    cluster = Cluster(MemoryDatabase(clock.now), clock)
    await cluster.lead()
    task = await cluster.add()
    await cluster.tick()
    await cluster.started(task.id)
    reaper = Reaper(cluster.database, cluster.rules, clock, Notes(), lambda: None)
    assert await reaper.look() == []
    clock.jump(hours=1)
    assert await reaper.look() == [], "the wall clock alone says nothing"
    clock.jump(hours=-1)
    clock.advance(minutes=10, seconds=20)
    assert await reaper.look() == [], "one lease on our own clock, but not 1.05 by the database's"
    clock.advance(seconds=20)
    assert await reaper.look() == [(await cluster.run_of(task.id)).run_id]
    assert (await cluster.task(task.id)).status is TaskStatus.QUEUED


async def _set(bench: Bench, name: str, value: SettingValue) -> None:
    configured = SchedulerSettings().configured()[name]
    caller = Caller("tester", "because", "")
    await bench.run(lambda tx: set_setting(tx, name, value, caller, configured, bench.rules))
    bench.leader.wake()


async def test_the_clock_is_switched_on_at_run_time(bench: Bench) -> None:
    task = await bench.add()
    await bench.until(lambda: _is(bench.leader.leading))
    assert bench.notes.ticks == []
    await _set(bench, "TICK_ENABLED", True)
    await bench.until(lambda: _is([order.task_id for order in bench.executor.ordered] == [task.id]))
    await _set(bench, "TICK_ENABLED", False)
    await bench.until(lambda: _is(bench.notes.ticks[-1] is False))


async def test_the_clock_goes_by_another_interval_at_run_time(bench: Bench) -> None:
    await bench.until(lambda: _is(bench.leader.leading))
    await _set(bench, "TICK_ENABLED", True)
    await _set(bench, "TICK_INTERVAL_MS", 3_600_000)
    await bench.leader.run_tick()
    before = len(bench.notes.ticks)
    await _set(bench, "TICK_INTERVAL_MS", 50)
    # Nothing but the clock makes so many ticks.
    await bench.until(lambda: _is(len(bench.notes.ticks) >= before + 4))


async def _is(value: bool) -> bool:
    return value


async def test_a_run_begun_after_the_opening_is_not_missed_in_its_replay(bench: Bench) -> None:
    """The stream opens, a run is begun, and only then comes the end of the replay, which cannot name it."""
    await bench.add()
    await bench.leader.run_tick()
    first = bench.executor.ordered[0].run_id
    bench.executor.known.add(first)
    bench.executor.break_off()
    bench.executor.news.put_nowait(report())
    bench.executor.news.put_nowait(RunReport(first, bench.executor.ordered[0].task_id, 1, True, StartVerdict.SUCCESS))
    await bench.until(lambda: _is(bench.executor.openings == 2))
    await asyncio.sleep(1.05)  # the ramp of a new leader doubles once a second
    task = await bench.add("Begun meanwhile")
    await bench.leader.run_tick()
    second = (await bench.task(task.id)).run_id
    assert second is not None
    bench.executor.known.add(second)
    bench.executor.replay()
    done = await bench.add("The replay has been taken in when this is")
    bench.executor.news.put_nowait(report(slots=3))
    await bench.until(lambda: _is(bench.leader.links[0]._opening.caught_up))
    assert bench.executor.cancelled == [], (second, done.id)


async def test_leases_are_renewed_as_soon_as_a_stream_has_caught_up(bench: Bench) -> None:
    task = await bench.add()
    await bench.leader.run_tick()
    run = await bench.run_of(task.id)
    bench.executor.known.add(run.run_id)

    async def renewed() -> bool:
        return run.run_id in bench.executor.renewed

    bench.executor.break_off()
    bench.executor.news.put_nowait(report())
    bench.executor.replay(RunReport(run.run_id, task.id, run.fence, live=True, verdict=StartVerdict.SUCCESS))
    await bench.until(renewed)


async def test_an_order_of_a_cancelled_task_is_called_off_and_not_sent_again(bench: Bench) -> None:
    task = await bench.add()
    bench.executor.reachable = False
    await bench.leader.run_tick()
    sent = len(bench.executor.ordered)
    await bench.run(lambda tx: cancel_task(tx, task.id, actor="me", reason="", request_id=""))
    bench.executor.reachable = True
    bench.leader.wake_links()
    await bench.until_status(task, TaskStatus.CANCELLED)
    assert len(bench.executor.ordered) == sent


async def test_a_run_that_has_been_heard_of_meanwhile_is_neither_sent_again_nor_called_off(bench: Bench) -> None:
    task = await bench.add()
    await bench.leader.run_tick()
    run = await bench.run_of(task.id)
    bench.executor.news.put_nowait(RunReport(run.run_id, task.id, run.fence, True, StartVerdict.SUCCESS))
    await bench.until_status(task, TaskStatus.RUNNING)
    (link,) = bench.leader.links
    sent = len(bench.executor.ordered)
    for claimed in (run.claim_time, run.claim_time - bench.rules.lease_ttl):
        as_seen_before = structs.replace(run, state=RunState.DISPATCHING, claim_time=claimed)
        await link._resend(LeaderIdentity(uuid4(), 1), [as_seen_before])
    assert bench.executor.cancelled == []
    assert len(bench.executor.ordered) == sent


async def test_two_executors_of_one_name_are_told_apart_and_the_second_is_left_out(bench: Bench) -> None:
    await bench.until(lambda: _is(bench.leader.links[0].live))
    twin = ScriptedExecutor()
    twin.target = "scripted:2"
    link = ExecutorLink(
        twin, bench.database, bench.rules, SystemClock(), bench.notes, lambda: None, bench.holder, lambda: bench.leader.links
    )
    work = asyncio.ensure_future(link.run(LeaderIdentity(uuid4(), 1)))
    for _ in range(3):
        twin.news.put_nowait(report())
    await bench.until(lambda: _is(twin.openings >= 2))
    assert not link.live
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def test_one_link_that_breaks_takes_nothing_else_along(bench: Bench) -> None:
    bench.executor.news.put_nowait("nonsense")  # type: ignore[arg-type]  # what no client should ever yield
    await bench.until(lambda: _is(bench.executor.openings >= 2))
    bench.executor.news.put_nowait(report())
    bench.executor.replay()
    task = await bench.add()
    await bench.until(lambda: _is(bench.leader.links[0].live))
    decisions = await bench.leader.run_tick()
    assert [d.task_id for d in decisions if d.dispatched] == [task.id]
    assert bench.notes.leading == [True]


async def test_drains_end_by_themselves_also_where_the_clock_does_not_tick(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever wakes it then is heard by the gap for that.
    monkeypatch.setattr(loop, "WOKEN_GAP_S", 60.0)
    caller = Caller("me", "", "")
    await bench.until(lambda: _is(bench.leader.leading))

    async def ended() -> bool:
        return await bench.run(lambda tx: tx.drains()) == []

    for _ in range(2):
        await bench.run(lambda tx: set_drain(tx, True, "deploy", True, caller))
        await bench.until(ended)
