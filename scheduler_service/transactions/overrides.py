"""What operators force: drain, billing pause, budget cap, breakers.

Each locks the leader row, which every tick holds while it claims: once an override has answered, no claim that did not see it
commits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from scheduler_service.core.breaker import Breaker, describe_bare, reset, trip
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.events import EventType
from scheduler_service.core.routing import BackendKind
from scheduler_service.core.run import ExecutorReport
from scheduler_service.core.tuning import tuned
from scheduler_service.transactions.auditing import Caller, audit
from scheduler_service.transactions.consequences import emit_breaker_events, tell
from scheduler_service.transactions.gathering import backends_of, idle_drains
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import BillingPause, BudgetCap, Drain, LiveCount, Lock, Part
from service_runtime.errors import NotFound, ResourceExhausted

DRAINS_MAX = 50
"""Sources that may ask for a drain at once: each is told in every status."""


@dataclass(frozen=True, slots=True)
class ForcedBreaker:
    """A breaker before and after it was forced; `moved` are the rows that changed their state by it."""

    before: Breaker
    after: Breaker
    moved: tuple[Breaker, ...]


@dataclass(frozen=True, slots=True)
class DrainState:
    """The drain as a whole; `running` counts tasks dispatching or running. `ended`: how long a drain took that was just ended."""

    draining: bool
    since_time: datetime | None
    running: int
    ended: timedelta | None = None


async def drain_state(tx: Transaction) -> DrainState:
    """The drain now."""
    drains = await tx.drains()
    running = sum(count.n for count in await tx.live_counts())
    return DrainState(bool(drains), min((drain.since_time for drain in drains), default=None), running)


async def set_drain(tx: Transaction, enabled: bool, source: str, until_idle: bool, caller: Caller) -> DrainState:
    """Turns one source's drain on or off. Idempotent."""
    await tx.leadership(Lock.UPDATE)
    before = {drain.source: drain for drain in await tx.drains()}
    if enabled and source not in before and len(before) >= DRAINS_MAX:
        raise ResourceExhausted(f"{DRAINS_MAX} sources ask for a drain already", reason="TOO_MANY_DRAINS")
    was, is_ = before.get(source), None
    if enabled:
        since = was.since_time if was is not None else tx.now
        is_ = Drain(source, caller.reason, caller.actor, until_idle, since)
        await tx.save_drain(is_)
        if was is None:
            tell(tx, EventType.DRAIN_STARTED, {"source": source, "reason": caller.reason, "actor": caller.actor})
    elif was is not None:
        await end_drains(tx, [was], caller.actor, caller.reason)
    await audit(tx, "SetDrain", source, caller, _drain_shown(was), _drain_shown(is_))
    state = await drain_state(tx)
    return state if is_ is not None or was is None else replace(state, ended=tx.now - was.since_time)


def _drain_shown(drain: Drain | None) -> dict[str, object]:
    return {"enabled": drain is not None, "until_idle": drain is not None and drain.until_idle}


async def end_drains(tx: Transaction, drains: Sequence[Drain], actor: str, reason: str) -> None:
    """Ends the drain of these sources."""
    for drain in drains:
        await tx.delete_drain(drain.source)
        seconds = (tx.now - drain.since_time).total_seconds()
        payload = {"source": drain.source, "reason": reason, "actor": actor, "seconds": seconds}
        tell(tx, EventType.DRAIN_ENDED, payload)


async def end_what_is_over(
    tx: Transaction, drains: Sequence[Drain], pauses: Sequence[BillingPause], live: Sequence[LiveCount]
) -> list[Drain]:
    """Ends drains that wait for idleness when nothing runs, and pauses whose time has come; returns the drains that it ended."""
    ended = idle_drains(drains, live)
    await end_drains(tx, ended, "scheduler", "nothing runs any more")
    over = [pause for pause in pauses if pause.until_time <= tx.now]
    await end_billing_pauses(tx, over, "scheduler", "its time has come")
    return ended


async def set_billing_pause(tx: Transaction, backend: str, until_time: datetime, caller: Caller) -> BillingPause:
    """Pauses a backend ('' for all) until a time; an earlier end than the one in force changes nothing."""
    await tx.leadership(Lock.UPDATE)
    before = _in_force(await tx.billing_pauses(), backend, tx.now)
    after = await extend_billing_pause(tx, backend, until_time, caller)
    await audit(tx, "SetBillingPause", backend, caller, _pause_shown(before), _pause_shown(after))
    return after


def _pause_shown(pause: BillingPause | None) -> dict[str, str | None]:
    return {"until_time": None if pause is None else pause.until_time.isoformat()}


async def extend_billing_pause(tx: Transaction, backend: str, until_time: datetime, caller: Caller) -> BillingPause:
    """The pause that is in force from now on; the leader row must be locked."""
    before = _in_force(await tx.billing_pauses(), backend, tx.now)
    if before is not None and before.until_time >= until_time:
        return before
    since = before.since_time if before is not None else tx.now
    pause = BillingPause(backend, until_time, since, caller.reason, caller.actor)
    await tx.save_billing_pause(pause)
    if before is None:
        payload = {"backend": backend, "until_time": until_time.isoformat(), "reason": caller.reason, "actor": caller.actor}
        tell(tx, EventType.BILLING_PAUSE_STARTED, payload)
    return pause


def _in_force(pauses: Sequence[BillingPause], backend: str, now: datetime) -> BillingPause | None:
    return next((pause for pause in pauses if pause.backend == backend and pause.until_time > now), None)


async def clear_billing_pause(tx: Transaction, backend: str, caller: Caller) -> BillingPause | None:
    """Ends a pause by hand; returns what was ended."""
    await tx.leadership(Lock.UPDATE)
    before = _in_force(await tx.billing_pauses(), backend, tx.now)
    await audit(tx, "ClearBillingPause", backend, caller, _pause_shown(before), _pause_shown(None))
    if before is not None:
        await end_billing_pauses(tx, [before], caller.actor, caller.reason)
    return before


async def end_billing_pauses(tx: Transaction, pauses: Sequence[BillingPause], actor: str, reason: str) -> None:
    """Ends these pauses."""
    for pause in pauses:
        await tx.delete_billing_pause(pause.backend)
        payload = {"backend": pause.backend, "reason": reason, "actor": actor}
        tell(tx, EventType.BILLING_PAUSE_ENDED, payload)


async def set_budget_cap(tx: Transaction, slots: int | None, caller: Caller) -> BudgetCap:
    """Sets the ceiling on local slots; None lifts it."""
    await tx.leadership(Lock.UPDATE)
    before = (await tx.operator_settings()).cap
    await audit(tx, "SetBudgetCap", "", caller, {"slots": before.slots}, {"slots": slots})
    cap = BudgetCap(slots, caller.actor, caller.reason, tx.now) if slots is not None else BudgetCap(None)
    await tx.save_budget_cap(cap)
    return cap


async def shown_breakers(
    tx: Transaction, executors: Sequence[ExecutorReport], rules: DispatchRules, lock: Lock = Lock.NONE
) -> tuple[dict[str, Breaker], dict[str, list[str]]]:
    """The rows, and for each bare name of a per-executor backend the keys that it stands for."""
    rows = await tx.breakers(lock=lock)
    return rows, _bare_names(rows, executors, rules)


def _bare_names(rows: Mapping[str, Breaker], executors: Sequence[ExecutorReport], rules: DispatchRules) -> dict[str, list[str]]:
    """A bare name stands for the rows of live executors, and while none is live for all of its rows."""
    bare: dict[str, list[str]] = {}
    live = {report.executor_id for report in executors}
    for backend in backends_of(rules, executors, rows).values():
        if backend.kind is BackendKind.PER_EXECUTOR:
            own = [key for key in rows if key.startswith(f"{backend.name}@")]
            alive = [key for key in own if key.partition("@")[2] in live]
            bare[backend.name] = alive or own
    return bare


async def list_breakers(
    tx: Transaction, executors: Sequence[ExecutorReport], rules: DispatchRules
) -> tuple[DispatchRules, dict[str, Breaker]]:
    """The rules in force, and every breaker by key: the rows and the answers of bare names."""
    standing = await tx.standing((Part.OPERATOR, Part.BREAKERS), rules.window)
    rules = tuned(rules, standing.operator.values)
    return rules, with_bare_names(standing.breakers, executors, rules)


def with_bare_names(rows: Mapping[str, Breaker], executors: Sequence[ExecutorReport], rules: DispatchRules) -> dict[str, Breaker]:
    """The rows, and the answers of the bare names of per-executor backends, by key."""
    shown = dict(rows)
    for name, keys in _bare_names(rows, executors, rules).items():
        shown[name] = describe_bare(name, [rows[key] for key in keys], rules.checks.breaker)
    return dict(sorted(shown.items()))


async def _force(
    tx: Transaction,
    key: str,
    duration: timedelta | None,
    closing: bool,
    caller: Caller,
    executors: Sequence[ExecutorReport],
    rules: DispatchRules,
) -> ForcedBreaker:
    await tx.leadership(Lock.UPDATE)
    rows, bare = await shown_breakers(tx, executors, rules, Lock.UPDATE)
    if key not in rows and key not in bare:
        known = ", ".join(sorted({*rows, *bare}))
        raise NotFound(f"no breaker has the key {key!r}; known are {known}", reason="BREAKER_NOT_FOUND")
    # By name, all of its rows: also those of executors that are away at the moment.
    keys = [key] if key in rows else [row for row in rows if row.startswith(f"{key}@")]
    after = dict(rows)
    for row_key in keys:
        if closing:
            after[row_key], events = reset(rows[row_key], tx.now, caller.reason)
        else:
            after[row_key], events = trip(rows[row_key], tx.now, caller.reason, duration)
        emit_breaker_events(tx, events, actor=caller.actor)
    await tx.save_breakers([after[row_key] for row_key in keys], actor="" if closing else caller.actor)
    method = "ResetBreaker" if closing else "TripBreaker"
    await audit(tx, method, key, caller, _states(rows, keys), _states(after, keys))
    moved = tuple(after[k] for k in keys if after[k].state is not rows[k].state)
    if key in rows:
        return ForcedBreaker(rows[key], after[key], moved)
    shown, settings = bare[key], rules.checks.breaker
    return ForcedBreaker(
        describe_bare(key, [rows[k] for k in shown], settings),
        describe_bare(key, [after[k] for k in shown], settings),
        moved,
    )


def _states(breakers: Mapping[str, Breaker], keys: Sequence[str]) -> dict[str, str]:
    return {key: breakers[key].state.value for key in keys}


async def reset_breaker(
    tx: Transaction,
    key: str,
    caller: Caller,
    executors: Sequence[ExecutorReport],
    rules: DispatchRules,
) -> ForcedBreaker:
    """Forces a breaker CLOSED. Raises NotFound for an unknown key."""
    return await _force(tx, key, None, True, caller, executors, rules)


async def trip_breaker(
    tx: Transaction,
    key: str,
    duration: timedelta | None,
    caller: Caller,
    executors: Sequence[ExecutorReport],
    rules: DispatchRules,
) -> ForcedBreaker:
    """Forces a breaker OPEN for a while (None: the setting). Raises NotFound."""
    return await _force(tx, key, duration, False, caller, executors, rules)
