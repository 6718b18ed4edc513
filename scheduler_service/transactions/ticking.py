"""The tick's transaction: gather facts, ask the gates, choose, look over, place and claim. Its commit is the outbox.

The leader row is held from the first statement on: an override, which locks it for update, is seen by every later claim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from scheduler_service.core import pre_flight, ramp
from scheduler_service.core.breaker import Admission, Breaker, admit, breaker_key, claim_probe, clamp_opened_time
from scheduler_service.core.dispatch_checks import (
    AVAILABILITY,
    Permit,
    Verdict,
    breaker_enforced,
    evaluate,
    first_hold,
    permits,
    recordable,
)
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.events import EventType
from scheduler_service.core.ramp import Ramp
from scheduler_service.core.reasons import HoldReason, Reason
from scheduler_service.core.routing import Backend, model_for, permission_mode_for, provider_for, skill_for
from scheduler_service.core.run import ExecutorReport, Run, RunOrder
from scheduler_service.core.task import Task, claim, quarantine
from scheduler_service.transactions.consequences import conclude, tell
from scheduler_service.transactions.gathering import Facts, backend_report, gather, lease_until_give_up, show_window
from scheduler_service.transactions.leases import require_leadership
from scheduler_service.transactions.overrides import end_what_is_over
from scheduler_service.transactions.ports import BackendState, DispatchEvent, Lock, Transaction

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
class Decision:
    """One decision that a tick took. `reason` is empty for a start that was accepted, or is not answered yet."""

    dispatched: bool
    reason: str
    detail: str = ""
    task_id: UUID | None = None
    run_id: UUID | None = None
    executor_id: str = ""
    backend: str = ""


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


@dataclass(slots=True)
class _Lane:
    """Room on one executor for one backend."""

    executor_id: str
    key: str
    free: int
    probe: bool


async def take_tick(tx: Transaction, request: TickRequest) -> TickResult:
    """Takes one tick. Raises NotLeader when another replica leads, or this one leads under another term."""
    await require_leadership(tx, request.holder, request.term)
    queued = await tx.queued_backends()
    facts = await gather(tx, request.executors, request.rules, dict.fromkeys(queued, (1, 1)), Lock.SHARE)
    facts, ended = await _without_what_is_over(tx, facts)
    rules = facts.rules
    await show_window(tx, facts.operator, rules)
    if request.kind is not TickKind.RUN and not rules.tick_enabled:
        return TickResult(tx.now, (), (), (), request.memory, rules, ended_drains=ended, taken=False)
    await _store_clamped(tx, facts)
    verdicts = evaluate(facts.gates)
    tick = _Tick(tx, request, facts)
    for backend, permit in permits(facts.gates, verdicts).items():
        if backend in queued:
            await tick.fill(facts.backends[backend], permit)
    for backend in sorted(queued):
        await tick.look_over_without_executor(backend, verdicts)
    recorded = tick.record_holds(verdicts)
    low_rate = tick.tell_low_rates(verdicts)
    await tick.save()
    holds = frozenset((v.reason, v.backend) for v in verdicts if v.holds and v.reason is not None)
    memory = TickMemory(holds, recorded, tick.ramps, low_rate)
    decided = tuple(tick.orders), tuple(tick.decisions), tuple(verdicts)
    return TickResult(tx.now, *decided, memory, rules, tick.more, tick.hurry, tick.probed, ended)


async def _without_what_is_over(tx: Transaction, facts: Facts) -> tuple[Facts, tuple[timedelta, ...]]:
    ended = await end_what_is_over(tx, facts.drains, facts.billing_pauses, facts.live)
    drains = tuple(drain for drain in facts.drains if drain not in ended)
    left = replace(facts, drains=drains, gates=replace(facts.gates, draining=tuple(d.source for d in drains)))
    return left, tuple(tx.now - drain.since_time for drain in ended)


async def _store_clamped(tx: Transaction, facts: Facts) -> None:
    clamped = [new for old in facts.breakers.values() if (new := clamp_opened_time(old, tx.now)) is not old]
    await tx.save_breakers(clamped)


class _Tick:
    """One tick under way: what it has taken so far."""

    def __init__(self, tx: Transaction, request: TickRequest, facts: Facts) -> None:
        self._tx = tx
        self._request = request
        self._rules = facts.rules
        self._facts = facts
        self._local_left = facts.fleet.total.task_pool.available if facts.fleet.total else 0
        self._claimed: list[Task] = []
        self._runs: list[Run] = []
        self._probed: dict[str, Breaker] = {}
        self._spent: dict[str, BackendState] = {}
        self._quarantined: list[Task] = []
        self._started: set[str] = set()
        self._lane_holds: list[Hold] = []
        self.ramps: dict[str, Ramp] = {name: self._ramp(name) for name in facts.backends}
        self._examined: dict[str, list[UUID]] = {}
        self.more = False
        self.hurry = False
        self.orders: list[RunOrder] = []
        self.decisions: list[Decision] = []

    async def fill(self, backend: Backend, permit: Permit) -> None:
        """Claims what the backend's lanes, its permit and its ramp allow."""
        lanes = self._permitted(self._lanes(backend), permit)
        room = sum(lane.free for lane in lanes)
        if backend.local:
            room = min(room, self._local_left)
        if room == 0:
            self._lane_holds.append((self._lane_hold(backend), backend.name))
            return
        room = min(room, MAX_STARTS_PER_TICK if permit.limit is None else permit.limit)
        allowed = ramp.allowance(self.ramps[backend.name], self._tx.now)
        wanted = room if allowed is None else min(room, allowed)
        probing = [lane for lane in lanes if lane.probe]
        taken = await self._take(backend.name, min(wanted, len(probing)), unfailed_first=True) if probing else []
        taken += await self._take(backend.name, wanted - len(taken))
        self._place(backend, lanes, taken)
        self.more |= len(taken) == wanted and (wanted < room or wanted == MAX_STARTS_PER_TICK)
        if taken:
            self._started.add(backend.name)
            self.ramps[backend.name] = ramp.spend(self.ramps[backend.name], len(taken), self._tx.now)
            if backend.local:
                self._local_left -= len(taken)
            if permit.low_rate:
                before = self._facts.backend_states.get(backend.name, BackendState(backend.name))
                self._spent[backend.name] = replace(before, last_trickle_time=self._tx.now)

    def _permitted(self, lanes: list[_Lane], permit: Permit) -> list[_Lane]:
        """The lanes that a permit lets through: of a low rate a probe, if one can be placed, else the trickle."""
        if permit.prefers_probe:
            probing = [lane for lane in lanes if lane.probe]
            return probing or (lanes if permit.trickle else [])
        return lanes

    def _lanes(self, backend: Backend) -> list[_Lane]:
        lanes = []
        seen: set[str] = set()
        for report in self._request.executors:
            own = backend_report(report, backend.name)
            if own is None:
                continue
            key = breaker_key(backend.name, backend.kind, report.executor_id)
            says = admit(self._facts.breakers.get(key, Breaker(key)), self._tx.now, self._rules.checks.breaker)
            free = self._free(backend, report, own.max_runs)
            enforced = breaker_enforced(key, self._facts.gates)
            if says is Admission.PROBE and free > 0 and key not in seen:
                lanes.append(_Lane(report.executor_id, key, 1, True))
                free -= 1
                seen.add(key)
            if says is Admission.ALLOW or not enforced:
                lanes.append(_Lane(report.executor_id, key, free, False))
        return lanes

    def _free(self, backend: Backend, report: ExecutorReport, max_runs: int) -> int:
        own = max(0, max_runs - self._facts.running(backend.name, report.executor_id))
        if not backend.local:
            return own
        pools = self._facts.fleet.executors.get(report.executor_id)
        free = pools.task_pool.available if pools else 0
        return min(free, own) if max_runs else free

    def _lane_hold(self, backend: Backend) -> Reason:
        """Why no lane has room although no gate holds: those with room are blocked by their own breakers, or all are full."""
        open_room = any(
            self._free(backend, report, own.max_runs)
            for report in self._request.executors
            if (own := backend_report(report, backend.name)) is not None
        )
        return Reason.CIRCUIT_BREAKER_OPEN if open_room else Reason.POOL_C_FULL

    def _ramp(self, backend: str) -> Ramp:
        memory = self._request.memory
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
            batch = await self._tx.due_tasks(backend, min(wanted - len(passed), left), skip=examined, unfailed_only=unfailed)
            if not batch:
                if not unfailed:
                    break
                unfailed = False
                continue
            left -= len(batch)
            examined += [task.id for task in batch]
            passed += [task for task in batch if self._passes(task)]
        self.hurry |= left == 0 and len(passed) < wanted
        return passed

    def _passes(self, task: Task) -> bool:
        findings = pre_flight.check(task)
        if not findings:
            return True
        text = pre_flight.describe(findings)
        self._quarantined.append(quarantine(task, HoldReason.PRE_FLIGHT_CHECK_FAILED, text, self._tx.now))
        self._decide(Reason.PRE_FLIGHT_CHECK_FAILED, text, task.backend, task.id)
        return False

    def _decide(self, reason: Reason, detail: str, backend: str, task_id: UUID | None = None) -> None:
        self.decisions.append(Decision(False, reason.value, detail, task_id, backend=backend))
        self._tx.record(DispatchEvent(self._tx.now, False, reason.value, detail[:500], False, backend, task_id))

    def _place(self, backend: Backend, lanes: list[_Lane], tasks: Sequence[Task]) -> None:
        """Gives probes to the first tasks, which were chosen for them, and the rest to the lanes with the most room."""
        for task in tasks:
            lane = max(lanes, key=lambda lane: (lane.probe and lane.free > 0, lane.free, lane.executor_id))
            lane.free -= 1
            self._claim(backend, lane, task)

    def _claim(self, backend: Backend, lane: _Lane, task: Task) -> None:
        now = self._tx.now
        run_id = self._request.new_run_id()
        breaker = self._facts.breakers.get(lane.key, Breaker(lane.key))
        if lane.probe:
            breaker = claim_probe(breaker, run_id, now, self._rules.checks.breaker)
            self._probed[lane.key] = breaker
        claimed = claim(task, run_id, lane.executor_id, now)
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
                lease_until=now + lease_until_give_up(self._rules),
            )
        )
        self.orders.append(order_of(claimed, lane.executor_id))

    async def look_over_without_executor(self, backend: str, verdicts: Sequence[Verdict]) -> None:
        """Pre-flight stands before availability: bad candidates are put aside also while no executor answers."""
        hold = first_hold(verdicts, backend)
        if hold is not None and hold.name == AVAILABILITY:
            await self._take(backend, 1)

    def record_holds(self, verdicts: Sequence[Verdict]) -> frozenset[Hold]:
        """Records each hold once for a clock tick or RunTick; a woken tick records only what it did not repeat.

        Nothing is recorded for a backend in which this tick started something.
        """
        details = {(v.reason, v.backend): v.detail for v in recordable(self._facts.gates, verdicts) if v.reason is not None}
        details |= dict.fromkeys(self._lane_holds, "no executor with room is let through")
        repeated = self._request.memory.recorded if self._request.kind is TickKind.WOKEN else frozenset()
        for (reason, backend), detail in details.items():
            if backend not in self._started and (reason, backend) not in repeated:
                self._decide(reason, detail, backend)
        return frozenset(details)

    def tell_low_rates(self, verdicts: Sequence[Verdict]) -> frozenset[str]:
        """Emits an event for each backend whose success rate has begun to hold, or would hold."""
        low = {v.backend: v for v in verdicts if v.name == Reason.LOW_SUCCESS_RATE.value and (v.holds or v.would_hold)}
        for backend, verdict in low.items():
            if backend not in self._request.memory.low_rate:
                payload = {"backend": backend, "rate": verdict.value, "threshold": verdict.limit, "enforced": verdict.holds}
                tell(self._tx, EventType.DISPATCH_LOW_SUCCESS_RATE, payload)
        return frozenset(low)

    @property
    def probed(self) -> tuple[Breaker, ...]:
        """The breakers of which a probe was claimed."""
        return tuple(self._probed.values())

    async def save(self) -> None:
        """Writes what was taken, in lock order."""
        tx = self._tx
        await tx.save_breakers(self._probed.values())
        await tx.save_backend_states(self._spent.values())
        await tx.save_tasks([*self._claimed, *self._quarantined])
        await tx.add_runs(self._runs)
        await conclude(tx, [(task, None) for task in self._quarantined])


def order_of(task: Task, executor_id: str) -> RunOrder:
    """What the executor is sent for a claimed task."""
    if task.run_id is None:
        raise ValueError(f"task {task.id} is not claimed")
    return RunOrder(
        run_id=task.run_id,
        task_id=task.id,
        fence=task.fence,
        executor_id=executor_id,
        backend=task.backend,
        title=task.title,
        description=pre_flight.body_of(task),
        task_type=task.task_type,
        payload=task.payload,
        timeout=task.timeout,
        skill=skill_for(task.task_type, task.skill, task.payload),
        permission_mode=permission_mode_for(task.task_type),
        model=model_for(task.task_type) or "",
        provider=provider_for(task.task_type),
    )
