"""How long a crowd is waited for, and how many of it."""

from __future__ import annotations

import asyncio

import pytest

from scheduler_service.rpc.crowd import EACH_S, GROWN_MOST, MOST_S, Crowd


async def waited_for(before: Crowd) -> int:
    """How many have to come until a crowd goes on that follows this one."""
    crowd = Crowd()
    waiting = asyncio.create_task(crowd.follow(before))
    for _ in range(1_000):
        for _ in range(3):
            await asyncio.sleep(0)
        if waiting.done():
            return crowd.size
        crowd.join()
    raise AssertionError("a thousand were not enough")


@pytest.mark.parametrize(
    ("size", "waiting", "seconds"), [(0, 0, 0.0), (1, 0, EACH_S), (6, 2, 8 * EACH_S), (1_000, 1_000, MOST_S)]
)
async def test_the_more_are_expected_the_longer_and_not_for_ever(size: int, waiting: int, seconds: float) -> None:
    crowd = Crowd(size)
    crowd.answered(waiting)
    assert crowd.patience_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("size", "waiting", "expected"),
    [
        (1, 0, 1),
        (6, 2, 8),
        (GROWN_MOST, 1, GROWN_MOST),
        # Else callers that come by themselves would be kept waiting for ever more.
        (GROWN_MOST - 1, 5, GROWN_MOST),
        (3 * GROWN_MOST, 40, 3 * GROWN_MOST),
    ],
)
async def test_who_was_answered_is_waited_for_and_with_few_also_who_waited_meanwhile(
    size: int, waiting: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Crowd, "patience_s", 60.0)
    before = Crowd(size)
    before.answered(waiting)
    assert await waited_for(before) == expected


async def test_who_was_waited_for_in_vain_lets_nobody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crowd, "patience_s", 0.0)
    before, vain = Crowd(2), Crowd(1)
    before.answered(0)
    await vain.follow(before)
    monkeypatch.setattr(Crowd, "patience_s", 60.0)
    vain.answered(1)
    assert await waited_for(vain) == 0
