"""Back-off: doubled with each attempt up to a maximum, with full jitter."""

from datetime import timedelta

_MICROSECOND = timedelta(microseconds=1)


def delay(attempt: int, base: timedelta, maximum: timedelta, fraction: float) -> timedelta:
    """The wait before the next attempt: `fraction` (0 <= fraction < 1, random) of min(maximum, base x 2^(attempt - 1)).

    `attempt` counts from 1. Full jitter as in "Exponential Backoff And Jitter" (M. Brooker, 2015).
    """
    limit = maximum // _MICROSECOND
    # Beyond 64 doublings every base of a microsecond or more has passed every maximum.
    ceiling = min(limit, (base // _MICROSECOND) << min(max(attempt, 1) - 1, 64))
    return timedelta(microseconds=int(ceiling * fraction))
