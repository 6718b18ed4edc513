"""Reads that callers share: who asks the same while a reading is under way gets the next one's answer, together with all others.

The next one begins after all of them have asked, so that each sees what was committed before its call. However many people and
dashboards ask, each question is read once at a time; who asks alone waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class SharedReads:
    """Readings by what was asked."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Task[Any]] = {}
        self._next: dict[Hashable, asyncio.Task[Any]] = {}

    async def read(self, asked: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` finds, or the `read` of another caller who asked the same. Raises what it does.

        The answer is others' too: it is not to be changed.
        """
        before = self._under_way.get(asked)
        if before is None:
            reading = self._under_way[asked] = self._begin(self._carry_out(asked, read))
        elif (waiting := self._next.get(asked)) is not None:
            reading = waiting
        else:
            reading = self._next[asked] = self._begin(self._carry_out(asked, read, before))
        # A caller that goes takes nothing from the others.
        answer: T = await asyncio.shield(reading)
        return answer

    def _begin(self, work: Any) -> asyncio.Task[Any]:
        reading: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work)
        # Of one that fails when nobody waits any more, nobody needs to hear.
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        return reading

    async def _carry_out(self, asked: Hashable, read: Callable[[], Awaitable[T]], before: asyncio.Task[Any] | None = None) -> T:
        try:
            if before is not None:
                await asyncio.wait([before])
            return await read()
        finally:
            following = self._next.pop(asked, None)
            if following is None:
                del self._under_way[asked]
            elif following is not asyncio.current_task():
                self._under_way[asked] = following
