"""The rolling window over dispatch outcomes and the rule that reads it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

import msgspec


@dataclass(frozen=True, slots=True)
class Outcome:
    """One recorded decision; `reason` is empty for a success or when none was given."""

    time: datetime
    success: bool
    reason: str = ""


class Window(msgspec.Struct, frozen=True):
    """Counts over a window. `rate` is success / total, None while total is 0; `failure_reasons`: failures by code."""

    total: int = 0
    success: int = 0
    failed: int = 0
    rate: float | None = None
    failure_reasons: Mapping[str, int] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    last_updated: datetime | None = None


def merge(counts: Iterable[tuple[bool, str | None, int]], last_updated: datetime | None = None) -> Window:
    """The window of counts (success, reason, n), in any order and with repeated keys.

    A reason beside a success is discarded; a failure without reason counts as failed and in no bucket.
    """
    success = failed = 0
    reasons: dict[str, int] = {}
    for succeeded, reason, n in counts:
        if succeeded:
            success += n
            continue
        failed += n
        if reason and n:
            reasons[reason] = reasons.get(reason, 0) + n
    total = success + failed
    return Window(
        total=total,
        success=success,
        failed=failed,
        rate=success / total if total else None,
        failure_reasons=MappingProxyType(reasons),
        last_updated=last_updated if total else None,
    )


def compute_window(outcomes: Iterable[Outcome], now: datetime, window: timedelta) -> Window:
    """The window at `now`: an outcome exactly one window old is in; there is no upper edge, as in the reference."""
    cutoff = now - window
    inside = [outcome for outcome in outcomes if outcome.time >= cutoff]
    return merge(
        ((outcome.success, outcome.reason, 1) for outcome in inside),
        last_updated=max((outcome.time for outcome in inside), default=None),
    )


def low_rate(window: Window, threshold: float, min_sample: int) -> bool:
    """Whether a window is large enough to judge and its rate strictly below the threshold."""
    return window.rate is not None and window.total >= min_sample and window.rate < threshold
