"""Reads that callers share: who gets which reading's answer."""

from __future__ import annotations

import asyncio

import pytest

from scheduler_service.rpc.crowd import Crowd
from scheduler_service.rpc.shared_reads import SharedReads


class Bench:
    """Readings under the eyes of the test: each waits until it is let go, and answers with its number."""

    def __init__(self) -> None:
        self.reads = SharedReads()
        self.begun = 0
        self.error: Exception | None = None
        self._gates: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def read(self) -> int:
        self.begun += 1
        number = self.begun
        gate = asyncio.Event()
        self._gates.put_nowait(gate)
        await gate.wait()
        if self.error is not None:
            raise self.error
        return number

    async def ask(self, count: int = 1, what: str = "stats") -> list[asyncio.Task[int]]:
        asked = [asyncio.create_task(self.reads.read(what, self.read)) for _ in range(count)]
        await self.turn()
        return asked

    async def let_go(self) -> None:
        """Ends the reading that is under way, or begins soon."""
        async with asyncio.timeout(5):
            (await self._gates.get()).set()
        await self.turn()

    @staticmethod
    async def turn() -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_who_asks_during_a_reading_gets_the_next_one_and_all_of_them_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    first = await bench.ask()
    others = await bench.ask(2)
    assert bench.begun == 1, "the next one begins when the first has ended"
    monkeypatch.setattr(Crowd, "patience_s", 60.0)
    await bench.let_go()
    assert await asyncio.gather(*first) == [1]
    assert bench.begun == 1, "who was answered just now is likely to ask again"
    others += await bench.ask()
    assert bench.begun == 2
    monkeypatch.setattr(Crowd, "patience_s", 0.0)
    late = await bench.ask(2)
    await bench.let_go()
    assert await asyncio.gather(*others) == [2, 2, 2]
    await bench.let_go()
    assert await asyncio.gather(*late) == [3, 3], "what began before they asked may not know what they know"


async def test_after_a_reading_that_nobody_followed_the_next_caller_begins_at_once() -> None:
    bench = Bench()
    for number in (1, 2):
        asked = await bench.ask()
        assert bench.begun == number
        await bench.let_go()
        assert await asyncio.gather(*asked) == [number]


async def test_those_who_were_answered_together_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crowd, "patience_s", 60.0)
    bench = Bench()
    first = await bench.ask(3)
    await bench.let_go()
    assert await asyncio.gather(*first) == [1, 1, 1]
    again = await bench.ask(2)
    assert bench.begun == 1, "the third is likely to ask again too"
    again += await bench.ask()
    assert bench.begun == 2
    await bench.let_go()
    assert await asyncio.gather(*again) == [2, 2, 2]


async def test_they_are_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crowd, "patience_s", 0.2)
    bench = Bench()
    first = await bench.ask(3)
    await bench.let_go()
    await asyncio.gather(*first)
    two = await bench.ask(2)
    assert bench.begun == 1
    await bench.let_go()
    assert await asyncio.gather(*two) == [2, 2]
    (alone,) = await bench.ask()
    assert bench.begun == 3, "after those who were waited for in vain nobody is"
    await bench.let_go()
    assert await alone == 3


async def test_what_is_asked_differently_is_read_apart() -> None:
    bench = Bench()
    await bench.ask(what="stats")
    await bench.ask(what="status")
    assert bench.begun == 2


async def test_a_caller_that_goes_takes_nothing_from_the_others() -> None:
    bench = Bench()
    (first,) = await bench.ask()
    going, staying = await bench.ask(2)
    first.cancel()
    going.cancel()
    await bench.turn()
    await bench.let_go()
    await bench.let_go()
    assert await staying == 2
    assert first.cancelled()
    assert going.cancelled()


async def test_a_reading_that_is_broken_off_before_its_turn_is_forgotten() -> None:
    bench = Bench()
    (first,) = await bench.ask()
    (waiting,) = await bench.ask()
    broken = bench.reads._next["stats"].work
    assert broken is not None
    broken.cancel()
    await bench.turn()
    assert waiting.cancelled()
    await bench.let_go()
    assert await first == 1
    (again,) = await bench.ask()
    await bench.let_go()
    assert await again == 2


async def test_an_error_is_told_to_each_and_the_next_reading_is_a_new_one() -> None:
    bench = Bench()
    asked = [*await bench.ask(), *await bench.ask(2)]
    bench.error = ValueError("as one reading would make it")
    await bench.let_go()
    await bench.let_go()
    for one in asked:
        with pytest.raises(ValueError, match="as one reading"):
            await one
    bench.error = None
    (again,) = await bench.ask()
    await bench.let_go()
    assert await again == 3
