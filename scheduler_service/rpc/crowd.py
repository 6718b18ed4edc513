"""Those who were answered together are likely to ask together again: whoever serves them next waits for them, but not for long.

The more they were the longer it is waited: each takes its time to read its answer and to ask again. Who comes alone, and not just
after others, waits for nobody. Where callers come one by one, some of them are waited for in vain: then those behind them are
not made to wait.
"""

from __future__ import annotations

import asyncio

EACH_S = 0.001
"""How long each of those who were answered lets the next ones wait at most."""
MOST_S = 0.05
"""With more, callers who come by themselves, a thousand a second, could be kept waiting for ever larger crowds."""


class Crowd:
    """Those who are served together, or wait to be."""

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self._in_vain = False
        self._came = asyncio.Event()

    @property
    def patience_s(self) -> float:
        """How long it is worth to wait for them to come again."""
        return min(MOST_S, EACH_S * self.size)

    def join(self) -> None:
        """One more."""
        self.size += 1
        self._came.set()

    async def follow(self, before: Crowd, answered: float) -> None:
        """Returns when as many have come as were served before, or when others are not likely to come any more.

        `answered`: when those before got their answers, by the loop's clock.
        """
        if before._in_vain:
            return
        try:
            async with asyncio.timeout_at(answered + before.patience_s):
                while self.size < before.size:
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            self._in_vain = True
