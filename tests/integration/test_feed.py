"""What `up` shows as it happens: whose task it is, each thing once, in order, and the gate that holds a backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl import samples
from dispatchctl.batch_file import Batch
from dispatchctl.client import SchedulerClient
from dispatchctl.feed import Feed
from dispatchctl.samples import SampleRun
from tests.fakes.fake_scheduler import FakeScheduler, serving

# For all that one test waits for: far more than it needs, and never without end.
DEADLINE_S = 30.0


@pytest.fixture
def scheduler() -> FakeScheduler:
    return FakeScheduler()


@pytest.fixture
async def client(scheduler: FakeScheduler) -> AsyncIterator[SchedulerClient]:
    with serving(scheduler) as address:
        async with SchedulerClient(address, 5.0) as one:
            yield one


def started(task_id: str, title: str, at: datetime) -> pb.Event:
    event = pb.Event(id=1, type="task_dispatched", time=at)
    event.payload.update({"task_id": task_id, "title": title, "status": "running", "backend": "cecelia-run"})
    return event


async def test_tasks_of_earlier_runs_are_told_from_ours(scheduler: FakeScheduler, client: SchedulerClient) -> None:
    said: list[str] = []
    earlier = scheduler._store(pb.TaskSpec(title="Fix the login page"))
    feed = Feed(client, said.append)
    async with asyncio.timeout(DEADLINE_S):
        await feed.begin()
    ours = scheduler._store(pb.TaskSpec(title="Fix the login page"))
    async with asyncio.timeout(DEADLINE_S):
        for task in (earlier, ours):
            await feed._show(started(task.id, task.title, datetime.now(UTC)))
    feed._show_decision(pb.DispatchEvent(reason="server_overloaded", task_id=earlier.id))
    assert ["earlier: Fix the login page" in line for line in said] == [True, False, True]
    assert "Fix the login page" in said[1]


async def test_an_event_that_comes_again_is_shown_once(client: SchedulerClient) -> None:
    said: list[str] = []
    feed = Feed(client, said.append)
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(2):
            await feed._show_once(started("t", "Fix the login page", datetime.now(UTC)))
    assert len(said) == 1


async def test_a_refusal_that_has_an_event_is_shown_once(client: SchedulerClient) -> None:
    said: list[str] = []
    feed = Feed(client, said.append)
    feed._show_decision(pb.DispatchEvent(reason="pre_flight_check_failed", task_id="t"))
    assert said == []


async def test_what_is_learnt_late_is_not_shown_as_earlier(client: SchedulerClient) -> None:
    said: list[str] = []
    feed = Feed(client, said.append)
    now = datetime.now(UTC)
    for after in (5.0, 3.0, 6.0):
        feed.line("x", now + timedelta(seconds=after))
    times = [float(line.split("s")[0]) for line in said]
    assert times == sorted(times)
    assert times[2] - times[1] == pytest.approx(1.0, abs=0.11)


async def test_a_gate_is_told_for_each_backend_that_it_holds(
    scheduler: FakeScheduler, client: SchedulerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "FIRST_HOLD_S", 0.2)
    monkeypatch.setattr(samples, "LOOK_S", 0.02)
    monkeypatch.setattr(samples, "CATCH_UP_S", 0.0)
    said: list[str] = []
    feed = Feed(client, said.append)
    specs = [pb.TaskSpec(title=f"Task {n}") for n in range(4)]
    run = SampleRun(client, feed, Batch(tuple(specs), {}), "r")
    async with asyncio.timeout(DEADLINE_S):
        await run.submit()
    local, waiting, blocked, remote = scheduler.tasks.values()
    for task in (local, waiting, blocked):
        task.backend = "cecelia-run"
    blocked.hold_reason = "dependency"
    remote.backend = "hk-minimax"
    gates = [("drain", "", False), ("breaker", "hk-minimax", True), ("slots", "cecelia-run", True), ("last", "", True)]
    guards = [pb.GuardVerdict(name=n, backend=b, holds=h, reason=f"{n}_holds", detail=f"{n} says no") for n, b, h in gates]
    scheduler.explanation = pb.ExplainDispatchResponse(guards=guards)

    def looked() -> None:
        # MiniMax starts and ends; the local tasks stay where they are.
        remote.status = pb.TASK_STATUS_COMPLETED
        if any("cecelia-run" in line for line in said):
            for task in (local, waiting, blocked):
                task.status = pb.TASK_STATUS_COMPLETED

    scheduler.on_get = looked
    async with asyncio.timeout(DEADLINE_S):
        await run.until_ended()
    assert len(said) == 1
    assert "waiting      cecelia-run    slots_holds (2 tasks held): slots says no" in said[0]
