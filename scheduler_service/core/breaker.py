"""The circuit breaker of one key: three states, and who may move them.

CLOSED lets everything through and counts consecutive failures; at the threshold it opens. OPEN lets nothing through
and nothing recorded moves it; when its time is over, one probe may be claimed. HALF_OPEN waits for the verdict of that
probe run and of no other. An operator may reset or trip it from every state. `TRANSITIONS` lists all of it; a
probe claimed when none is admitted raises `IllegalTransition`, and nothing else that comes can change the state.

The generation rises with every transition, and an outcome that was claimed under another generation is ignored: late
news from an old era neither closes nor opens anything. The stored state is the state: time alone changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from scheduler_service.core.events import EventType
from scheduler_service.core.routing import BackendKind
from scheduler_service.core.task import IllegalTransition

FAILURE_THRESHOLD_REACHED = "failure_threshold_reached"
HALF_OPEN_PROBE_FAILED = "half_open_probe_failed"


class BreakerState(StrEnum):
    """The three states; wire values."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


# Looked up once: on the class, a member takes as long to find as a breaker to copy (Python 3.11).
_CLOSED = BreakerState.CLOSED


class Signal(StrEnum):
    """What may move a breaker."""

    THRESHOLD_REACHED = "threshold_reached"
    PROBE_CLAIMED = "probe_claimed"
    PROBE_SUCCEEDED = "probe_succeeded"
    PROBE_FAILED = "probe_failed"
    PROBE_NEUTRAL = "probe_neutral"
    RESET = "reset"
    TRIP = "trip"


class Admission(StrEnum):
    """What a breaker says to the next start."""

    ALLOW = "allow"
    PROBE = "probe"
    BLOCK = "block"


_ALLOW = Admission.ALLOW


TRANSITIONS: Mapping[tuple[BreakerState, Signal], BreakerState] = MappingProxyType(
    {
        (BreakerState.CLOSED, Signal.THRESHOLD_REACHED): BreakerState.OPEN,
        (BreakerState.OPEN, Signal.PROBE_CLAIMED): BreakerState.HALF_OPEN,
        (BreakerState.HALF_OPEN, Signal.PROBE_SUCCEEDED): BreakerState.CLOSED,
        (BreakerState.HALF_OPEN, Signal.PROBE_FAILED): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, Signal.PROBE_NEUTRAL): BreakerState.OPEN,
        **{(state, Signal.RESET): BreakerState.CLOSED for state in BreakerState},
        **{(state, Signal.TRIP): BreakerState.OPEN for state in BreakerState},
    }
)


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """FAILURE_THRESHOLD consecutive failures open; OPEN_DURATION_MS later a probe may go."""

    failure_threshold: int = 3
    open_duration: timedelta = timedelta(minutes=30)


class Breaker(msgspec.Struct, frozen=True):
    """One breaker as stored. `open_duration` is set by a trip that named one; None: the setting counts.

    A Struct, as core.task.Task is.
    """

    key: str
    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    last_failure_time: datetime | None = None
    opened_time: datetime | None = None
    open_duration: timedelta | None = None
    generation: int = 0
    probe_run_id: UUID | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BreakerEvent:
    """`circuit_open{key, reason, failures}` or `circuit_closed{key, previous_state, previous_failures}`."""

    type: EventType
    payload: Mapping[str, Any] = field(default_factory=dict)


Recorded = tuple[Breaker, tuple[BreakerEvent, ...]]
"""A breaker after something happened, and what to tell about it. The same object back means: nothing to store."""


def breaker_key(backend: str, kind: BackendKind, executor_id: str) -> str:
    """The key of the row that a start of `backend` on `executor_id` counts in."""
    return backend if kind is BackendKind.SHARED else f"{backend}@{executor_id}"


def _moved(breaker: Breaker, signal: Signal) -> Breaker:
    target = TRANSITIONS[breaker.state, signal]
    return replace(breaker, state=target, generation=breaker.generation + 1, probe_run_id=None)


def _opened(breaker: Breaker) -> BreakerEvent:
    return BreakerEvent(EventType.CIRCUIT_OPEN, {"key": breaker.key, "reason": breaker.reason, "failures": breaker.failures})


def _closed(before: Breaker) -> BreakerEvent:
    return BreakerEvent(
        EventType.CIRCUIT_CLOSED,
        {"key": before.key, "previous_state": before.state.value, "previous_failures": before.failures},
    )


def _cleared(breaker: Breaker, reason: str) -> Breaker:
    return replace(breaker, failures=0, last_failure_time=None, opened_time=None, open_duration=None, reason=reason)


def _is_probe(breaker: Breaker, run_id: UUID) -> bool:
    return breaker.state is BreakerState.HALF_OPEN and breaker.probe_run_id == run_id


def record_success(breaker: Breaker, now: datetime, generation: int, run_id: UUID) -> Recorded:
    """A successful start verdict of a run claimed under `generation`: clears the count, or closes after a probe."""
    if breaker.generation != generation:
        return breaker, ()
    if breaker.state is _CLOSED:
        return (_cleared(breaker, breaker.reason), ()) if breaker.failures else (breaker, ())
    if _is_probe(breaker, run_id):
        return _cleared(_moved(breaker, Signal.PROBE_SUCCEEDED), ""), (_closed(breaker),)
    return breaker, ()


def record_failure(breaker: Breaker, now: datetime, generation: int, run_id: UUID, settings: BreakerSettings) -> Recorded:
    """A failed start verdict of a run claimed under `generation`. The count stays at most twice the threshold."""
    if breaker.generation != generation:
        return breaker, ()
    failures = breaker.failures + 1
    if breaker.state is _CLOSED:
        if failures < settings.failure_threshold:
            return replace(breaker, failures=failures, last_failure_time=now), ()
        signal, reason = Signal.THRESHOLD_REACHED, FAILURE_THRESHOLD_REACHED
    elif _is_probe(breaker, run_id):
        signal, reason = Signal.PROBE_FAILED, HALF_OPEN_PROBE_FAILED
    else:
        return breaker, ()
    counted = replace(breaker, failures=min(failures, 2 * settings.failure_threshold), last_failure_time=now)
    opened = replace(_moved(counted, signal), opened_time=now, open_duration=None, reason=reason)
    return opened, (_opened(opened),)


def record_neutral(breaker: Breaker, now: datetime, generation: int, run_id: UUID) -> Recorded:
    """A run ended without a verdict on its backend: neutral, rejected, cancelled or lost.

    It matters only for the probe: OPEN again with the old opened time, so that the next tick may probe. No event, as
    nothing was learned.
    """
    if breaker.generation == generation and _is_probe(breaker, run_id):
        return _moved(breaker, Signal.PROBE_NEUTRAL), ()
    return breaker, ()


def retry_time(breaker: Breaker, settings: BreakerSettings, now: datetime) -> datetime | None:
    """When a probe may go, while OPEN; None otherwise. An opened time in the future counts as now."""
    if breaker.state is not BreakerState.OPEN or breaker.opened_time is None:
        return None
    duration = settings.open_duration if breaker.open_duration is None else breaker.open_duration
    try:
        return min(breaker.opened_time, now) + duration
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def clamp_opened_time(breaker: Breaker, now: datetime) -> Breaker:
    """The breaker with an opened time that is not in the future.

    The clock may have gone back (another database host). Who holds the row stores this when it differs: else the
    waiting time would begin anew with every look at it.
    """
    if breaker.opened_time is None or breaker.opened_time <= now:
        return breaker
    return replace(breaker, opened_time=now)


def admit(breaker: Breaker, now: datetime, settings: BreakerSettings) -> Admission:
    """What the breaker says to the next start at `now`; the instant of the retry time itself admits a probe."""
    if breaker.state is _CLOSED:
        return _ALLOW
    due = retry_time(breaker, settings, now)
    return Admission.PROBE if due is not None and due <= now else Admission.BLOCK


def claim_probe(breaker: Breaker, run_id: UUID, now: datetime, settings: BreakerSettings) -> Breaker:
    """Let `run_id` be the one probe. Raises IllegalTransition unless the breaker admits a probe now."""
    if admit(breaker, now, settings) is not Admission.PROBE:
        raise IllegalTransition(f"breaker {breaker.key} is {breaker.state} and admits no probe now")
    return replace(_moved(breaker, Signal.PROBE_CLAIMED), probe_run_id=run_id)


def reset(breaker: Breaker, now: datetime, reason: str) -> Recorded:
    """Force CLOSED. Outcomes of runs claimed before are ignored from here on."""
    closed = _cleared(_moved(breaker, Signal.RESET), reason)
    return closed, () if breaker.state is BreakerState.CLOSED else (_closed(breaker),)


def trip(breaker: Breaker, now: datetime, reason: str, duration: timedelta | None) -> Recorded:
    """Force OPEN from `now` for `duration` (None: the setting). An OPEN one is renewed without an event."""
    opened = replace(_moved(breaker, Signal.TRIP), opened_time=now, open_duration=duration, reason=reason)
    return opened, () if breaker.state is BreakerState.OPEN else (_opened(opened),)


def describe_bare(key: str, breakers: Sequence[Breaker], settings: BreakerSettings) -> Breaker:
    """What the bare name of a per-executor backend answers over the breakers of its live executors; never a row.

    CLOSED if any is or none is known, else HALF_OPEN if any is, else OPEN; failures the least, the opened time and
    duration those of the earliest retry time, generation the sum.
    """
    if not breakers:
        return Breaker(key)
    states = {breaker.state for breaker in breakers}
    state = next(state for state in (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN) if state in states)
    shown = min(
        (breaker for breaker in breakers if breaker.state is state),
        key=lambda breaker: _retry_order(breaker, settings),
    )
    failure_times = [b.last_failure_time for b in breakers if b.last_failure_time is not None]
    return replace(
        shown,
        key=key,
        failures=min(breaker.failures for breaker in breakers),
        last_failure_time=max(failure_times, default=None),
        generation=sum(breaker.generation for breaker in breakers),
    )


def _retry_order(breaker: Breaker, settings: BreakerSettings) -> datetime:
    latest = datetime.max.replace(tzinfo=UTC)
    return retry_time(breaker, settings, latest) or latest
