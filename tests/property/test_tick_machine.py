"""The whole tick as one state machine: the real transaction scripts on a fake clock, against executors that are a model.

After every step the rows must agree with each other and with the model (tick_oracle.py), every tick must do what an explanation has
just said, and at the end, when all is mended, every task must come to its end. What failed is printed as the steps that lead there,
and as a line `@reproduce_failure(...)`; put above the class it replays them. TICK_MACHINE_EXAMPLES=2000 searches longer, with
another seed each time, which is printed as `--hypothesis-seed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from scheduler_service.core.breaker import BreakerSettings, BreakerState, clamp_opened_time, retry_time
from scheduler_service.core.dispatch_checks import CheckSettings, GuardMode
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.limits import TaskSpec
from scheduler_service.core.run import ExecutorReport, RunState
from scheduler_service.core.task import LEGAL_MOVES, DependencyPolicy, Move, Priority, Task, TaskChanges, TaskStatus
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict
from scheduler_service.errors import NotLeader
from scheduler_service.transactions.auditing import Caller
from scheduler_service.transactions.editing import cancel_task, requeue_task, update_task
from scheduler_service.transactions.overrides import (
    clear_billing_pause,
    reset_breaker,
    set_billing_pause,
    set_budget_cap,
    set_drain,
    trip_breaker,
)
from scheduler_service.transactions.planning import TickKind
from scheduler_service.transactions.ports import Database, Transaction
from scheduler_service.transactions.reading import Explanation, explain, read_slots
from scheduler_service.transactions.ticking import TickResult
from service_runtime.errors import FailedPrecondition
from tests.fakes.fake_clock import FakeClock
from tests.fakes.memory_database import MemoryDatabase
from tests.fakes.simulated_cluster import Replica, SimulatedCluster
from tests.fakes.simulated_executor import SimulatedExecutor, SimulatedRun
from tests.property import tick_oracle as oracle
from tests.property.tick_oracle import Rows

T = TypeVar("T")
LEASE = timedelta(minutes=10)
CALLER = Caller("tester", "because", "")
BACKENDS = ("cecelia-run", "hk-minimax")
SOURCES = ("operator", "deploy")
DESCRIPTION = "A description that is long enough for pre-flight to let it pass."
PICK = st.integers(0, 30)
RAMP_STEP = timedelta(seconds=1)

VERDICTS = {
    "starts": (StartVerdict.SUCCESS, None, ""),
    "cannot start": (StartVerdict.FAILURE, OutcomeClass.NOT_STARTED, "executor_failed"),
    "is asked to pay": (StartVerdict.NEUTRAL, OutcomeClass.NOT_STARTED, "billing_cap"),
    "is asked to wait": (StartVerdict.NEUTRAL, OutcomeClass.NOT_STARTED, "rate_limit"),
    "times out before": (StartVerdict.NEUTRAL, OutcomeClass.TIMED_OUT, "timed_out"),
    "cannot be started": (StartVerdict.NEUTRAL, OutcomeClass.NOT_STARTED, "task"),
    "is lost before": (StartVerdict.NEUTRAL, OutcomeClass.LOST, "lost"),
}
REJECTIONS = ["", "", "", "server_overloaded", "config_error", "already_running", "no_sample", "bridge_error", "new_in_v9"]


class TickMachine(RuleBasedStateMachine):
    """Submits, ticks, answers, loses, jumps; see the module."""

    cluster: SimulatedCluster

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.broken = False
        self.ready = False
        self.last_starts: dict[str, datetime] = {}
        self.last_tries: dict[str, datetime] = {}
        self.ended_well: set[UUID] = set()

    def database(self, clock: FakeClock) -> Database:
        """Where the rows are."""
        return MemoryDatabase(clock.now)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a step; after one that failed nothing is looked at any more."""
        try:
            return self.loop.run_until_complete(work)
        except BaseException:
            self.broken = True
            raise

    @initialize(
        seats=st.sampled_from([3, 4, 5, 8]),
        others=st.sampled_from([0, 3, 4]),
        guard=st.sampled_from([GuardMode.ENFORCE, GuardMode.ENFORCE, GuardMode.OBSERVE]),
        threshold=st.sampled_from([2, 3, 50]),
        open_s=st.sampled_from([50, 1_800]),
        fraction=st.sampled_from([0.0, 0.0, 0.5, 0.999]),
        past=st.sampled_from(["", "starts", "starts", "cannot start", "cannot start", "accepted"]),
    )
    def begin(self, seats: int, others: int, guard: GuardMode, threshold: int, open_s: int, fraction: float, past: str) -> None:
        clock = FakeClock()
        breaker = BreakerSettings(threshold, timedelta(seconds=open_s))
        checks = CheckSettings(min_sample=4, rate_guard=guard, breaker=breaker)
        rules = DispatchRules(lease_ttl=LEASE, checks=checks)
        executors = [SimulatedExecutor("a", seats, 1, LEASE.total_seconds())]
        if others:
            executors.append(SimulatedExecutor("b", others, 2, LEASE.total_seconds()))
        self.cluster = SimulatedCluster(self.database(clock), clock, rules, executors)
        self.cluster.fraction = fraction
        self.do(self.cluster.begin(self.cluster.replicas[0]))
        self.ready = True
        if past == "accepted":
            self.submit(Priority.P1, "dev", "A good title", None, 3, [], False, False, 3)
            self.tick(TickKind.CLOCK, True)
        elif past:
            self.all_are_judged(past, 3, True, 0)

    # --- looking

    def rows(self) -> Rows:
        return self.do(self.cluster.run(oracle.read_rows))

    def task(self, pick: int) -> UUID | None:
        ids = list(self.rows().tasks)
        return ids[pick % len(ids)] if ids else None

    def executor(self, pick: int) -> SimulatedExecutor:
        names = sorted(self.cluster.executors)
        return self.cluster.executors[names[pick % len(names)]]

    def live_run(self, pick: int) -> SimulatedRun | None:
        live = [run for e in self.cluster.executors.values() for run in e.runs.values() if run.live]
        return live[pick % len(live)] if live else None

    # --- tasks

    @rule(
        priority=st.sampled_from(Priority),
        task_type=st.sampled_from(["dev", "dev", "talk"]),
        title=st.sampled_from(["A good title", "A good title", "A good title", "x"]),
        wait=st.sampled_from([None, None, None, 60, 4_000]),
        max_tries=st.integers(1, 3),
        prerequisites=st.lists(st.integers(0, 4), max_size=2),
        missing=st.sampled_from([False] * 9 + [True]),
        internal=st.sampled_from([False] * 5 + [True]),
        copies=st.integers(1, 3),
        policy=st.sampled_from(DependencyPolicy),
    )
    def submit(
        self,
        priority: Priority,
        task_type: str,
        title: str,
        wait: int | None,
        max_tries: int,
        prerequisites: list[int],
        missing: bool,
        internal: bool,
        copies: int,
        policy: DependencyPolicy = DependencyPolicy.FAIL,
    ) -> None:
        newest = list(self.rows().tasks)[-5:]
        depends_on = {newest[pick % len(newest)] for pick in prerequisites if newest}
        if missing:
            depends_on.add(UUID(int=999_999))
        spec = TaskSpec(
            title=title,
            description=DESCRIPTION,
            task_type=task_type,
            priority=priority,
            payload={"requires_cortex": True} if internal else {},
            depends_on=tuple(sorted(depends_on)),
            dependency_policy=policy,
            max_tries=max_tries,
            not_before_time=None if wait is None else self.cluster.clock.now() + timedelta(seconds=wait),
        )
        self.do(self.cluster.submit(*[spec] * copies))

    @rule(links=st.integers(2, 4))
    def submit_chain(self, links: int) -> None:
        ids = [self.cluster.new_id() for _ in range(links)]
        chain = zip(ids, [None, *ids], strict=False)
        self.do(
            self.cluster.submit(
                *(
                    TaskSpec(
                        title="A link of a chain", description=DESCRIPTION, task_id=id_, depends_on=(before,) if before else ()
                    )
                    for id_, before in chain
                )
            )
        )

    def edit(self, work: Callable[[Transaction], Awaitable[Task]]) -> None:
        """What a caller asks for; that the task is past it is a proper answer."""
        with contextlib.suppress(FailedPrecondition):
            self.loop.run_until_complete(self.cluster.run(work))

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        if (id_ := self.task(pick)) is not None:
            self.edit(lambda tx: cancel_task(tx, id_, actor="me", reason="", request_id=""))

    @rule(pick=PICK)
    def requeue(self, pick: int) -> None:
        ended = [task.id for task in self.rows().tasks.values() if task.status in LEGAL_MOVES[Move.REQUEUE]]
        if ended:
            id_ = ended[pick % len(ended)]
            self.edit(lambda tx: requeue_task(tx, id_, actor="me", reason="", request_id=""))

    @rule(pick=PICK, priority=st.sampled_from(Priority))
    def update(self, pick: int, priority: Priority) -> None:
        if (id_ := self.task(pick)) is not None:
            changes: TaskChanges = {"title": "A better title", "priority": priority, "not_before_time": None}
            self.edit(lambda tx: update_task(tx, id_, changes, actor="me", request_id=""))

    # --- ticks

    @rule(kind=st.sampled_from(TickKind), delivered=st.sampled_from([True, True, False]))
    def tick(self, kind: TickKind, delivered: bool) -> None:
        self.do(self._tick(kind, delivered))

    async def _tick(self, kind: TickKind, delivered: bool = True) -> None:
        cluster, leader = self.cluster, self.cluster.leader
        heard = cluster.heard()
        before = await cluster.run(oracle.read_rows)
        queued = [task for task in before.tasks.values() if task.status is TaskStatus.QUEUED]
        said = await cluster.run(lambda tx: explain(tx, heard, cluster.rules, None, leader.memory))
        of_tasks = {
            task.id: await cluster.run(lambda tx, id_=task.id: explain(tx, heard, cluster.rules, id_, leader.memory))
            for task in queued
        }
        result = await cluster.tick(leader, kind)
        after = await cluster.run(oracle.read_rows)
        self._explained(said, of_tasks, result)
        self._went_in_order(before, heard, result)
        self._kept_within(before, heard, result)
        self._started_what_it_must(before, heard, result)
        self._fed_nothing_by_refusing(before, after, result)
        for order in result.orders:
            self.last_starts[order.backend] = before.now
        if delivered:
            while cluster.on_way:
                await cluster.deliver(cluster.on_way.pop())

    def _explained(self, said: Explanation, of_tasks: Mapping[UUID, Explanation], result: TickResult) -> None:
        """What was said is what was done."""
        started = {order.task_id for order in result.orders}
        assert said.would_dispatch == bool(started), said.sentence
        assert {id_ for id_, own in of_tasks.items() if own.would_dispatch} == started
        aside = {d.task_id for d in result.decisions if d.reason == "pre_flight_check_failed"}
        assert {id_ for id_, own in of_tasks.items() if own.task_reason == "pre_flight_check_failed"} == aside
        for own in of_tasks.values():
            assert own.would_dispatch or own.task_reason or own.queue_position > 0, own.sentence

    def _went_in_order(self, before: Rows, heard: Sequence[ExecutorReport], result: TickResult) -> None:
        """The best candidates start, whatever is bad among them; a probe alone may choose another."""
        for backend in BACKENDS:
            started = [order.task_id for order in result.orders if order.backend == backend]
            candidates = oracle.good(oracle.eligible(before, backend))
            says = {oracle.breaker_says(before, self.cluster.rules, backend, report.executor_id) for report in heard}
            if "probe" not in says or all(task.last_start_failure_time is None for task in candidates):
                assert started == [task.id for task in candidates[: len(started)]]
            else:
                assert set(started) <= {task.id for task in candidates}

    def _kept_within(self, before: Rows, heard: Sequence[ExecutorReport], result: TickResult) -> None:
        """No executor is given more than it has room for, and no breaker more than it lets through."""
        rules, allowed = self.cluster.rules, dict.fromkeys(BACKENDS, oracle.EVERYTHING)
        allowed["cecelia-run"] = oracle.under_ceiling(before, oracle.local_pools(before, rules, heard))
        for backend in BACKENDS:
            room = oracle.room_of(before, rules, backend, heard)
            placed = Counter(order.executor_id for order in result.orders if order.backend == backend)
            low = oracle.low_rate(before, rules, backend)
            assert placed.total() <= (1 if low else allowed[backend])
            says = [oracle.breaker_says(before, rules, backend, name) for name in placed]
            if low and placed and "probe" not in says:
                last, self.last_tries[backend] = self.last_tries.get(backend), before.now
                assert last is None or not timedelta(0) <= before.now - last < rules.checks.low_rate_probe_interval
            elif low and placed:
                self.last_tries[backend] = before.now
            assert not placed or not oracle.paused(before, backend)
            for name, n in placed.items():
                word = oracle.breaker_says(before, rules, backend, name)
                assert n <= min(room[name], {"allow": room[name], "probe": 1, "block": 0}[word])

    def _started_what_it_must(self, before: Rows, heard: Sequence[ExecutorReport], result: TickResult) -> None:
        """A free slot, nothing that forbids, and a task that waits: at least one starts."""
        for backend in BACKENDS:
            last = self.last_starts.get(backend)
            ramping = last is not None and timedelta(0) <= before.now - last < RAMP_STEP
            if oracle.must_start(before, self.cluster.rules, backend, heard) and not ramping and not result.hurry:
                assert any(order.backend == backend for order in result.orders), f"nothing starts on {backend}"

    def _fed_nothing_by_refusing(self, before: Rows, after: Rows, result: TickResult) -> None:
        """A guard's own refusals never change what it judges by."""
        assert [e for e in before.decisions if e.attempt] == [e for e in after.decisions if e.attempt]
        runs = {order.run_id for order in result.orders}
        for key, breaker in after.breakers.items():
            if breaker.state is before.breakers[key].state:
                old = clamp_opened_time(before.breakers[key], before.now)
                assert breaker == old
            else:
                assert breaker.state is BreakerState.HALF_OPEN
                assert breaker.probe_run_id in runs
        for backend, state in after.backend_states.items():
            touched = any(order.backend == backend for order in result.orders)
            assert touched or state == before.backend_states[backend]

    # --- executors

    @precondition(lambda self: self.ready and self.cluster.on_way)
    @rule(pick=PICK, rejection=st.sampled_from(REJECTIONS), lost=st.sampled_from(["", "", "order", "answer"]))
    def deliver(self, pick: int, rejection: str, lost: str) -> None:
        sent = self.cluster.on_way.pop(pick % len(self.cluster.on_way))
        lost = lost if self.cluster.executors[sent.order.executor_id].reachable else lost or "answer"
        if lost != "order":
            self.do(self.cluster.deliver(sent, rejection, answer_lost=lost == "answer"))

    @precondition(lambda self: self.live_run(0))
    @rule(pick=PICK, what=st.sampled_from(sorted(VERDICTS)), after=st.sampled_from([None, None, 90, 7_200]), heard=st.booleans())
    def run_is_judged(self, pick: int, what: str, after: int | None, heard: bool) -> None:
        run = self.live_run(pick)
        if run is not None and run.report.verdict is None:
            verdict, outcome, reason = VERDICTS[what]
            retry = None if after is None else self.cluster.clock.now() + timedelta(seconds=after)
            run.tell(verdict, outcome, verdict_reason=reason, verdict_detail=what, retry_time=retry, error=what)
            self.hear(sorted(self.cluster.executors).index(run.order.executor_id), heard)

    @rule(what=st.sampled_from(sorted(VERDICTS)), rounds=st.integers(1, 3), first=st.booleans(), wait=st.sampled_from([0, 60]))
    def all_are_judged(self, what: str, rounds: int, first: bool, wait: int) -> None:
        """A backend that works, or does not, for a while: what opens breakers and lowers rates."""
        if first:
            self.submit(Priority.P1, "dev", "A good title", None, 3, [], False, False, 3)
        self.cluster.advance(wait)
        for _ in range(rounds):
            self.do(self._tick(TickKind.CLOCK))
            for executor in self.cluster.executors.values():
                for run in executor.runs.values():
                    if run.live and run.report.verdict is None:
                        verdict, outcome, reason = VERDICTS[what]
                        run.tell(verdict, outcome, verdict_reason=reason, verdict_detail=what, error=what)
                if executor.reachable:
                    self.do(self.cluster.hear(executor))
            self.cluster.advance(2)

    @precondition(lambda self: self.live_run(0))
    @rule(
        pick=PICK,
        outcome=st.sampled_from([o for o in OutcomeClass if o is not OutcomeClass.NOT_STARTED]),
        error_class=st.sampled_from(["", "", "rate_limit", "task"]),
        heard=st.booleans(),
    )
    def run_ends(self, pick: int, outcome: OutcomeClass, error_class: str, heard: bool) -> None:
        run = self.live_run(pick)
        if run is None:
            return
        run.tell(StartVerdict.SUCCESS, outcome, error_class=error_class, error="" if outcome == "completed" else "it broke")
        executor = self.cluster.executors[run.order.executor_id]
        if heard and executor.reachable:
            self.do(self.cluster.hear(executor))

    @rule(pick=PICK, acknowledged=st.booleans())
    def hear(self, pick: int, acknowledged: bool) -> None:
        executor = self.executor(pick)
        if executor.reachable:
            self.do(self.cluster.hear(executor, acknowledged=acknowledged))

    @precondition(lambda self: self.ready and self.cluster.said)
    @rule(pick=st.integers(0, 8) | st.integers(0, 1_000), foreign=st.booleans())
    def hear_again(self, pick: int, foreign: bool) -> None:
        self.do(self._hear_again(pick, foreign))

    async def _hear_again(self, pick: int, foreign: bool) -> None:
        """Late, double and foreign reports change nothing."""
        cluster = self.cluster
        name, report = cluster.said[-1 - pick % len(cluster.said)]
        before = await cluster.run(oracle.read_rows)
        stored = (await cluster.run(lambda tx: tx.runs([report.run_id])))[report.run_id]
        told = (
            structs.replace(report, verdict=StartVerdict.SUCCESS, outcome=OutcomeClass.FAILED, live=False) if foreign else report
        )
        recorded = await cluster.take_in("stranger" if foreign else name, [told])
        if foreign or stored.state is RunState.ENDED:
            assert recorded.ignored == (told.outcome is not None)
            assert await cluster.run(oracle.read_rows) == before

    @rule(pick=PICK, lost=st.sampled_from([False, False, True]))
    def look_after(self, pick: int, lost: bool) -> None:
        executor = self.executor(pick)
        if executor.reachable:
            self.do(self.cluster.hear(executor))
            self.do(self.cluster.look_after(executor))
            self.do(self.cluster.renew(executor, lost=lost))

    @rule(pick=PICK, reachable=st.sampled_from([True, True, False]))
    def vanish_or_come_back(self, pick: int, reachable: bool) -> None:
        self.executor(pick).reachable = reachable

    @rule(pick=PICK)
    def die_and_be_replaced(self, pick: int) -> None:
        self.executor(pick).lose_everything(self.cluster.clock.monotonic())

    @rule(
        pick=PICK,
        slots=st.sampled_from([9, 9, 3, 1, 0]),
        sessions=st.sampled_from([0, 0, 0, 1, 3]),
        draining=st.sampled_from([False] * 5 + [True]),
        sampled=st.sampled_from([True] * 5 + [False]),
        configured=st.sampled_from([True] * 5 + [False]),
    )
    def press(self, pick: int, slots: int, sessions: int, draining: bool, sampled: bool, configured: bool) -> None:
        executor = self.executor(pick)
        executor.slots, executor.sessions, executor.draining = slots, sessions, draining
        executor.sampled, executor.configured = sampled, configured

    @rule()
    def reap(self) -> None:
        self.do(self.cluster.reap())

    # --- leaders

    @rule()
    def change_leader(self) -> None:
        other = next(r for r in self.cluster.replicas if r is not self.cluster.leader)
        self.cluster.advance(4)
        assert self.do(self.cluster.begin(other))

    @rule(kind=st.sampled_from(TickKind))
    def old_leader_ticks(self, kind: TickKind) -> None:
        old = next(r for r in self.cluster.replicas if r is not self.cluster.leader)
        before = self.rows()
        leader = self.cluster.leader
        for stale in (Replica(old.holder, old.term), Replica(leader.holder, leader.term - 1), Replica(old.holder, leader.term)):
            try:
                self.loop.run_until_complete(self.cluster.tick(stale, kind))
            except NotLeader:
                continue
            self.broken = True
            raise AssertionError(f"a tick of {stale} was taken")
        assert self.rows() == before

    # --- overrides

    @rule(
        what=st.sampled_from(["drain", "pause", "cap", "breaker"]),
        on=st.booleans(),
        whom=st.integers(0, 2),
        minutes=st.sampled_from([1, 20, 100]),
    )
    def override(self, what: str, on: bool, whom: int, minutes: int) -> None:
        self.do(self._override(what, on, whom, minutes))

    async def _override(self, what: str, on: bool, whom: int, minutes: int) -> None:
        cluster, span = self.cluster, timedelta(minutes=minutes)
        if what == "drain":
            await cluster.run(lambda tx: set_drain(tx, on, SOURCES[whom % 2], minutes > 1, CALLER))
        elif what == "cap":
            await cluster.run(lambda tx: set_budget_cap(tx, whom + 1 if on else None, CALLER))
        elif what == "pause" and on:
            await cluster.run(lambda tx: set_billing_pause(tx, ("", *BACKENDS)[whom], tx.now + span, CALLER))
        elif what == "pause":
            await cluster.run(lambda tx: clear_billing_pause(tx, ("", *BACKENDS)[whom], CALLER))
        else:
            key, heard, rules = (*BACKENDS, "cecelia-run@a")[whom], cluster.heard(), cluster.rules
            if on:
                await cluster.run(lambda tx: trip_breaker(tx, key, span, CALLER, heard, rules))
            else:
                await cluster.run(lambda tx: reset_breaker(tx, key, CALLER, heard, rules))

    # --- time

    @rule(seconds=st.sampled_from([0.3, 1, 5, 30, 61, 151, 250, 400, 700, 1_900]), looked=st.booleans())
    def time_passes(self, seconds: float, looked: bool) -> None:
        self.cluster.advance(seconds)
        if looked:
            self.do(self._look())

    @rule(hours=st.sampled_from([-1, 1]), looked=st.booleans())
    def the_clock_is_set(self, hours: int, looked: bool) -> None:
        self.cluster.clock.jump(hours=hours)
        assert self.do(self.cluster.begin(self.cluster.leader))
        if looked:
            self.do(self._look())

    async def _look(self) -> None:
        await self.cluster.reap()
        self.cluster.advance(2)
        await self._tick(TickKind.CLOCK)

    @rule(delivered=st.booleans())
    def breakers_wait_is_over(self, delivered: bool) -> None:
        """Time passes until an open breaker admits a probe."""
        cluster = self.cluster
        times = [retry_time(b, cluster.rules.checks.breaker, cluster.clock.now()) for b in self.rows().breakers.values()]
        found = min((time for time in times if time is not None), default=None)
        if found is not None:
            cluster.advance(max(0.0, (found - cluster.clock.now()).total_seconds()))
            self.do(self._tick(TickKind.CLOCK, delivered))

    # --- what must hold

    @invariant()
    def a_task_runs_once_at_a_time(self) -> None:
        if self.ready:
            twice = {task: runs for task, runs in self.cluster.live_runs_of_tasks().items() if len(runs) > 1}
            assert not twice, f"run twice at the same time: {twice}"

    @invariant()
    def the_rows_agree(self) -> None:
        if not self.ready:
            return
        rows = self.rows()
        oracle.check_rows(rows, self.cluster.rules)
        running = {run for runs in self.cluster.live_runs_of_tasks().values() for run in runs}
        assert running <= set(rows.runs), "what may still run was given up"
        well = {task.id for task in rows.tasks.values() if task.status is TaskStatus.COMPLETED}
        assert self.ended_well <= well, "what has completed stays so"
        self.ended_well = well

        heard, rules = self.cluster.heard(), self.cluster.rules
        view = self.do(self.cluster.run(lambda tx: read_slots(tx, heard, rules)))
        pools = oracle.local_pools(rows, rules, heard)
        assert {name: (p.task_pool.budget, p.task_pool.used) for name, p in view.fleet.executors.items()} == pools

    # --- the end

    def teardown(self) -> None:
        """When all is mended, every task comes to its end."""
        try:
            if self.ready and not self.broken:
                self.do(self._mend())
                self.do(self._all_end())
        finally:
            self.close()
            self.loop.close()

    def close(self) -> None:
        """Lets go of what `database` has taken."""

    async def _mend(self) -> None:
        cluster = self.cluster
        await cluster.run(lambda tx: set_budget_cap(tx, None, CALLER))
        for source in SOURCES:
            await cluster.run(lambda tx, source=source: set_drain(tx, False, source, False, CALLER))
        for backend in ("", *BACKENDS):
            await cluster.run(lambda tx, backend=backend: clear_billing_pause(tx, backend, CALLER))
        for executor in cluster.executors.values():
            executor.reachable = executor.sampled = executor.configured = True
            executor.draining, executor.slots, executor.sessions = False, 9, 0
            executor.seats, executor.max_runs = 9, 4

    async def _all_end(self) -> None:
        cluster, stuck = self.cluster, dict.fromkeys([UUID(int=0)], TaskStatus.QUEUED)
        rounds = 12 + 2 * len((await cluster.run(oracle.read_rows)).tasks)
        while stuck and rounds:
            rounds -= 1
            await self._tick(TickKind.CLOCK)
            for executor in cluster.executors.values():
                for run in executor.runs.values():
                    if run.live:
                        run.tell(StartVerdict.SUCCESS, OutcomeClass.COMPLETED)
                await cluster.hear(executor)
                await cluster.look_after(executor)
                await cluster.renew(executor)
            await cluster.reap()
            cluster.advance(1_801)
            rows = await cluster.run(oracle.read_rows)
            stuck = oracle.not_ended(rows)
        assert not stuck, f"these tasks never end: {stuck}"
        assert not rows.runs
        assert all(breaker.state is not BreakerState.HALF_OPEN for breaker in rows.breakers.values())


TestTickMachine = TickMachine.TestCase
EXAMPLES = int(os.environ.get("TICK_MACHINE_EXAMPLES", "0"))
TestTickMachine.settings = hypothesis_settings(
    max_examples=EXAMPLES or 60,
    stateful_step_count=50,
    deadline=None,
    derandomize=not EXAMPLES,
    print_blob=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
