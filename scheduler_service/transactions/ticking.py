"""The tick's transaction: gather facts, ask the gates, choose, look over, place and claim. Its commit is the outbox.

The leader row is held from the first statement on: an override, which locks it for update, is seen by every later claim.
What it does is chosen in planning.py, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from scheduler_service.core.breaker import Breaker, clamp_opened_time
from scheduler_service.core.dispatch_checks import Verdict
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.run import ExecutorReport, RunOrder
from scheduler_service.transactions.gathering import Facts
from scheduler_service.transactions.leases import require_leadership
from scheduler_service.transactions.overrides import end_what_is_over
from scheduler_service.transactions.planning import Decision, TickBasis, TickKind, TickMemory, plan_tick
from scheduler_service.transactions.ports import Lock, Transaction


@dataclass(frozen=True, slots=True)
class TickRequest:
    """A tick to take. `executors` are those heard within 10 s that do not drain."""

    holder: UUID
    term: int
    kind: TickKind
    executors: tuple[ExecutorReport, ...]
    memory: TickMemory
    rules: DispatchRules
    new_run_id: Callable[[], UUID]


@dataclass(frozen=True, slots=True)
class TickResult:
    """What the tick decided: `orders` are claimed and to be sent; `more`: more could start as soon as the ramp allows.

    `hurry`: bad candidates stood in the way of better ones. `probed` are the breakers of which a probe was claimed.
    """

    now: datetime
    orders: tuple[RunOrder, ...]
    decisions: tuple[Decision, ...]
    verdicts: tuple[Verdict, ...]
    memory: TickMemory
    more: bool
    hurry: bool = False
    probed: tuple[Breaker, ...] = ()


async def take_tick(tx: Transaction, request: TickRequest) -> TickResult:
    """Takes one tick. Raises NotLeader when another replica leads, or this one leads under another term."""
    await require_leadership(tx, request.holder, request.term)
    queue = dict.fromkeys(await tx.queued_backends(), (1, 1))
    basis = TickBasis(request.executors, request.rules, request.memory)
    plan = await plan_tick(tx, basis, queue, kind=request.kind, new_run_id=request.new_run_id, lock=Lock.UPDATE)
    await end_what_is_over(tx, plan.facts.drains, plan.facts.billing_pauses, plan.facts.live)
    await _store_clamped(tx, plan.facts)
    low_rate = plan.tell_low_rates()
    await plan.save()
    holds = frozenset((v.reason, v.backend) for v in plan.verdicts if v.holds and v.reason is not None)
    memory = TickMemory(holds, plan.recorded, plan.ramps, low_rate)
    return TickResult(
        tx.now,
        tuple(plan.orders),
        tuple(plan.decisions),
        tuple(plan.verdicts),
        memory,
        plan.more,
        plan.hurry,
        plan.probed,
    )


async def end_overrides(tx: Transaction, holder: UUID, term: int) -> None:
    """What a tick does besides dispatching: ends drains and pauses that are over. Raises NotLeader."""
    await require_leadership(tx, holder, term)
    await end_what_is_over(tx, await tx.drains(), await tx.billing_pauses(), await tx.live_counts())


async def _store_clamped(tx: Transaction, facts: Facts) -> None:
    clamped = [new for old in facts.breakers.values() if (new := clamp_opened_time(old, tx.now)) is not old]
    await tx.save_breakers(clamped)
