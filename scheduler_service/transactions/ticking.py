"""The tick's transaction: gather facts, ask the gates, choose, look over, place and claim. Its commit is the outbox.

The leader row is held from the first statement on: an override, which locks it for update, is seen by every later claim.
What it does is chosen in planning.py, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from scheduler_service.core.breaker import Breaker, clamp_opened_time
from scheduler_service.core.dispatch_checks import Verdict
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.run import ExecutorReport, RunOrder
from scheduler_service.transactions.gathering import Facts, gather, show_window
from scheduler_service.transactions.leases import require_leadership
from scheduler_service.transactions.overrides import end_what_is_over
from scheduler_service.transactions.planning import Decision, TickBasis, TickKind, TickMemory, plan_tick
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import Lock


@dataclass(frozen=True, slots=True)
class TickRequest:
    """A tick to take. `executors` are those heard within 10 s that do not drain; `rules` are those of the environment."""

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

    `hurry`: bad candidates stood in the way of better ones. `probed` are the breakers of which a probe was claimed. `rules` are
    those that it went by; with TICK_ENABLED false a tick of the clock only ends overrides that are over: `taken` is false.
    `ended_drains`: how long each drain took that it ended.
    """

    now: datetime
    orders: tuple[RunOrder, ...]
    decisions: tuple[Decision, ...]
    verdicts: tuple[Verdict, ...]
    memory: TickMemory
    rules: DispatchRules
    more: bool = False
    hurry: bool = False
    probed: tuple[Breaker, ...] = ()
    ended_drains: tuple[timedelta, ...] = ()
    taken: bool = True


async def take_tick(tx: Transaction, request: TickRequest) -> TickResult:
    """Takes one tick. Raises NotLeader when another replica leads, or this one leads under another term."""
    await require_leadership(tx, request.holder, request.term)
    facts = await gather(tx, request.executors, request.rules, lock=Lock.UPDATE)
    over = await end_what_is_over(tx, facts.drains, facts.billing_pauses, facts.live)
    ended = tuple(tx.now - drain.since_time for drain in over)
    rules = facts.rules
    await show_window(tx, facts.operator, rules)
    if request.kind is not TickKind.RUN and not rules.tick_enabled:
        return TickResult(tx.now, (), (), (), request.memory, rules, ended_drains=ended, taken=False)
    await _store_clamped(tx, facts)
    basis = TickBasis(request.executors, facts, request.memory)
    plan = await plan_tick(tx, basis, kind=request.kind, new_run_id=request.new_run_id, lock=Lock.UPDATE)
    low_rate = plan.tell_low_rates()
    await plan.save()
    holds = frozenset((v.reason, v.backend) for v in plan.verdicts if v.holds and v.reason is not None)
    memory = TickMemory(holds, plan.recorded, plan.ramps, low_rate)
    decided = tuple(plan.orders), tuple(plan.decisions), tuple(plan.verdicts)
    return TickResult(tx.now, *decided, memory, rules, plan.more, plan.hurry, plan.probed, ended)


async def _store_clamped(tx: Transaction, facts: Facts) -> None:
    clamped = [new for old in facts.breakers.values() if (new := clamp_opened_time(old, tx.now)) is not old]
    await tx.save_breakers(clamped)
