"""The gate chain: may anything start now, on which backend, and if not, why not?

Facts are gathered once; a check is a function from them to verdicts, `DISPATCH_CHECKS` is the chain in its order.
Pre-flight judges single tasks and is not here. A verdict says what its gate says whether or not anything is queued;
`recordable` picks the holds that concern a queued task, for only those enter the window.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from scheduler_service.core.breaker import Admission, Breaker, BreakerSettings, BreakerState, admit, retry_time
from scheduler_service.core.outcome_window import Window, low_rate
from scheduler_service.core.reasons import Reason
from scheduler_service.core.slot_budget import Pools, hold_reason

AVAILABILITY = "availability"
"""The name of the last gate."""


class GuardMode(StrEnum):
    """DISPATCH_RATE_GUARD and DISPATCH_BREAKER_GUARD: hold, only say that it would have held, or do not look."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """The settings of the low-rate guard and of the breakers; whatever `breaker_guard` says, breakers open and close."""

    rate_threshold: float = 0.3
    min_sample: int = 10
    rate_guard: GuardMode = GuardMode.ENFORCE
    low_rate_probe_interval: timedelta = timedelta(seconds=60)
    breaker_guard: GuardMode = GuardMode.ENFORCE
    breaker: BreakerSettings = field(default_factory=BreakerSettings)


class BillingPause(msgspec.Struct, frozen=True):
    """A pause of one backend, or of all (`backend` empty), until a time."""

    backend: str
    until_time: datetime
    reason: str = ""


class BackendFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one backend.

    `queued` counts its queued tasks, `due` those that could be claimed now. `breakers` is its one breaker (shared) or
    those of its live executors. `live_executors` are heard, not draining and have it configured; `misconfigured` is what is
    wrong with it where it is not; `offered_elsewhere` is what live executors have in its place. `max_runs` and `running` are the
    backend's own limit over them; None: none.
    """

    backend: str
    local: bool
    queued: int
    due: int
    live_executors: int
    misconfigured: str = ""
    offered_elsewhere: str = ""
    attempts: Window = msgspec.field(default_factory=Window)
    last_trickle_time: datetime | None = None
    breakers: tuple[Breaker, ...] = ()
    max_runs: int | None = None
    running: int = 0


class GateFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that the chain looks at; `pools` is the sum over executors, None while none has a resource sample.

    `tripped` are the keys of the breakers that a person has tripped: those hold in every mode.
    """

    now: datetime
    backends: tuple[BackendFacts, ...]
    draining: tuple[str, ...] = ()
    billing_pauses: tuple[BillingPause, ...] = ()
    pools: Pools | None = None
    tripped: frozenset[str] = frozenset()
    settings: CheckSettings = msgspec.field(default_factory=CheckSettings)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one gate says about one backend (empty: all). `would_hold`: it only observes, and would have held."""

    name: str
    backend: str
    holds: bool
    reason: Reason | None = None
    value: str = ""
    limit: str = ""
    detail: str = ""
    clears_time: datetime | None = None
    would_hold: bool = False


class Permit(msgspec.Struct, frozen=True):
    """How a backend that no gate holds may start: at most `limit` tasks (None: no limit of a gate).

    `low_rate`: its one start sets the time of the last trickle. `prefers_probe`: as the probe of a breaker if one can be placed,
    which needs no trickle permit. `trickle`: otherwise the permit that is due.
    """

    limit: int | None = None
    low_rate: bool = False
    prefers_probe: bool = False
    trickle: bool = False


Check = Callable[[GateFacts], Iterator[Verdict]]


def check_draining(facts: GateFacts) -> Iterator[Verdict]:
    """Drained while any source says so."""
    sources = ", ".join(sorted(facts.draining))
    yield Verdict(
        name="draining",
        backend="",
        holds=bool(facts.draining),
        reason=Reason.DRAINING if facts.draining else None,
        value=sources,
        limit="no source",
        detail=f"draining by {sources}" if facts.draining else "not draining",
    )


def check_billing_pause(facts: GateFacts) -> Iterator[Verdict]:
    """A pause of all, then of each backend; over at its very time."""
    for backend in ("", *(b.backend for b in facts.backends)):
        pauses = [p for p in facts.billing_pauses if p.backend == backend and p.until_time > facts.now]
        pause = max(pauses, key=lambda p: p.until_time, default=None)
        why = f": {pause.reason}" if pause and pause.reason else ""
        yield Verdict(
            name="billing_pause",
            backend=backend,
            holds=pause is not None,
            reason=None if pause is None else Reason.BILLING_PAUSE,
            value="" if pause is None else f"{pause.until_time:%Y-%m-%dT%H:%M:%SZ}",
            limit="no pause" if pause is None else f"{facts.now:%Y-%m-%dT%H:%M:%SZ}",
            detail="no pause" if pause is None else f"paused for billing{why}",
            clears_time=None if pause is None else pause.until_time,
        )


def check_slots(facts: GateFacts) -> Iterator[Verdict]:
    """The task pool for local backends, then a backend's own limit; nothing without a live executor."""
    for backend in facts.backends:
        if backend.live_executors == 0:
            detail = "no executor to count slots on"
            yield Verdict(name="slots", backend=backend.backend, holds=False, value="0", limit="0", detail=detail)
            continue
        pool = _local_slots(backend.backend, facts.pools) if backend.local else None
        yield pool if pool is not None and (pool.holds or backend.max_runs is None) else _own_slots(backend)


def _local_slots(backend: str, pools: Pools | None) -> Verdict:
    reason = hold_reason(pools)
    if pools is None:
        detail = "no resource sample yet"
        return Verdict(
            name="slots", backend=backend, holds=True, reason=reason, value="no sample", limit="a sample", detail=detail
        )
    pool = pools.task_pool
    details = {
        None: f"{pool.available} of {pool.budget} task slots free",
        Reason.USER_TEAM_MODE: f"{pools.user.used} interactive sessions leave no task slot",
        Reason.POOL_EXHAUSTED: _exhausted(pools),
        Reason.POOL_C_FULL: f"all {pool.budget} task slots are taken",
    }
    return Verdict(
        name="slots",
        backend=backend,
        holds=reason is not None,
        reason=reason,
        value=str(pool.used),
        limit=str(pool.budget),
        detail=details[reason],
    )


def _exhausted(pools: Pools) -> str:
    """What leaves no task slot, with the settings that have a say in it."""
    if pools.effective_slots == 0 or pools.load:
        return f"the machine's load leaves no task slot{f': {pools.load}' if pools.load else ''}"
    seats, kept = pools.total_capacity, pools.user.budget
    for_internal = f", {pools.internal.budget} for internal tasks" if pools.internal.budget else ""
    return (
        f"of {seats} seats (MEM_PER_TASK_MB, CPU_PER_TASK, CECELIA_BUDGET_SLOTS) {kept} are kept for people "
        f"(INTERACTIVE_RESERVE, sessions){for_internal}: none is left for tasks"
    )


def _own_slots(backend: BackendFacts) -> Verdict:
    full = backend.max_runs is not None and backend.running >= backend.max_runs
    limit = "no limit" if backend.max_runs is None else f"{backend.max_runs} runs at once"
    return Verdict(
        name="slots",
        backend=backend.backend,
        holds=full,
        reason=Reason.POOL_C_FULL if full else None,
        value=str(backend.running),
        limit="none" if backend.max_runs is None else str(backend.max_runs),
        detail=f"{backend.running} running, {limit}",
    )


def check_low_success_rate(facts: GateFacts) -> Iterator[Verdict]:
    """Start attempts of the backend only: no block can feed itself. One task an interval, or a probe, still passes."""
    settings = facts.settings
    for backend in facts.backends:
        window = backend.attempts
        low = settings.rate_guard is not GuardMode.OFF and low_rate(window, settings.rate_threshold, settings.min_sample)
        held = low and not _trickle_due(backend, facts) and not _probe_due(backend, facts)
        enforced = settings.rate_guard is GuardMode.ENFORCE
        yield Verdict(
            name="low_success_rate",
            backend=backend.backend,
            holds=held and enforced,
            reason=Reason.LOW_SUCCESS_RATE if held and enforced else None,
            value="" if window.rate is None else f"{window.rate:.3f}",
            limit=f"{settings.rate_threshold:g}",
            detail=_rate_detail(window, low, held, settings),
            clears_time=_trickle_time(backend, facts) if held and enforced else None,
            would_hold=held and not enforced,
        )


def _rate_detail(window: Window, low: bool, held: bool, settings: CheckSettings) -> str:
    counts = f"{window.success} of {window.total} starts succeeded"
    if settings.rate_guard is GuardMode.OFF:
        return f"{counts}; the guard is off"
    if window.total < settings.min_sample:
        return f"{counts}; judged from {settings.min_sample} on"
    if not low:
        return counts
    return f"{counts}; waiting for the next single try" if held else f"{counts}; a single try may go"


def _trickle_time(backend: BackendFacts, facts: GateFacts) -> datetime | None:
    if backend.last_trickle_time is None:
        return None
    return backend.last_trickle_time + facts.settings.low_rate_probe_interval


def next_trickle_time(facts: GateFacts, backend: str) -> datetime | None:
    """When the next single try of a backend with a low success rate may go; None when one may go now."""
    return next((_trickle_time(b, facts) for b in facts.backends if b.backend == backend), None)


def _trickle_due(backend: BackendFacts, facts: GateFacts) -> bool:
    due = _trickle_time(backend, facts)
    # A permit spent in the future means that the clock went back: it must not hold until the clock has caught up.
    return due is None or due <= facts.now or due > facts.now + facts.settings.low_rate_probe_interval


def _admissions(backend: BackendFacts, facts: GateFacts) -> set[Admission]:
    return {admit(breaker, facts.now, facts.settings.breaker) for breaker in backend.breakers}


def _probe_due(backend: BackendFacts, facts: GateFacts) -> bool:
    return Admission.PROBE in _admissions(backend, facts)


def breaker_enforced(key: str, facts: GateFacts) -> bool:
    """Whether a breaker's word holds: as the mode says, or because a person has tripped it."""
    return facts.settings.breaker_guard is GuardMode.ENFORCE or key in facts.tripped


def check_breaker(facts: GateFacts) -> Iterator[Verdict]:
    """Holds a backend when every breaker it has says no; each executor's own is asked again where a task is placed."""
    settings = facts.settings.breaker
    for backend in facts.backends:
        blocked = _admissions(backend, facts) == {Admission.BLOCK}
        holds = blocked and all(breaker_enforced(breaker.key, facts) for breaker in backend.breakers)
        retries = [t for b in backend.breakers if (t := retry_time(b, settings, facts.now)) is not None]
        yield Verdict(
            name="circuit_breaker_open",
            backend=backend.backend,
            holds=holds,
            reason=Reason.CIRCUIT_BREAKER_OPEN if holds else None,
            value=str(min((b.failures for b in backend.breakers), default=0)),
            limit=str(settings.failure_threshold),
            detail=_breaker_detail(backend.breakers, blocked) + ("" if holds or not blocked else _not_enforced(facts)),
            clears_time=min(retries, default=None) if holds else None,
            would_hold=blocked and not holds and facts.settings.breaker_guard is GuardMode.OBSERVE,
        )


def _not_enforced(facts: GateFacts) -> str:
    return "; it is only observed" if facts.settings.breaker_guard is GuardMode.OBSERVE else "; the guard is off"


def _breaker_detail(breakers: Sequence[Breaker], blocked: bool) -> str:
    if not blocked:
        closed = not breakers or any(b.state is BreakerState.CLOSED for b in breakers)
        return "closed" if closed else "open; a probe may go"
    probing = any(b.state is BreakerState.HALF_OPEN for b in breakers)
    reason = next((b.reason for b in breakers if b.reason), "")
    return "a probe is under way" if probing else f"the breaker is open ({reason})" if reason else "the breaker is open"


def check_availability(facts: GateFacts) -> Iterator[Verdict]:
    """Whether any live executor has the backend, and has it configured rightly."""
    for backend in facts.backends:
        absent = backend.live_executors == 0
        reason, detail = None, "1 executor" if backend.live_executors == 1 else f"{backend.live_executors} executors"
        if absent and backend.misconfigured:
            reason, detail = Reason.CONFIG_ERROR, backend.misconfigured
        elif absent:
            offers = f" ({backend.offered_elsewhere})" if backend.offered_elsewhere else ""
            reason, detail = Reason.NO_EXECUTOR, f"no executor answers for it{offers}"
        yield Verdict(
            name=AVAILABILITY,
            backend=backend.backend,
            holds=absent,
            reason=reason,
            value=str(backend.live_executors),
            limit="1",
            detail=detail,
        )


DISPATCH_CHECKS: tuple[Check, ...] = (
    check_draining,
    check_billing_pause,
    check_slots,
    check_low_success_rate,
    check_breaker,
    check_availability,
)


def evaluate(facts: GateFacts) -> list[Verdict]:
    """Every gate's verdict in chain order, without stopping at a hold."""
    return [verdict for check in DISPATCH_CHECKS for verdict in check(facts)]


def first_hold(verdicts: Sequence[Verdict], backend: str | None = None) -> Verdict | None:
    """The first verdict that holds; with `backend`, the first that holds it, be it as one or as all."""
    return next((v for v in verdicts if v.holds and (backend is None or v.backend in ("", backend))), None)


def recordable(facts: GateFacts, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The holds that a tick records: for each backend with something queued the first that holds it, each gate once."""
    found: list[Verdict] = []
    for backend in facts.backends:
        hold = first_hold(verdicts, backend.backend) if backend.queued else None
        if hold is not None and hold not in found:
            found.append(hold)
    return found


def permits(facts: GateFacts, verdicts: Sequence[Verdict]) -> dict[str, Permit]:
    """For each backend that no gate holds, how it may start; a backend that is held is missing."""
    settings = facts.settings
    found: dict[str, Permit] = {}
    for backend in facts.backends:
        if first_hold(verdicts, backend.backend) is not None:
            continue
        low = settings.rate_guard is GuardMode.ENFORCE and low_rate(
            backend.attempts, settings.rate_threshold, settings.min_sample
        )
        if not low:
            found[backend.backend] = Permit()
        else:
            probe, trickle = _probe_due(backend, facts), _trickle_due(backend, facts)
            found[backend.backend] = Permit(limit=1, low_rate=True, prefers_probe=probe, trickle=trickle)
    return found
