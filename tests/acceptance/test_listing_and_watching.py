"""What became of tasks, over a real socket: the decisions behind the window, and one task watched to its end."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import grpc
import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from tests.acceptance.programs import SETTLE_S, Pair

PRE_FLIGHT = "pre_flight_check_failed"


async def test_decisions_are_filtered_by_task_reason_and_outcome_and_paged(pair: Pair) -> None:
    good, other = await pair.submit(2)
    aside, also_aside = await pair.submit(2, title="x")
    await pair.until_ended([good, other, aside, also_aside])
    async with pair.calls() as stub:

        async def listed(**chosen: Any) -> list[pb.DispatchEvent]:
            events: list[pb.DispatchEvent] = []
            token = ""
            while True:
                answer = await stub.ListDispatchEvents(pb.ListDispatchEventsRequest(page_token=token, **chosen), timeout=10)
                events += answer.events
                if not (token := answer.next_page_token):
                    return events

        everything = await listed()
        ids = [event.id for event in everything]
        assert ids == sorted(ids, reverse=True), "newest first"
        assert await listed(page_size=1) == everything
        for task_id, success, reason in ((good, True, ""), (aside, False, PRE_FLIGHT)):
            mine = [event for event in everything if event.task_id == task_id]
            assert [(event.success, event.reason) for event in mine][:1] == [(success, reason)]
            assert await listed(task_id=task_id) == mine
            assert await listed(task_id=task_id, success=success) == [e for e in mine if e.success is success]
        assert {event.task_id for event in await listed(success=True)} == {good, other}
        assert await listed(success=False) == [event for event in everything if not event.success]
        assert {event.task_id for event in await listed(reason=PRE_FLIGHT)} == {aside, also_aside}
        assert await listed(task_id=good, reason=PRE_FLIGHT) == []
        token = (await stub.ListDispatchEvents(pb.ListDispatchEventsRequest(page_size=1), timeout=10)).next_page_token
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListDispatchEvents(pb.ListDispatchEventsRequest(page_token=token, success=True), timeout=10)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, "a page of another list"


async def test_a_watched_task_is_told_change_by_change_and_the_stream_ends_with_it(pair: Pair) -> None:
    pair.write_command(seconds=0.5)
    async with pair.calls() as stub, asyncio.timeout(SETTLE_S):
        await stub.SetDrain(pb.SetDrainRequest(enabled=True, reason="not yet"), timeout=10)
        runs, is_cancelled = await pair.submit(2)
        (is_aside,) = await pair.submit(title="x")

        async def watched(task_id: str, first: asyncio.Event) -> list[pb.Task]:
            """Every state that the stream told until it ended by itself."""
            told: list[pb.Task] = []
            async for message in stub.WatchTask(pb.WatchTaskRequest(task_id=task_id), timeout=SETTLE_S):
                told.append(message.task)
                first.set()
            return told

        heard = [asyncio.Event() for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            streams = [
                group.create_task(watched(id_, first)) for id_, first in zip((runs, is_cancelled, is_aside), heard, strict=True)
            ]
            for first in heard:
                await first.wait()
            await stub.CancelTask(pb.CancelTaskRequest(task_id=is_cancelled, reason="not wanted"), timeout=10)
            await stub.SetDrain(pb.SetDrainRequest(enabled=False, reason="now"), timeout=10)
        completed, cancelled, aside = (stream.result() for stream in streams)
        assert [told[0].status for told in (completed, cancelled, aside)] == [pb.TASK_STATUS_QUEUED] * 3
        assert pb.TASK_STATUS_RUNNING in {task.status for task in completed}
        assert completed[-1].status == pb.TASK_STATUS_COMPLETED
        assert cancelled[-1].status == pb.TASK_STATUS_CANCELLED
        assert aside[-1].status == pb.TASK_STATUS_QUARANTINED
        for told in (completed, cancelled, aside):
            assert all(before != after for before, after in itertools.pairwise(told)), "only changes are told"
            assert await pair.tasks([told[-1].id]) == told[-1:]
            again = [message.task async for message in stub.WatchTask(pb.WatchTaskRequest(task_id=told[-1].id), timeout=10)]
            assert again == told[-1:], "a watch that comes after the end says it once"
