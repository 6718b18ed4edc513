"""When a backend is paused because of what its service says of quota, rate or credentials.

The reference paused for one hour, or until the time that the answer named, and only for one class (reference.md 2.12); without a
pause every waiting task would ask the service in its turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

START_PAUSES: Mapping[str, timedelta] = MappingProxyType(
    {
        "billing_cap": timedelta(hours=1),
        "rate_limit": timedelta(minutes=2),
        "auth": timedelta(minutes=30),
    }
)
"""Reason of a neutral start verdict to the length of the pause when no time was named."""

END_PAUSES: Mapping[str, timedelta] = MappingProxyType({name: START_PAUSES[name] for name in ("billing_cap", "rate_limit")})
"""The same for the error class of a run that had begun; its credentials may be its own task's only."""


def pause_until(length: timedelta, retry_time: datetime | None, now: datetime, most: timedelta) -> datetime:
    """The end of a pause: the time that was named, if it lies ahead and no further than `most`; else after `length`."""
    if retry_time is not None and now < retry_time <= now + most:
        return retry_time
    return now + length
