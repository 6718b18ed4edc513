"""Those who were answered together are likely to ask together again: whoever serves them next waits for them, but not for long.

The more they were the longer it is waited: each takes its time to read its answer and to ask again. Of a small crowd those are
counted too who waited already when the others were answered, so that one that was torn apart comes together again: of eight
callers three or four were served together without that, five to seven with it. Who comes alone, and not just after others, waits
for nobody. Where callers come one by one, some of them are waited for in vain: then those behind them are not made to wait.
"""

from __future__ import annotations

import asyncio

EACH_S = 0.001
"""How long each of those who are expected lets the others wait at most. Callers who come by themselves faster than that, a
thousand a second, are always worth waiting for: what they wait is bounded by GROWN_MOST, or by MOST_S."""
MOST_S = 0.05
"""Nobody is let wait longer than this for others."""
GROWN_MOST = 16
"""To so many a crowd that was torn apart is let grow."""


class Crowd:
    """Those who are served together, or wait to be."""

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self._expected = 0
        self._answered_time = 0.0
        self._in_vain = False
        self._came = asyncio.Event()

    @property
    def patience_s(self) -> float:
        """How long it is worth to wait for those who are expected after this one."""
        return min(MOST_S, EACH_S * self._expected)

    def join(self) -> None:
        """One more."""
        self.size += 1
        self._came.set()

    def answered(self, waiting: int) -> None:
        """They have their answers now, while so many others wait already. To be called before the next one follows."""
        self._expected = max(self.size, min(self.size + waiting, GROWN_MOST))
        self._answered_time = asyncio.get_running_loop().time()

    async def follow(self, before: Crowd) -> None:
        """Returns when as many have come as are expected after those before, or others are not likely to come any more."""
        if before._in_vain:
            return
        try:
            async with asyncio.timeout_at(before._answered_time + before.patience_s):
                while self.size < before._expected:
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            self._in_vain = True
