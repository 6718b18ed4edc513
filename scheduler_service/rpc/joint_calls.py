"""Calls that share a transaction: those that come while one is under way wait for the next, and for its commit, together.

A commit costs the same for one call as for a hundred; crowd.py says who waits for whom.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from scheduler_service.errors import StorageUnavailable
from scheduler_service.rpc.crowd import Crowd
from service_runtime.errors import ResourceExhausted

C = TypeVar("C")
A = TypeVar("A")

TOGETHER_MAX = 200
TOGETHER_MAX_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class _Waiting(Generic[C, A]):
    call: C
    key: str
    size: int
    answer: asyncio.Future[A] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class JointCalls(Generic[C, A]):
    """`carry_out` does calls in one transaction, all or none, and gives an answer or its own error for each, in their order.

    What it raises for several is nobody's fault in particular: each of them is then carried out alone.
    """

    def __init__(self, carry_out: Callable[[Sequence[C]], Awaitable[Sequence[A | Exception]]]) -> None:
        self._carry_out = carry_out
        self._waiting: deque[_Waiting[C, A]] = deque()
        self._crowd = Crowd()
        self._work: asyncio.Task[None] | None = None

    async def do(self, call: C, key: str, size: int) -> A:
        """The answer to one call of so many bytes. Raises what `carry_out` does.

        Of calls with one key ('': none) no two share a transaction.
        """
        mine: _Waiting[C, A] = _Waiting(call, key, size)
        self._waiting.append(mine)
        self._crowd.join()
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._until_none_waits())
        try:
            return await mine.answer
        finally:
            # Else an error, its traceback and this frame would hold each other, and the whole call.
            del mine

    async def _until_none_waits(self) -> None:
        batch: list[_Waiting[C, A]] = []
        try:
            while batch := self._next():
                served, self._crowd = self._crowd, Crowd(len(self._waiting))
                # Without those who were put off.
                served.size = len(batch)
                await self._together(batch)
                served.answered(len(self._waiting))
                if not self._enough_for_one():
                    await self._crowd.follow(served)
        finally:
            self._work = None
            # Cut off with the loop it runs in: nobody must go on waiting.
            for one in (*batch, *self._waiting):
                one.answer.cancel()

    def _enough_for_one(self) -> bool:
        """Whether those who wait fill a transaction, so that nobody needs to be waited for."""
        return len(self._waiting) >= TOGETHER_MAX or sum(one.size for one in self._waiting) >= TOGETHER_MAX_BYTES

    def _next(self) -> list[_Waiting[C, A]]:
        batch: list[_Waiting[C, A]] = []
        keys: set[str] = set()
        put_off: list[_Waiting[C, A]] = []
        room = TOGETHER_MAX_BYTES
        while self._waiting and len(batch) < TOGETHER_MAX and (not batch or self._waiting[0].size <= room):
            one = self._waiting.popleft()
            if one.answer.done():
                continue  # its caller has gone
            if one.key and one.key in keys:
                put_off.append(one)
                continue
            keys.add(one.key)
            batch.append(one)
            room -= one.size
        self._waiting.extendleft(reversed(put_off))
        return batch

    async def _together(self, batch: Sequence[_Waiting[C, A]]) -> None:
        answers = await self._answers(batch)
        if answers is None and len(batch) > 1:
            answers = await self._each_alone(batch)
        for one, answer in zip(batch, answers or (), strict=True):
            _tell(one, answer)

    async def _answers(self, batch: Sequence[_Waiting[C, A]]) -> Sequence[A | Exception] | None:
        """The answers; None for several of which one, nobody knows which, stands in the others' way."""
        try:
            return await self._carry_out([one.call for one in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers are told
            return [error] * len(batch) if len(batch) == 1 or isinstance(error, StorageUnavailable) else None

    async def _each_alone(self, batch: Sequence[_Waiting[C, A]]) -> Sequence[A | Exception]:
        answers: list[A | Exception] = []
        full: ResourceExhausted | None = None
        for one in batch:
            if full is not None and not one.key:
                # What has no room for one has none for those behind it; but for a repeated call, which has its answer already.
                answers.append(full)
                continue
            (answer,) = await self._answers([one]) or ()
            answers.append(answer)
            full = answer if isinstance(answer, ResourceExhausted) else full
        return answers


def _tell(one: _Waiting[C, A], answer: A | Exception) -> None:
    if one.answer.done():
        return
    if isinstance(answer, Exception):
        one.answer.set_exception(answer)
    else:
        one.answer.set_result(answer)
