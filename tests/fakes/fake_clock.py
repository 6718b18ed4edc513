"""A clock that moves only when it is told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class FakeClock:
    """`now` and `monotonic` move together, by `advance`; `jump` moves the wall clock alone."""

    def __init__(self, start: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic = 1_000.0

    def now(self) -> datetime:
        """The wall clock."""
        return self._now

    def monotonic(self) -> float:
        """The clock that never jumps."""
        return self._monotonic

    def advance(self, **span: float) -> datetime:
        """Lets time pass: `advance(seconds=5)`."""
        step = timedelta(**span)
        self._now += step
        self._monotonic += step.total_seconds()
        return self._now

    def jump(self, **span: float) -> datetime:
        """Sets the wall clock, as an administrator would."""
        self._now += timedelta(**span)
        return self._now
