"""Several schedulers on one database: one leads, the others answer and stand by, whatever happens to the first."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from cecelia.scheduler.v1 import scheduler_service_pb2_grpc as pb_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.acceptance.programs import DESCRIPTION, Pair, Program, channel_to, eventually

SLOTS = 3
REPLICAS = 3
LEADER_LEASE_MS = 3000
"""Machines that test are busy: a leader that gets no processor for a second is to be one all the same."""


class Replicas:
    """Schedulers and one executor with few slots."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.pair = Pair(
            folder, database_url, LEASE_TTL_MS="60000", LEADER_LEASE_MS=str(LEADER_LEASE_MS), CECELIA_BUDGET_SLOTS=str(SLOTS)
        )
        self.schedulers = [self.pair.scheduler]
        for number in range(1, REPLICAS):
            data_dir = folder / f"scheduler-{number}"
            env = {**self.pair.scheduler._env, "DISPATCH_DATA_DIR": str(data_dir)}
            self.schedulers.append(Program("scheduler_service", env, data_dir, folder / f"scheduler-{number}.log"))

    async def start(self) -> None:
        await self.pair.start()
        for scheduler in self.schedulers[1:]:
            scheduler._env["EXECUTOR_TARGETS"] = f"127.0.0.1:{self.pair.executor.port}"
            await scheduler.start()

    async def stop(self) -> None:
        for scheduler in self.schedulers[1:]:
            with contextlib.suppress(TimeoutError):
                await scheduler.end()
        await self.pair.stop()

    async def leader(self, among: Iterable[Program] | None = None) -> Program:
        """The one that says that it leads."""

        async def look() -> Program | None:
            leading = [program for program in among or self.schedulers if (await status(program)).leader]
            return leading[0] if len(leading) == 1 else None

        return await eventually(look)

    def others(self, program: Program) -> list[Program]:
        return [scheduler for scheduler in self.schedulers if scheduler is not program]


@contextlib.asynccontextmanager
async def calls(program: Program) -> AsyncIterator[Any]:
    async with channel_to(program.port) as channel:
        yield pb_grpc.SchedulerServiceStub(channel)


async def status(program: Program) -> pb.GetStatusResponse:
    async with calls(program) as stub:
        answer: pb.GetStatusResponse = await stub.GetStatus(pb.GetStatusRequest(), timeout=5)
        return answer


async def submit(program: Program, count: int) -> list[str]:
    tasks = [pb.TaskSpec(title=f"Task number {i}", description=DESCRIPTION, max_tries=1) for i in range(count)]

    async def submitted() -> list[str]:
        async with calls(program) as stub:
            return [task.id for task in (await stub.SubmitTasks(pb.SubmitTasksRequest(tasks=tasks), timeout=10)).tasks]

    return await eventually(submitted)


def most_at_once(ledger: Path) -> int:
    """The largest number of commands that ran at the same time."""
    running = most = 0
    for line in ledger.read_text().splitlines():
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    return most


@pytest.fixture
async def replicas(tmp_path: Path, database_url: str) -> AsyncIterator[Replicas]:
    made = Replicas(tmp_path, database_url)
    await made.start()
    yield made
    await made.stop()


async def test_one_leads_and_the_others_answer_and_say_who(replicas: Replicas) -> None:
    leader = await replicas.leader()
    ids = await submit(replicas.others(leader)[0], 4)
    await replicas.pair.until_ended(ids)
    for program in replicas.others(leader):
        answer = await status(program)
        assert (answer.leader, answer.leader_address) == (False, f"127.0.0.1:{leader.port}")
        async with calls(program) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.RunTick(pb.RunTickRequest(), timeout=10)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"127.0.0.1:{leader.port}" in (refused.value.details() or "")
        details: Any = rpc_status.from_call(refused.value)
        info = error_details_pb2.ErrorInfo()
        assert details.details[0].Unpack(info)
        assert info.reason == "not_leader"
    answers = []
    for program in replicas.schedulers:
        async with calls(program) as stub:
            answers.append(
                (
                    await stub.GetDispatchStats(pb.GetDispatchStatsRequest(), timeout=5),
                    await stub.ListBreakers(pb.ListBreakersRequest(), timeout=5),
                )
            )
    assert answers[0][0].attempts.success == 4
    assert answers[1:] == answers[:1] * (REPLICAS - 1)


async def test_a_killed_leader_is_replaced_when_its_lease_is_over(replicas: Replicas) -> None:
    leader = await replicas.leader()
    rest = replicas.others(leader)
    term = (await status(leader)).term
    killed_at = time.monotonic()
    await leader.kill()
    following = await replicas.leader(rest)
    print(f"LEADER_LEASE_MS {LEADER_LEASE_MS}: a killed leader was replaced within {time.monotonic() - killed_at:.2f} s")
    assert (await status(following)).term == term + 1
    ids = await submit(next(program for program in rest if program is not following), 3)

    async def ended() -> bool:
        async with calls(following) as stub:
            found = [(await stub.GetTask(pb.GetTaskRequest(task_id=id_), timeout=5)).task for id_ in ids]
        return all(task.status == pb.TASK_STATUS_COMPLETED for task in found)

    await eventually(ended)


async def test_a_leader_that_was_paused_and_wakes_up_changes_nothing(replicas: Replicas) -> None:
    leader = await replicas.leader()
    rest = replicas.others(leader)
    replicas.pair.write_command(seconds=0.5)
    ids = await submit(rest[0], 12)
    await eventually(lambda: _said(len(replicas.pair.starts()) >= 2))
    os.kill(leader.pid, signal.SIGSTOP)
    try:
        await replicas.leader(rest)
        await eventually(lambda: _said(len(replicas.pair.starts()) >= 6))
    finally:
        os.kill(leader.pid, signal.SIGCONT)
    await replicas.pair.until_ended(ids)
    assert not (await status(leader)).leader
    assert leader.log.read_text().count(" leading ") == 1, "it has not led again"
    assert Counter(replicas.pair.starts()) == Counter(ids)
    assert most_at_once(replicas.pair.ledger) <= SLOTS


async def test_a_follower_goes_on_with_the_events_where_the_leader_was_cut_off(replicas: Replicas) -> None:
    leader = await replicas.leader()
    rest = replicas.others(leader)
    ids = await submit(leader, 2)
    await replicas.pair.until_ended(ids)
    seen: list[int] = []

    async def read(program: Program, until: int) -> None:
        async with calls(program) as stub, asyncio.timeout(60):
            async for answer in stub.WatchEvents(pb.WatchEventsRequest(after_event_id=seen[-1] if seen else 0)):
                seen.append(answer.event.id)
                if len(seen) >= until:
                    return

    await read(leader, 3)
    await leader.kill()
    following = await replicas.leader(rest)
    more = await submit(rest[0], 2)
    follower = next(program for program in rest if program is not following)

    async def done() -> bool:
        async with calls(follower) as stub:
            found = [(await stub.GetTask(pb.GetTaskRequest(task_id=id_), timeout=5)).task for id_ in more]
        return all(task.status == pb.TASK_STATUS_COMPLETED for task in found)

    await eventually(done)
    # As many ends as there are tasks: what is told after them does not matter here.
    whole: list[int] = []
    ends = 0
    async with calls(follower) as stub, asyncio.timeout(60):
        async for answer in stub.WatchEvents(pb.WatchEventsRequest()):
            whole.append(answer.event.id)
            ends += answer.event.type == "task_completed"
            if ends == len(ids) + len(more):
                break
    await read(follower, len(whole))
    assert seen == whole
    assert whole == sorted(set(whole))


async def _said(value: bool) -> bool:
    return value


async def test_nothing_is_lost_and_no_slot_is_given_twice_through_kills_and_pauses_of_leaders(replicas: Replicas) -> None:
    chance = random.Random(int(os.environ.get("CHAOS_SEED", "1")))
    replicas.pair.write_command(seconds=0.3)
    ids: list[str] = []
    for _ in range(int(os.environ.get("CHAOS_LEADERS", "3"))):
        leader = await replicas.leader()
        ids += await submit(replicas.others(leader)[0], 8)
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        if chance.random() < 0.5:
            await leader.kill()
            await replicas.leader(replicas.others(leader))
            await leader.start()
        else:
            os.kill(leader.pid, signal.SIGSTOP)
            try:
                await replicas.leader(replicas.others(leader))
            finally:
                os.kill(leader.pid, signal.SIGCONT)
    tasks = await replicas.pair.until_ended(ids)
    assert Counter(task.status for task in tasks) == {pb.TASK_STATUS_COMPLETED: len(ids)}
    assert Counter(replicas.pair.starts()) == Counter(ids)
    assert most_at_once(replicas.pair.ledger) <= SLOTS
