"""What must be true of the scheduler, said in other words than its own: naive, slow, and from the rows alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from scheduler_service.core import pre_flight
from scheduler_service.core.breaker import Breaker, BreakerState
from scheduler_service.core.dispatch_checks import GuardMode
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.run import ExecutorReport, Run, RunState
from scheduler_service.core.slot_budget import is_internal
from scheduler_service.core.task import ENDED_STATUSES, LIVE_STATUSES, DependencyPolicy, Task, TaskStatus
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import (
    BackendState,
    BillingPause,
    BudgetCap,
    DispatchEvent,
    Drain,
    EventFilter,
    TaskFilter,
)

EVERYTHING = 100_000
_FOR_A_PERSON = (TaskStatus.QUARANTINED, TaskStatus.FAILED, TaskStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class Rows:
    """What is stored, as of one instant; tasks in the order of submission, runs only those that live."""

    now: datetime
    tasks: Mapping[UUID, Task]
    runs: Mapping[UUID, Run]
    breakers: Mapping[str, Breaker]
    backend_states: Mapping[str, BackendState]
    decisions: Sequence[DispatchEvent]
    drains: Sequence[Drain]
    pauses: Sequence[BillingPause]
    cap: BudgetCap
    used: int


async def read_rows(tx: Transaction) -> Rows:
    """Reads everything."""
    listed = await tx.list_tasks(TaskFilter(), None, EVERYTHING)
    ids = [task.id for _, task in reversed(listed)]
    whole = await tx.tasks(ids)
    live = await tx.runs([lease.run_id for lease in await tx.live_leases()])
    return Rows(
        now=tx.now,
        tasks={id_: whole[id_] for id_ in ids},
        runs=live,
        breakers=await tx.breakers(),
        backend_states=await tx.backend_states(),
        decisions=await tx.dispatch_events(EventFilter(), None, EVERYTHING),
        drains=await tx.drains(),
        pauses=await tx.billing_pauses(),
        cap=(await tx.operator_settings()).cap,
        used=sum(count.n for count in await tx.live_counts()),
    )


def check_rows(rows: Rows, rules: DispatchRules) -> None:
    """What holds between the rows after every step."""
    live_runs = set(rows.runs)
    live_tasks = [task for task in rows.tasks.values() if task.status in LIVE_STATUSES]
    assert rows.used == len(live_tasks), "slots in use are rows running"
    assert live_runs == {task.run_id for task in live_tasks}, "a live task has its run, and no other run lives"
    for task in live_tasks:
        run = rows.runs[task.run_id or UUID(int=0)]
        assert (run.task_id, run.fence, run.executor_id) == (task.id, task.fence, task.executor_id)
        assert (task.status is TaskStatus.RUNNING) == (run.state is RunState.RUNNING)
        assert run.lease_until is not None, f"nothing ever moves {task.id}"
    for task in rows.tasks.values():
        _check_waiting(task, rows)
        assert task.tries <= task.max_tries
        assert task.status is not TaskStatus.QUEUED or not task.cancel_requested, "what is to be cancelled never comes back"
        assert task.status in ENDED_STATUSES or task.tries < task.max_tries, "out of tries is out of the queue"
        assert (task.end_time is not None) == (task.status in ENDED_STATUSES)
    for key, breaker in rows.breakers.items():
        if breaker.state is BreakerState.HALF_OPEN:
            assert breaker.probe_run_id in live_runs, f"the probe of {key} is over and not freed"
        else:
            assert breaker.probe_run_id is None
            assert (breaker.state is BreakerState.OPEN) == (breaker.opened_time is not None)
    told = Counter(event.run_id for event in rows.decisions if event.run_id is not None)
    assert all(n == 1 for n in told.values()), "one decision for each run"


def _check_waiting(task: Task, rows: Rows) -> None:
    """A queued task waits for something that comes: its turn, a time, or tasks that have not ended."""
    if task.status is not TaskStatus.QUEUED:
        return
    open_ones = [rows.tasks.get(other) for other in task.depends_on]
    open_ones = [other for other in open_ones if other is None or other.status is not TaskStatus.COMPLETED]
    assert task.blocked_by == len(open_ones), "as many are counted as have not completed"
    for other in open_ones if task.dependency_policy is DependencyPolicy.FAIL else ():
        assert other is not None, "a missing prerequisite ends its dependents"
        assert other.status not in (TaskStatus.FAILED, TaskStatus.CANCELLED), "so does one that ended badly"


def eligible(rows: Rows, backend: str) -> list[Task]:
    """The tasks of a backend that could start now, in the order in which they should."""
    waiting = [
        (task.create_time + timedelta(hours=(0, 1, 4)[task.priority]), place, task)
        for place, task in enumerate(rows.tasks.values())
        if task.status is TaskStatus.QUEUED and task.backend == backend and task.blocked_by == 0
        if task.not_before_time is None or task.not_before_time <= rows.now
        if task.next_attempt_time is None or task.next_attempt_time <= rows.now
    ]
    return [task for _, _, task in sorted(waiting, key=lambda entry: entry[:2])]


def good(tasks: Sequence[Task]) -> list[Task]:
    """Those that pre-flight lets pass."""
    return [task for task in tasks if not pre_flight.check(task)]


def paused(rows: Rows, backend: str) -> bool:
    """Whether a person, or an answer about money, forbids the backend."""
    idle = not any(task.status in LIVE_STATUSES for task in rows.tasks.values())
    drained = any(not (drain.until_idle and idle) for drain in rows.drains)
    return drained or any(p.until_time > rows.now and p.backend in ("", backend) for p in rows.pauses)


def low_rate(rows: Rows, rules: DispatchRules, backend: str) -> bool:
    """Whether too few of the backend's starts in the window succeeded."""
    if rules.checks.rate_guard is not GuardMode.ENFORCE:
        return False
    since = rows.now - rules.window
    attempts = [e.success for e in rows.decisions if e.attempt and e.backend == backend and e.create_time >= since]
    enough = len(attempts) >= rules.checks.min_sample
    return enough and sum(attempts) < rules.checks.rate_threshold * len(attempts)


def may_try_once(rows: Rows, rules: DispatchRules, backend: str) -> bool:
    """Whether the single try of a backend with a low rate is due. One in the future was written before the clock went back."""
    state = rows.backend_states.get(backend)
    last = state.last_trickle_time if state else None
    return last is None or not timedelta(0) <= rows.now - last < rules.checks.low_rate_probe_interval


def local_pools(rows: Rows, rules: DispatchRules, executors: Sequence[ExecutorReport]) -> dict[str, tuple[int, int]]:
    """(budget, used) of the task pool of each executor that has a sample."""
    live = [task for task in rows.tasks.values() if task.status in LIVE_STATUSES]
    queued = [task for task in rows.tasks.values() if task.status is TaskStatus.QUEUED]
    internal_wanted = any(is_internal(task.payload) for task in [*queued, *live])
    sampled = [e for e in executors if e.resources_reason != "no_sample"]
    home = max(sampled, key=lambda e: (e.max_seats, e.executor_id), default=None)
    pools = {}
    for executor in sampled:
        keeps_one = internal_wanted and executor is home and executor.headed_sessions < 3
        seats = max(0, executor.max_seats - executor.headed_sessions - rules.interactive_reserve - keeps_one)
        mine = [t for t in live if t.executor_id == executor.executor_id and t.backend == "cecelia-run"]
        internal = sum(is_internal(task.payload) for task in mine)
        used = len(mine) - internal + max(0, internal - keeps_one)
        pools[executor.executor_id] = (min(seats, executor.effective_slots), used)
    return pools


def under_ceiling(rows: Rows, pools: Mapping[str, tuple[int, int]]) -> int:
    """How many more local tasks the operator's ceiling lets start."""
    budget, used = sum(b for b, _ in pools.values()), sum(u for _, u in pools.values())
    return EVERYTHING if rows.cap.slots is None or rows.cap.slots >= budget else max(0, rows.cap.slots - used)


def room_of(rows: Rows, rules: DispatchRules, backend: str, executors: Sequence[ExecutorReport]) -> dict[str, int]:
    """Free slots for a backend on each executor that has it."""
    able = [e for e in executors if any(b.backend == backend and b.configured for b in e.backends)]
    if backend == "cecelia-run":
        pools = local_pools(rows, rules, executors)
        most = under_ceiling(rows, pools)
        return {e.executor_id: min(most, max(0, b - u)) for e in able for b, u in [pools.get(e.executor_id, (0, 0))]}
    limits = {e.executor_id: b.max_runs for e in able for b in e.backends if b.backend == backend}
    live = [task for task in rows.tasks.values() if task.status in LIVE_STATUSES and task.backend == backend]
    return {name: max(0, limit - sum(task.executor_id == name for task in live)) for name, limit in limits.items()}


def breaker_says(rows: Rows, rules: DispatchRules, backend: str, executor_id: str) -> str:
    """`allow`, `probe` or `block`."""
    breaker = rows.breakers.get(backend if backend == "hk-minimax" else f"{backend}@{executor_id}")
    if breaker is None or breaker.state is BreakerState.CLOSED:
        return "allow"
    if breaker.state is BreakerState.HALF_OPEN or breaker.opened_time is None:
        return "block"
    duration = rules.checks.breaker.open_duration if breaker.open_duration is None else breaker.open_duration
    return "probe" if min(breaker.opened_time, rows.now) + duration <= rows.now else "block"


def must_start(rows: Rows, rules: DispatchRules, backend: str, executors: Sequence[ExecutorReport]) -> bool:
    """Whether at least one task of the backend must start in a tick now, as far as the rows tell."""
    if paused(rows, backend) or not good(eligible(rows, backend)):
        return False
    room = room_of(rows, rules, backend, executors)
    says = {breaker_says(rows, rules, backend, name) for name, free in room.items() if free > 0} - {"block"}
    return bool(says) and (not low_rate(rows, rules, backend) or "probe" in says or may_try_once(rows, rules, backend))


def not_ended(rows: Rows) -> dict[UUID, TaskStatus]:
    """Tasks that have not ended, but for those that wait for one that a person has to mend, or that does not exist."""
    waiting: set[UUID] = set()
    for task in rows.tasks.values():
        others = [rows.tasks.get(other) for other in task.depends_on]
        if any(other is None or other.id in waiting or other.status in _FOR_A_PERSON for other in others):
            waiting.add(task.id)
    return {id_: task.status for id_, task in rows.tasks.items() if task.status not in ENDED_STATUSES and id_ not in waiting}
