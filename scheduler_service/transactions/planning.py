"""What a tick would do at this instant: asks the gates, chooses, looks over and places. Changes nothing.

A tick plans and saves, an explanation plans and tells: so the one cannot say what the other does not do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from scheduler_service.core import pre_flight, ramp
from scheduler_service.core.breaker import Admission, Breaker, admit, breaker_key, claim_probe
from scheduler_service.core.dispatch_checks import (
    AVAILABILITY,
    Permit,
    Verdict,
    breaker_enforced,
    evaluate,
    first_hold,
    next_trickle_time,
    permits,
    recordable,
)
from scheduler_service.core.events import EventType
from scheduler_service.core.explanation import PLACEMENT, StartLimit
from scheduler_service.core.ramp import Ramp
from scheduler_service.core.reasons import HoldReason, Reason
from scheduler_service.core.routing import Backend
from scheduler_service.core.run import ExecutorReport, Run, RunOrder
from scheduler_service.core.task import Task, claim, quarantine
from scheduler_service.transactions.consequences import conclude, emit_unreadable, tell
from scheduler_service.transactions.gathering import Facts, backend_report, lease_until_give_up
from scheduler_service.transactions.orders import order_of
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import DispatchEvent, Lock, UnreadableTask
from service_runtime.ids import new_id

CANDIDATES_PER_SLOT = 6  # the first and up to five further ones
RAMP_REASONS = frozenset({Reason.DRAINING, Reason.BILLING_PAUSE, Reason.LOW_SUCCESS_RATE, Reason.CIRCUIT_BREAKER_OPEN})
"""Holds after which starts ramp up; slots are not among them."""

MAX_STARTS_PER_TICK = 500

Hold = tuple[Reason, str]
"""A gate's reason and the backend that it holds ('' for all)."""


class TickKind(StrEnum):
    """What set the tick off: its clock, an operator's RunTick, or news."""

    CLOCK = "clock"
    RUN = "run"
    WOKEN = "woken"


@dataclass(frozen=True, slots=True)
class TickMemory:
    """What a leader remembers from tick to tick. `holds`: the gates that held, `recorded`: those that concerned a queued task.

    `low_rate`: backends whose success rate holds, or would hold if the guard did not only observe.
    """

    holds: frozenset[Hold] = frozenset()
    recorded: frozenset[Hold] = frozenset()
    ramps: Mapping[str, Ramp] = field(default_factory=dict)
    low_rate: frozenset[str] = frozenset()
    new_leader: bool = False


NO_MEMORY = TickMemory()
"""Of whoever has not ticked: no ramp, no hold."""


class TickBasis(msgspec.Struct, frozen=True):
    """What a plan stands on besides the queue. `executors` are those heard within 10 s that do not drain."""

    executors: Sequence[ExecutorReport]
    facts: Facts
    memory: TickMemory


class Decision(msgspec.Struct, frozen=True):
    """One decision that a tick took. `reason` is empty for a start that was accepted, or is not answered yet."""

    dispatched: bool
    reason: str
    detail: str = ""
    task_id: UUID | None = None
    run_id: UUID | None = None
    executor_id: str = ""
    backend: str = ""


@dataclass(slots=True)
class _Lane:
    """Room on one executor for one backend."""

    executor_id: str
    key: str
    free: int
    probe: bool


async def plan_tick(
    tx: Transaction,
    basis: TickBasis,
    *,
    kind: TickKind = TickKind.RUN,
    new_run_id: Callable[[], UUID] = new_id,
    lock: Lock = Lock.NONE,
) -> TickPlan:
    """What a tick would do at this instant; changes nothing."""
    facts = basis.facts
    plan = TickPlan(tx, basis, facts, kind, new_run_id, lock)
    for backend, permit in permits(facts.gates, plan.verdicts).items():
        if backend in facts.queue:
            await plan.fill(facts.backends[backend], permit)
    for backend in sorted(facts.queue):
        await plan.look_over_without_executor(backend)
    plan.decide_holds()
    return plan


class TickPlan:
    """What a tick would do, chosen and not yet written.

    `limits`: by backend what bounds the starts there. `put_aside` are candidates that pre-flight refuses. `lane_holds` are about
    backends that no gate holds and that have no room on any executor all the same.
    """

    def __init__(
        self, tx: Transaction, basis: TickBasis, facts: Facts, kind: TickKind, new_run_id: Callable[[], UUID], lock: Lock
    ) -> None:
        self._tx = tx
        self._basis = basis
        self._rules = basis.facts.rules
        self._kind = kind
        self._new_run_id = new_run_id
        self._lock = lock
        self._lease_until = tx.now + lease_until_give_up(basis.facts.rules)
        self.facts = facts
        self.verdicts = evaluate(facts.gates)
        self._local_left = facts.fleet.total.task_pool.available if facts.fleet.total else 0
        self._local_placed: Counter[str] = Counter()
        self._claimed: list[Task] = []
        self._runs: list[Run] = []
        self._probed: dict[str, Breaker] = {}
        self._spent: dict[str, datetime] = {}
        self._examined: dict[str, list[UUID]] = {}
        self._events: list[DispatchEvent] = []
        self._started: dict[str, int] = {}
        self.put_aside: list[Task] = []
        self.unreadable: list[UnreadableTask] = []
        self.lane_holds: list[Verdict] = []
        self.limits: dict[str, StartLimit] = {}
        self.ramps: dict[str, Ramp] = {name: self._ramp(name) for name in facts.backends}
        self.recorded: frozenset[Hold] = frozenset()
        self.more = False
        self.hurry = False
        self.orders: list[RunOrder] = []
        self.decisions: list[Decision] = []

    async def fill(self, backend: Backend, permit: Permit) -> None:
        """Chooses what the backend's lanes, its permit and its ramp allow."""
        lanes = self._permitted(self._lanes(backend), permit)
        room = sum(lane.free for lane in lanes)
        if backend.local:
            room = min(room, self._local_left)
        if room == 0:
            self.lane_holds.append(self._lane_hold(backend, permit))
            return
        probing = [lane for lane in lanes if lane.probe]
        limit = StartLimit.PROBE if len(probing) == len(lanes) else StartLimit.ROOM
        if permit.limit is not None and permit.limit < room:
            room, limit = permit.limit, StartLimit.SINGLE_TRY
        if room > MAX_STARTS_PER_TICK:
            room, limit = MAX_STARTS_PER_TICK, StartLimit.TICK
        allowed = ramp.allowance(self.ramps[backend.name], self._tx.now)
        wanted = room if allowed is None else min(room, allowed)
        self.limits[backend.name] = StartLimit.RAMP if wanted < room else limit
        taken = await self._take(backend.name, min(wanted, len(probing)), unfailed_first=True) if probing else []
        taken += await self._take(backend.name, wanted - len(taken))
        self._place(backend, lanes, taken)
        self.more |= len(taken) == wanted and (wanted < room or wanted == MAX_STARTS_PER_TICK)
        if taken:
            self._started[backend.name] = len(taken)
            self.ramps[backend.name] = ramp.spend(self.ramps[backend.name], len(taken), self._tx.now)
            if backend.local:
                self._local_left -= len(taken)
            if permit.low_rate:
                self._spent[backend.name] = self._tx.now

    def _permitted(self, lanes: list[_Lane], permit: Permit) -> list[_Lane]:
        """The lanes that a permit lets through: of a low rate a probe, if one can be placed, else the trickle."""
        if permit.prefers_probe:
            probing = [lane for lane in lanes if lane.probe]
            return probing or (lanes if permit.trickle else [])
        return lanes

    def _lanes(self, backend: Backend) -> list[_Lane]:
        lanes = []
        seen: set[str] = set()
        for report in self._basis.executors:
            own = backend_report(report, backend.name)
            if own is None:
                continue
            key = breaker_key(backend.name, backend.kind, report.executor_id)
            says = admit(self.facts.breakers.get(key, Breaker(key)), self._tx.now, self._rules.checks.breaker)
            free = self._free(backend, report, own.max_runs)
            enforced = breaker_enforced(key, self.facts.gates)
            if says is Admission.PROBE and free > 0 and key not in seen:
                lanes.append(_Lane(report.executor_id, key, 1, True))
                free -= 1
                seen.add(key)
            if says is Admission.ALLOW or not enforced:
                lanes.append(_Lane(report.executor_id, key, free, False))
        return lanes

    def _free(self, backend: Backend, report: ExecutorReport, max_runs: int) -> int:
        own = max(0, max_runs - self.facts.running(backend.name, report.executor_id))
        if not backend.local:
            return own
        pools = self.facts.fleet.executors.get(report.executor_id)
        # What other local backends were given in this tick is taken there.
        free = max(0, pools.task_pool.available - self._local_placed[report.executor_id]) if pools else 0
        return min(free, own) if max_runs else free

    def _lane_hold(self, backend: Backend, permit: Permit) -> Verdict:
        """Why no lane has room although no gate holds: those with room are blocked by their own breakers, or all are full."""
        open_room = any(
            self._free(backend, report, own.max_runs)
            for report in self._basis.executors
            if (own := backend_report(report, backend.name)) is not None
        )
        reason, detail, clears = Reason.CIRCUIT_BREAKER_OPEN, "no executor with room is let through by its breaker", None
        if not open_room or (backend.local and self._local_left == 0):
            reason, detail = Reason.POOL_C_FULL, "no executor has room left"
        elif permit.low_rate and any(lane.free for lane in self._lanes(backend)):
            # The probe that was to be let through has no room where it belongs.
            reason, detail = Reason.LOW_SUCCESS_RATE, "its probe finds no room; waiting for the next single try"
            clears = next_trickle_time(self.facts.gates, backend.name)
        return Verdict(
            name=PLACEMENT,
            backend=backend.name,
            holds=True,
            reason=reason,
            value="0",
            limit="1",
            detail=detail,
            clears_time=clears,
        )

    def _ramp(self, backend: str) -> Ramp:
        memory = self._basis.memory
        held = any((reason, whom) in memory.holds for reason in RAMP_REASONS for whom in ("", backend))
        if held or memory.new_leader:
            return ramp.restart(self._tx.now)
        return memory.ramps.get(backend, ramp.unlimited(self._tx.now))

    async def _take(self, backend: str, wanted: int, *, unfailed_first: bool = False) -> list[Task]:
        """Up to `wanted` candidates that pass pre-flight; those that do not are put aside, at most five more for each slot."""
        passed: list[Task] = []
        examined = self._examined.setdefault(backend, [])
        left = CANDIDATES_PER_SLOT * wanted
        unfailed = unfailed_first
        while left > 0 and len(passed) < wanted:
            asked = min(wanted - len(passed), left)
            batch = await self._tx.due_tasks(backend, asked, skip=examined, unfailed_only=unfailed, lock=self._lock)
            seen = [*(task.id for task in batch.tasks), *(task.id for task in batch.unreadable)]
            left -= len(seen)
            examined += seen
            passed += [task for task in batch.tasks if self._passes(task)]
            for broken in batch.unreadable:
                self.unreadable.append(broken)
                self._decide(Reason.PRE_FLIGHT_CHECK_FAILED, broken.why, backend, broken.id)
            if len(seen) < asked:
                # There are no more of these.
                if not unfailed:
                    break
                unfailed = False
        self.hurry |= left == 0 and len(passed) < wanted
        return passed

    def _passes(self, task: Task) -> bool:
        findings = pre_flight.check(task)
        if not findings:
            return True
        text = pre_flight.describe(findings)
        self.put_aside.append(quarantine(task, HoldReason.PRE_FLIGHT_CHECK_FAILED, text, self._tx.now))
        self._decide(Reason.PRE_FLIGHT_CHECK_FAILED, text, task.backend, task.id)
        return False

    def _decide(self, reason: Reason, detail: str, backend: str, task_id: UUID | None = None) -> None:
        self.decisions.append(Decision(False, reason.value, detail, task_id, backend=backend))
        self._events.append(DispatchEvent(self._tx.now, False, reason.value, detail[:500], False, backend, task_id))

    def _place(self, backend: Backend, lanes: list[_Lane], tasks: Sequence[Task]) -> None:
        """Gives probes to the first tasks, which were chosen for them, and the rest to the lanes with the most room."""
        for task in tasks:
            lane = max(lanes, key=lambda lane: (lane.probe and lane.free > 0, lane.free, lane.executor_id))
            lane.free -= 1
            self._claim(backend, lane, task)

    def _claim(self, backend: Backend, lane: _Lane, task: Task) -> None:
        now = self._tx.now
        run_id = self._new_run_id()
        breaker = self.facts.breakers.get(lane.key, Breaker(lane.key))
        if lane.probe:
            breaker = claim_probe(breaker, run_id, now, self._rules.checks.breaker)
            self._probed[lane.key] = breaker
        claimed = claim(task, run_id, lane.executor_id, now)
        self._local_placed[lane.executor_id] += backend.local
        self._claimed.append(claimed)
        self._runs.append(
            Run(
                run_id=run_id,
                task_id=task.id,
                fence=claimed.fence,
                executor_id=lane.executor_id,
                backend=backend.name,
                breaker_key=lane.key,
                breaker_generation=breaker.generation,
                is_probe=lane.probe,
                claim_time=now,
                lease_until=self._lease_until,
            )
        )
        self.orders.append(order_of(claimed, lane.executor_id))

    async def look_over_without_executor(self, backend: str) -> None:
        """Pre-flight stands before availability: bad candidates are put aside also while no executor answers."""
        hold = first_hold(self.verdicts, backend)
        if hold is not None and hold.name == AVAILABILITY:
            await self._take(backend, 1)

    def decide_holds(self) -> None:
        """Decides each hold once for a clock tick or RunTick; a woken tick only what it did not repeat.

        Nothing is decided for a backend in which this tick starts something.
        """
        found = [*recordable(self.facts.gates, self.verdicts), *self.lane_holds]
        details = {(v.reason, v.backend): v.detail for v in found if v.reason is not None}
        repeated = self._basis.memory.recorded if self._kind is TickKind.WOKEN else frozenset()
        for (reason, backend), detail in details.items():
            if backend not in self._started and (reason, backend) not in repeated:
                self._decide(reason, detail, backend)
        self.recorded = frozenset(details)

    def tell_low_rates(self) -> frozenset[str]:
        """Emits an event for each backend whose success rate has begun to hold, or would hold."""
        low = {v.backend: v for v in self.verdicts if v.name == Reason.LOW_SUCCESS_RATE.value and (v.holds or v.would_hold)}
        for backend, verdict in low.items():
            if backend not in self._basis.memory.low_rate:
                payload = {"backend": backend, "rate": verdict.value, "threshold": verdict.limit, "enforced": verdict.holds}
                tell(self._tx, EventType.DISPATCH_LOW_SUCCESS_RATE, payload)
        return frozenset(low)

    @property
    def starts(self) -> Mapping[str, int]:
        """How many tasks start, by backend; a backend without a start is missing."""
        return self._started

    @property
    def probed(self) -> tuple[Breaker, ...]:
        """The breakers of which a probe was claimed."""
        return tuple(self._probed.values())

    async def save(self) -> None:
        """Writes what was taken, in lock order."""
        tx = self._tx
        for event in self._events:
            tx.record(event)
        await tx.save_breakers(self._probed.values())
        await tx.note_trickles(self._spent)
        await tx.save_tasks([*self._claimed, *self.put_aside])
        await tx.add_runs(self._runs)
        await conclude(tx, [(task, None) for task in self.put_aside])
        await tx.quarantine_unreadable(self.unreadable)
        for broken in self.unreadable:
            emit_unreadable(tx, broken)
