"""Calls that share a transaction: who waits with whom, and who is told what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from scheduler_service.errors import StorageUnavailable
from scheduler_service.rpc.crowd import Crowd
from scheduler_service.rpc.joint_calls import TOGETHER_MAX, TOGETHER_MAX_BYTES, JointCalls
from service_runtime.errors import AlreadyExists, ResourceExhausted

FULL = ResourceExhausted("the queue is full", reason="QUEUE_FULL")


class Bench:
    """Carries calls out under the eyes of the test: each transaction waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.joint: JointCalls[str, str] = JointCalls(self.carry_out)
        self.answers: dict[str, str | Exception] = {}
        self.together: Exception | None = None

    async def carry_out(self, calls: Sequence[str]) -> Sequence[str | Exception]:
        self.batches.append(list(calls))
        await self.gate.wait()
        if self.together is not None and len(calls) > 1:
            raise self.together
        told = [self.answers.get(call, f"answer to {call}") for call in calls]
        if len(calls) == 1 and isinstance(told[0], Exception):
            raise told[0]
        return told

    async def begin(self, *calls: str, key: str = "", size: int = 100) -> list[asyncio.Task[str]]:
        tasks = [asyncio.create_task(self.joint.do(call, key, size)) for call in calls]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks

    async def first_and(self, *calls: str) -> list[asyncio.Task[str]]:
        """One call under way, and others that have come meanwhile."""
        return [*await self.begin("first"), *await self.begin(*calls)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def outcomes(tasks: Sequence[asyncio.Task[str]]) -> list[str | BaseException]:
    async with asyncio.timeout(5):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_comes_meanwhile_goes_together_and_each_gets_its_answer(bench: Bench) -> None:
    tasks = await bench.first_and("a", "b", "c")
    bench.gate.set()
    assert await outcomes(tasks) == ["answer to first", "answer to a", "answer to b", "answer to c"]
    assert bench.batches == [["first"], ["a", "b", "c"]]


async def test_who_comes_alone_after_a_crowd_is_served_all_the_same(bench: Bench) -> None:
    tasks = await bench.first_and("a", "b", "c")
    bench.gate.set()
    await outcomes(tasks)
    assert bench.batches == [["first"], ["a", "b", "c"]]
    assert await outcomes(await bench.begin("late")) == ["answer to late"]


async def test_where_some_were_waited_for_in_vain_those_behind_them_are_not_made_to_wait(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Crowd, "patience_s", 0.0)
    bench.gate.set()
    await outcomes(await bench.begin("a", "b", "c"))
    async with asyncio.timeout(5):
        while bench.joint._work is not None:
            await asyncio.sleep(0)
    monkeypatch.setattr(Crowd, "patience_s", 60.0)
    # Of those behind a, b and c, who were waited for in vain.
    await outcomes(await bench.begin("d", "e"))
    bench.batches.clear()
    assert await outcomes(await bench.begin("f")) == ["answer to f"]
    await outcomes(await bench.begin("g", "h"))
    (late,) = await bench.begin("i")
    assert bench.batches == [["f"], ["g", "h"]], "what was in vain once is tried again"
    await outcomes([late, *await bench.begin("j")])


async def test_those_who_were_answered_together_are_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crowd, "patience_s", 60.0)
    bench.gate.set()
    await outcomes(await bench.begin("a", "b", "c"))
    again = await bench.begin("d", "e")
    assert bench.batches == [["a", "b", "c"]], "the third is likely to call again too"
    again += await bench.begin("f")
    assert await outcomes(again) == ["answer to d", "answer to e", "answer to f"]
    assert bench.batches[1:] == [["d", "e", "f"]]


async def test_a_crowd_that_was_torn_apart_is_waited_for_as_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crowd, "patience_s", 60.0)
    tasks = await bench.first_and("a", "b")
    bench.gate.set()
    await outcomes(tasks[:1])
    assert bench.batches == [["first"]], "who was answered just now is likely to call again"
    (again,) = await bench.begin("again")
    assert await outcomes([*tasks[1:], again]) == ["answer to a", "answer to b", "answer to again"]
    assert bench.batches == [["first"], ["a", "b", "again"]]


async def test_nobody_is_waited_for_when_those_who_wait_fill_a_transaction(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crowd, "patience_s", 60.0)
    tasks = [*await bench.begin("first"), *await bench.begin("a", "b", size=TOGETHER_MAX_BYTES // 2)]
    bench.gate.set()
    await outcomes(tasks)
    assert bench.batches == [["first"], ["a", "b"]], "the first is not expected: there would be no room for it"


async def test_a_call_that_comes_later_is_carried_out_too(bench: Bench) -> None:
    bench.gate.set()
    assert await outcomes(await bench.begin("a")) == ["answer to a"]
    assert await outcomes(await bench.begin("b")) == ["answer to b"]


async def test_no_more_than_so_many_at_once(bench: Bench) -> None:
    tasks = await bench.first_and(*(str(n) for n in range(TOGETHER_MAX + 1)))
    bench.gate.set()
    await outcomes(tasks)
    assert [len(batch) for batch in bench.batches] == [1, TOGETHER_MAX, 1]


async def test_no_more_bytes_than_a_message_may_have_and_a_large_call_goes_alone(bench: Bench) -> None:
    half = TOGETHER_MAX_BYTES // 2
    tasks = await bench.begin("first")
    tasks += await bench.begin("a", "b", "c", size=half)
    tasks += await bench.begin("large", size=2 * TOGETHER_MAX_BYTES)
    bench.gate.set()
    await outcomes(tasks)
    assert bench.batches == [["first"], ["a", "b"], ["c"], ["large"]]


async def test_two_of_one_key_never_share_and_keep_their_order(bench: Bench) -> None:
    tasks = await bench.begin("first")
    tasks += await bench.begin("a", "b", key="same")
    tasks += await bench.begin("c", key="other")
    bench.gate.set()
    await outcomes(tasks)
    assert bench.batches == [["first"], ["a", "c"], ["b"]]


async def test_an_answer_that_is_an_error_is_its_own_callers(bench: Bench) -> None:
    bench.answers["b"] = AlreadyExists("used before", reason="REQUEST_ID_REUSED")
    tasks = await bench.first_and("a", "b")
    bench.gate.set()
    assert await outcomes(tasks) == ["answer to first", "answer to a", bench.answers["b"]]


async def test_one_in_the_others_way_is_found_by_going_alone(bench: Bench) -> None:
    bench.together = AlreadyExists("one of them", reason="TASK_EXISTS")
    bench.answers["b"] = bench.together
    tasks = await bench.first_and("a", "b", "c")
    bench.gate.set()
    assert await outcomes(tasks) == ["answer to first", "answer to a", bench.together, "answer to c"]
    assert bench.batches == [["first"], ["a", "b", "c"], ["a"], ["b"], ["c"]]


async def test_without_room_for_one_there_is_none_for_those_behind_it(bench: Bench) -> None:
    bench.together = FULL
    bench.answers |= {"b": FULL, "c": FULL}
    tasks = await bench.first_and("a", "b", "c")
    bench.gate.set()
    assert await outcomes(tasks) == ["answer to first", "answer to a", FULL, FULL]
    assert bench.batches[2:] == [["a"], ["b"]]


async def test_a_repeated_call_gets_its_answer_though_there_is_no_room(bench: Bench) -> None:
    bench.together = FULL
    bench.answers["new"] = FULL
    tasks = await bench.first_and("new")
    tasks += await bench.begin("repeated", key="id-1")
    bench.gate.set()
    assert await outcomes(tasks) == ["answer to first", FULL, "answer to repeated"]


async def test_a_database_that_is_away_is_told_to_all_at_once(bench: Bench) -> None:
    bench.together = StorageUnavailable("away")
    tasks = await bench.first_and("a", "b")
    bench.gate.set()
    assert (await outcomes(tasks))[1:] == [bench.together] * 2
    assert len(bench.batches) == 2


async def test_a_caller_that_has_gone_holds_nobody_up(bench: Bench) -> None:
    first, gone, stays = await bench.first_and("gone", "stays")
    gone.cancel()
    await asyncio.sleep(0)
    bench.gate.set()
    assert await outcomes([first, stays]) == ["answer to first", "answer to stays"]
    assert bench.batches == [["first"], ["stays"]]
