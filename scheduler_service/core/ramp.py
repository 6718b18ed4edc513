"""Slow start: after a hold ends, starts ramp up 1, 2, 4, ... instead of bursting.

A level is spent before it doubles, and it doubles at most once a second; above the last level there is no limit.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

DOUBLING_INTERVAL = timedelta(seconds=1)
UNLIMITED_LEVEL = 64


@dataclass(frozen=True, slots=True)
class Ramp:
    """Starts allowed at this level (None: no limit), since when, and how many of them were spent."""

    level: int | None
    level_time: datetime
    started: int = 0


def restart(now: datetime) -> Ramp:
    """The ramp at its foot: one start."""
    return Ramp(1, now)


def unlimited(now: datetime) -> Ramp:
    """No ramp."""
    return Ramp(None, now)


def _advanced(ramp: Ramp, now: datetime) -> Ramp:
    if ramp.level is None or ramp.started < ramp.level:
        return ramp
    # A clock that went back must not hold starts until it has caught up.
    if timedelta(0) <= now - ramp.level_time < DOUBLING_INTERVAL:
        return ramp
    level = 2 * ramp.level
    return Ramp(level, now) if level < UNLIMITED_LEVEL else unlimited(now)


def allowance(ramp: Ramp, now: datetime) -> int | None:
    """How many starts are allowed at `now`; None: no limit."""
    current = _advanced(ramp, now)
    return None if current.level is None else max(0, current.level - current.started)


def spend(ramp: Ramp, n: int, now: datetime) -> Ramp:
    """The ramp after `n` starts at `now`."""
    if n == 0:
        return ramp
    current = _advanced(ramp, now)
    return Ramp(current.level, current.level_time, current.started + n)
