"""Gathers the facts that the gate chain looks at: for a tick inside its claim, for an explanation without locks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from scheduler_service.core import dispatch_checks
from scheduler_service.core.breaker import Admission as BreakerAdmission
from scheduler_service.core.breaker import Breaker, admit, breaker_key, clamp_opened_time
from scheduler_service.core.dispatch_checks import BackendFacts, GateFacts
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.outcome_window import Window, merge
from scheduler_service.core.routing import Backend, BackendKind
from scheduler_service.core.run import BackendReport, ExecutorReport
from scheduler_service.core.slot_budget import ExecutorCapacity, Fleet, compute_fleet
from scheduler_service.transactions.ports import BackendState, BillingPause, Drain, LiveCount, Lock, Transaction, WindowRow

NO_SAMPLE = "no_sample"
DETAIL_MAX_CHARS = 500


@dataclass(frozen=True, slots=True)
class Facts:
    """What was gathered in one transaction. `live` counts tasks dispatching or running."""

    gates: GateFacts
    fleet: Fleet
    breakers: Mapping[str, Breaker]
    backend_states: Mapping[str, BackendState]
    drains: tuple[Drain, ...]
    billing_pauses: tuple[BillingPause, ...]
    live: tuple[LiveCount, ...]

    def running(self, backend: str, executor_id: str | None = None) -> int:
        """Tasks of a backend that are dispatching or running, on one executor or on all."""
        return sum(c.n for c in self.live if c.backend == backend and executor_id in (None, c.executor_id))


async def gather(
    tx: Transaction,
    executors: Sequence[ExecutorReport],
    rules: DispatchRules,
    queue: Mapping[str, tuple[int, int]],
    lock: Lock = Lock.NONE,
) -> Facts:
    """The facts now. `executors` are the live ones; `queue` is (queued, due) by backend; `lock` is for the breaker rows."""
    breakers = await _breakers(tx, rules, lock)
    states = await tx.backend_states(lock)
    drains = await tx.drains()
    pauses = await tx.billing_pauses()
    cap = await tx.budget_cap()
    live = await tx.live_counts()
    rows = await tx.window_rows(tx.now - rules.window)
    fleet = compute_fleet(
        [_capacity(report, live, rules) for report in executors if report.resources_reason != NO_SAMPLE],
        await tx.has_internal_tasks(),
        rules.interactive_reserve,
        cap.slots,
    )
    attempts = attempts_by_backend(rows)
    backends = tuple(
        _backend_facts(backend, executors, breakers, states, attempts, live, queue) for backend in rules.backends.values()
    )
    gates = GateFacts(
        now=tx.now,
        backends=backends,
        draining=tuple(drain.source for drain in drains if drain not in idle_drains(drains, live)),
        billing_pauses=tuple(dispatch_checks.BillingPause(p.backend, p.until_time, p.reason) for p in pauses),
        pools=fleet.total,
        settings=rules.checks,
    )
    return Facts(gates, fleet, breakers, states, tuple(drains), tuple(pauses), tuple(live))


def idle_drains(drains: Iterable[Drain], live: Iterable[LiveCount]) -> list[Drain]:
    """Drains that were to last until nothing runs, when nothing does: they hold no more, and the next tick ends them."""
    idle = not any(count.n for count in live)
    return [drain for drain in drains if drain.until_idle and idle]


async def _breakers(tx: Transaction, rules: DispatchRules, lock: Lock) -> dict[str, Breaker]:
    """The breaker rows; locked for update when one of them may move, so that its probe is claimed once."""
    rows = await tx.breakers()
    if lock is Lock.NONE:
        return rows
    moves = any(
        admit(row, tx.now, rules.checks.breaker) is BreakerAdmission.PROBE or clamp_opened_time(row, tx.now) is not row
        for row in rows.values()
    )
    return await tx.breakers(lock=Lock.UPDATE if moves else Lock.SHARE)


def _capacity(report: ExecutorReport, live: Iterable[LiveCount], rules: DispatchRules) -> ExecutorCapacity:
    local = {backend.name for backend in rules.backends.values() if backend.local}
    mine = [count for count in live if count.executor_id == report.executor_id and count.backend in local]
    return ExecutorCapacity(
        executor_id=report.executor_id,
        effective_seats=report.max_seats,
        slots_from_resources=report.effective_slots,
        sessions=report.headed_sessions,
        running_local=sum(count.n for count in mine if not count.internal),
        max_pressure=report.max_pressure,
        running_internal=sum(count.n for count in mine if count.internal),
        load=report.resources_reason,
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
    found: dict[str, list[WindowRow]] = {}
    for row in rows:
        if row.attempt:
            found.setdefault(row.backend, []).append(row)
    return {backend: window_of(own) for backend, own in sorted(found.items())}


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
        max_runs=None if backend.local else sum(own.max_runs for own in able.values()),
        running=sum(c.n for c in live if c.backend == backend.name and c.executor_id in able),
    )


def lease_until_give_up(rules: DispatchRules) -> timedelta:
    """How long after a renewal a run may be given up: 1.05 leases (design.md section 3)."""
    return rules.lease_ttl * 1.05
