"""Those who were answered together are likely to ask together again: whoever serves them next waits for them, but not for long.

The more they were the longer it is waited: each takes its time to read its answer and to ask again. Who waited already when they
were answered is counted too, up to a bound, so that a crowd that was torn apart comes together again: of eight callers three or
four were served together without that, seven with it. Who comes alone, and not just after others, waits for nobody. Where callers
come one by one, some of them are waited for in vain: then those behind them are not made to wait.
"""

from __future__ import annotations

import asyncio

EACH_S = 0.0015
"""How long each of those who are waited for lets the others wait at most. Eight callers of one process took 6 to 11 ms."""
MOST_S = 0.05
"""With more, callers who come by themselves, a thousand a second, could be kept waiting for ever larger crowds."""
GROWN_MOST = 16
"""A crowd that was torn apart is waited for up to this size: of callers who come by themselves, a thousand a second, crowds would
grow until MOST_S bounds them."""


class Crowd:
    """Those who are served together, or wait to be."""

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self._there = size
        self._answered_time = 0.0
        self._in_vain = False
        self._came = asyncio.Event()

    @property
    def patience_s(self) -> float:
        """How long it is worth to wait for them to come again."""
        return min(MOST_S, EACH_S * self._there)

    def join(self) -> None:
        """One more."""
        self.size += 1
        self._came.set()

    def answered(self, waiting: int) -> None:
        """They have their answers now, while so many others wait already."""
        self._there = max(self.size, min(self.size + waiting, GROWN_MOST))
        self._answered_time = asyncio.get_running_loop().time()

    async def follow(self, before: Crowd) -> None:
        """Returns when as many have come as were there when those before were answered, or are not likely to come any more."""
        if before._in_vain:
            return
        try:
            async with asyncio.timeout_at(before._answered_time + before.patience_s):
                while self.size < before._there:
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            self._in_vain = True
