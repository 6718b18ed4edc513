"""Gathers the facts that the gate chain looks at: for a tick inside its claim, for an explanation without locks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta

import msgspec

from scheduler_service.core import dispatch_checks
from scheduler_service.core.breaker import Admission as BreakerAdmission
from scheduler_service.core.breaker import Breaker, admit, breaker_key, clamp_opened_time
from scheduler_service.core.dispatch_checks import BackendFacts, GateFacts, GuardMode
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.outcome_window import Window, merge
from scheduler_service.core.routing import DEFAULT_BACKENDS, Backend, BackendKind, known_backends
from scheduler_service.core.run import BackendReport, ExecutorReport
from scheduler_service.core.slot_budget import ExecutorCapacity, Fleet, compute_fleet
from scheduler_service.core.tuning import tuned
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import (
    BackendState,
    BillingPause,
    Drain,
    LiveCount,
    Lock,
    OperatorSettings,
    Part,
    Standing,
    WindowRow,
)

NO_SAMPLE = "no_sample"
DETAIL_MAX_CHARS = 500
MILLISECOND = timedelta(milliseconds=1)


class Facts(msgspec.Struct, frozen=True):
    """What was gathered in one transaction. `live` counts tasks dispatching or running; `rules` are those in force.

    `queue` is (queued, due) by backend; `window`: the decisions of the rules' window, grouped.

    `backends`: those that tasks are routed to, those that live executors have, and those that tasks are queued or live on.
    """

    rules: DispatchRules
    standing: Standing
    operator: OperatorSettings
    queue: Mapping[str, tuple[int, int]]
    gates: GateFacts
    backends: Mapping[str, Backend]
    fleet: Fleet
    breakers: Mapping[str, Breaker]
    backend_states: Mapping[str, BackendState]
    drains: tuple[Drain, ...]
    billing_pauses: tuple[BillingPause, ...]
    live: tuple[LiveCount, ...]
    window: tuple[WindowRow, ...]

    def running(self, backend: str, executor_id: str | None = None) -> int:
        """Tasks of a backend that are dispatching or running, on one executor or on all."""
        return sum(c.n for c in self.live if c.backend == backend and executor_id in (None, c.executor_id))


GATE_PARTS = (
    Part.OPERATOR,
    Part.BREAKERS,
    Part.TRIPPED_BY,
    Part.BACKEND_STATES,
    Part.DRAINS,
    Part.BILLING_PAUSES,
    Part.LIVE,
    Part.HAS_INTERNAL,
    Part.WINDOW,
)
"""What every question about the gates needs."""


async def rules_in_force(tx: Transaction, rules: DispatchRules) -> DispatchRules:
    """The rules of the environment with the settings that operators have changed."""
    return tuned(rules, (await tx.operator_settings()).values)


async def show_window(tx: Transaction, operator: OperatorSettings, rules: DispatchRules) -> None:
    """Lets the view `working_memory` count with the window in force."""
    shown = rules.window // MILLISECOND, rules.checks.breaker.open_duration // MILLISECOND
    if shown != (operator.shown_window_ms, operator.shown_open_duration_ms):
        await tx.save_window_settings(*shown)


async def gather(
    tx: Transaction,
    executors: Sequence[ExecutorReport],
    rules: DispatchRules,
    parts: Collection[Part] = (*GATE_PARTS, Part.QUEUED_BACKENDS),
    lock: Lock = Lock.NONE,
) -> Facts:
    """The facts now. `executors` are the live ones; `lock` is for the breaker rows that may move.

    `parts` are at least GATE_PARTS; without Part.QUEUE whatever is queued counts as due. `rules` are those of the environment, to
    which what operators have changed is applied.
    """
    standing = await tx.standing(parts, rules.window)
    queue = dict.fromkeys(sorted(standing.queued_backends), (1, 1)) | {q.backend: (q.queued, q.due) for q in standing.queue}
    rules = tuned(rules, standing.operator.values)
    breakers = await _breakers(tx, standing.breakers, rules, lock)
    states, drains, pauses, live = standing.backend_states, standing.drains, standing.billing_pauses, standing.live
    tripped = {} if rules.checks.breaker_guard is GuardMode.ENFORCE else standing.tripped_by
    rows = standing.window
    known = backends_of(rules, executors, breakers, [*queue, *(count.backend for count in live)])
    fleet = compute_fleet(
        [_capacity(report, live, known) for report in executors if report.resources_reason != NO_SAMPLE],
        standing.has_internal,
        rules.interactive_reserve,
        standing.operator.cap.slots,
    )
    attempts = attempts_by_backend(rows)
    backends = tuple(_backend_facts(backend, executors, breakers, states, attempts, live, queue) for backend in known.values())
    gates = GateFacts(
        now=tx.now,
        backends=backends,
        draining=tuple(drain.source for drain in drains if drain not in idle_drains(drains, live)),
        billing_pauses=tuple(dispatch_checks.BillingPause(p.backend, p.until_time, p.reason) for p in pauses),
        pools=fleet.total,
        tripped=frozenset(tripped),
        settings=rules.checks,
    )
    return Facts(rules, standing, standing.operator, queue, gates, known, fleet, breakers, states, drains, pauses, live, rows)


def idle_drains(drains: Iterable[Drain], live: Iterable[LiveCount]) -> list[Drain]:
    """Drains that were to last until nothing runs, when nothing does: they hold no more, and the next tick ends them."""
    idle = not any(count.n for count in live)
    return [drain for drain in drains if drain.until_idle and idle]


async def _breakers(tx: Transaction, rows: Mapping[str, Breaker], rules: DispatchRules, lock: Lock) -> Mapping[str, Breaker]:
    """The breaker rows; locked for update when one of them may move, so that its probe is claimed once."""
    if lock is Lock.NONE:
        return rows
    moves = any(
        admit(row, tx.now, rules.checks.breaker) is BreakerAdmission.PROBE or clamp_opened_time(row, tx.now) is not row
        for row in rows.values()
    )
    return await tx.breakers(lock=lock) if moves else rows


def backends_of(
    rules: DispatchRules,
    executors: Iterable[ExecutorReport],
    breakers: Mapping[str, Breaker],
    further: Iterable[str] = (),
) -> dict[str, Backend]:
    """The backends that tasks are routed to, those of executors, and further ones, by name."""
    reported = [backend for report in executors for backend in report.backends]
    return known_backends([*rules.backends, *further], reported, breakers)


def breaker_keys_of(report: ExecutorReport, rules: DispatchRules) -> list[str]:
    """The breakers of an executor: of the built-in backends that tasks are routed to, and of those that it has configured."""
    heard = {own.backend for own in report.backends if own.configured and own.kind is not None}
    known = backends_of(rules, [report], {}).values()
    return [breaker_key(b.name, b.kind, report.executor_id) for b in known if b.name in heard or b.name in DEFAULT_BACKENDS]


def _capacity(report: ExecutorReport, live: Iterable[LiveCount], known: Mapping[str, Backend]) -> ExecutorCapacity:
    local = {backend.name for backend in known.values() if backend.local}
    mine = [count for count in live if count.executor_id == report.executor_id and count.backend in local]
    return ExecutorCapacity(
        executor_id=report.executor_id,
        effective_seats=report.max_seats,
        slots_from_resources=report.effective_slots,
        sessions=report.headed_sessions,
        running_local=sum(count.n for count in mine if not count.internal),
        max_pressure=report.max_pressure,
        running_internal=sum(count.n for count in mine if count.internal),
        load=report.resources_reason or report.admission_reason,
        admission_slots=report.admission_slots,
    )


def backend_report(report: ExecutorReport, backend: str) -> BackendReport | None:
    """What an executor says of a backend that it has configured; None where it has not."""
    return next((b for b in report.backends if b.backend == backend and b.configured), None)


def window_of(rows: Iterable[WindowRow]) -> Window:
    """The window of counted rows."""
    chosen = list(rows)
    newest = max((row.last_time for row in chosen), default=None)
    return merge(((row.success, row.reason, row.n) for row in chosen), newest)


def attempts_by_backend(rows: Iterable[WindowRow]) -> dict[str, Window]:
    """Start verdicts by backend."""
    return _attempts_by(rows, lambda row: row.backend)


def attempts_by_executor(rows: Iterable[WindowRow]) -> dict[str, Window]:
    """Start verdicts by executor."""
    return _attempts_by(rows, lambda row: row.executor_id)


def _attempts_by(rows: Iterable[WindowRow], key: Callable[[WindowRow], str]) -> dict[str, Window]:
    found: dict[str, list[WindowRow]] = {}
    for row in rows:
        if row.attempt:
            found.setdefault(key(row), []).append(row)
    return {name: window_of(own) for name, own in sorted(found.items())}


def _backend_facts(
    backend: Backend,
    executors: Sequence[ExecutorReport],
    breakers: Mapping[str, Breaker],
    states: Mapping[str, BackendState],
    attempts: Mapping[str, Window],
    live: Sequence[LiveCount],
    queue: Mapping[str, tuple[int, int]],
) -> BackendFacts:
    able = {report.executor_id: own for report in executors if (own := backend_report(report, backend.name)) is not None}
    # A shared breaker is one row whoever lives; of the others only those of live executors have a say.
    keys = sorted({breaker_key(backend.name, backend.kind, executor_id) for executor_id in able})
    if backend.kind is BackendKind.SHARED:
        keys = [backend.name]
    wrong = [
        f"{report.executor_id}: {own.detail or 'it is not configured'}"
        for report in executors
        for own in report.backends
        if own.backend == backend.name and not own.configured
    ]
    queued, due = queue.get(backend.name, (0, 0))
    state = states.get(backend.name)
    return BackendFacts(
        backend=backend.name,
        local=backend.local,
        queued=queued,
        due=due,
        live_executors=len(able),
        misconfigured="; ".join(wrong)[:DETAIL_MAX_CHARS],
        attempts=attempts.get(backend.name, Window()),
        last_trickle_time=state.last_trickle_time if state else None,
        breakers=tuple(breakers[key] for key in keys if key in breakers),
        max_runs=_own_limit(backend, able.values()),
        offered_elsewhere=_offered(executors) if not able else "",
        running=sum(c.n for c in live if c.backend == backend.name and c.executor_id in able),
    )


def _own_limit(backend: Backend, able: Iterable[BackendReport]) -> int | None:
    """The limit of a backend's own over all that have it; None when one of them has none besides its slots."""
    limits = [own.max_runs for own in able]
    return None if backend.local and 0 in (limits or [0]) else sum(limits)


def _offered(executors: Sequence[ExecutorReport]) -> str:
    """What live executors do have, in words: a route may name a backend that nobody has."""
    return "; ".join(
        f"{report.executor_id} has {', '.join(b.backend for b in report.backends if b.configured) or 'none'}"
        for report in executors
    )[:DETAIL_MAX_CHARS]


def lease_until_give_up(rules: DispatchRules) -> timedelta:
    """How long after a renewal a run may be given up: 1.05 leases (design.md section 3)."""
    return rules.lease_ttl * 1.05
