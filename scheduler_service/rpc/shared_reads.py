"""Reads that callers share: who asks the same while a reading is under way gets the next one's answer, together with all others.

The next one begins after all of them have asked, so that each sees what was committed before its call. However many people and
dashboards ask, each question is read once at a time; crowd.py says who waits for whom.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Any, TypeVar

from scheduler_service.rpc.crowd import Crowd

T = TypeVar("T")


class _Reading:
    """One reading, and those who wait for it."""

    def __init__(self) -> None:
        self.crowd = Crowd()
        self.work: asyncio.Task[Any] | None = None

    async def followed_by(self, crowd: Crowd) -> None:
        """Returns when this one has ended, and those who waited for it are likely to wait for the next."""
        if self.work is not None:
            await asyncio.wait([self.work])
        await crowd.follow(self.crowd)


class SharedReads:
    """Readings by what was asked. Of each question there is one that may still be joined, and the one before it."""

    def __init__(self) -> None:
        self._next: dict[Hashable, _Reading] = {}
        self._before: dict[Hashable, _Reading] = {}

    async def read(self, asked: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` finds, or the `read` of another caller who asked the same. Raises what it does.

        The answer is others' too: it is not to be changed.
        """
        reading = self._next.get(asked)
        if reading is None:
            reading = self._next[asked] = _Reading()
            reading.work = asyncio.get_running_loop().create_task(self._carry_out(asked, read, reading))
            # Before anybody waits for it, so that it is known when they were answered.
            reading.work.add_done_callback(partial(self._ended, asked, reading))
        reading.crowd.join()
        assert reading.work is not None
        # A caller that goes takes nothing from the others.
        answer: T = await asyncio.shield(reading.work)
        return answer

    async def _carry_out(self, asked: Hashable, read: Callable[[], Awaitable[T]], mine: _Reading) -> T:
        before = self._before.get(asked)
        if before is not None:
            await before.followed_by(mine.crowd)
        # Whoever asks from here on would not be sure to be answered by this one.
        del self._next[asked]
        self._before[asked] = mine
        return await read()

    def _ended(self, asked: Hashable, reading: _Reading, work: asyncio.Task[Any]) -> None:
        waiting = self._next.get(asked)
        reading.crowd.answered(waiting.crowd.size if waiting is not None and waiting is not reading else 0)
        asyncio.get_running_loop().call_later(reading.crowd.patience_s, self._forget, asked, reading)
        if self._next.get(asked) is reading:
            # Broken off before its turn.
            del self._next[asked]
        # Of one that fails when nobody waits any more, nobody needs to hear.
        _ = work.cancelled() or work.exception()

    def _forget(self, asked: Hashable, reading: _Reading) -> None:
        if self._before.get(asked) is reading:
            del self._before[asked]
