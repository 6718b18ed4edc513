"""Two replicas of the scheduler, some executors, and lossy lines between them: what a state machine plays with.

The scheduler's side is the real one: transaction scripts and the reaper. Only the lines (tick/executor_link.py) are stood in for, by
methods that lose, delay and repeat what a network may lose, delay and repeat.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import TypeVar
from uuid import UUID

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.limits import TaskSpec
from scheduler_service.core.run import CancelAnswer, ExecutorReport, RunOrder, RunReport, RunState
from scheduler_service.core.task import Task
from scheduler_service.tick.reaper import Reaper
from scheduler_service.transactions.leading import acquire_or_renew
from scheduler_service.transactions.leases import extend_leases, order_is_stale
from scheduler_service.transactions.orders import order_of
from scheduler_service.transactions.planning import TickKind, TickMemory
from scheduler_service.transactions.ports import Database, Transaction
from scheduler_service.transactions.recording import Recorded, record_answers, record_lost, record_reports
from scheduler_service.transactions.submitting import submit
from scheduler_service.transactions.ticking import TickRequest, TickResult, take_tick
from tests.fakes.fake_clock import FakeClock
from tests.fakes.simulated_executor import SimulatedExecutor

T = TypeVar("T")
LEADER_LEASE = timedelta(seconds=3)


class _Deaf:
    """An observer that nobody reads."""

    def recorded(self, recorded: Recorded) -> None: ...


@dataclass(slots=True)
class Replica:
    """One scheduler process. `term` is that of its last leadership."""

    holder: UUID
    term: int = 0
    memory: TickMemory = field(default_factory=TickMemory)
    reaper: Reaper | None = None
    disowned: set[UUID] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Sent:
    """An order on its way. `stamp` is the executor's clock as the scheduler last saw it before it sent."""

    order: RunOrder
    stamp: float
    term: int


class SimulatedCluster:
    """All of it. `on_way` are orders that have been sent and not delivered."""

    def __init__(
        self, database: Database, clock: FakeClock, rules: DispatchRules, executors: Iterable[SimulatedExecutor]
    ) -> None:
        self.database = database
        self.clock = clock
        self.rules = rules
        self.executors = {executor.name: executor for executor in executors}
        self._ids = count(1)
        self.replicas = [Replica(UUID(int=1_001)), Replica(UUID(int=1_002))]
        self.leader = self.replicas[0]
        self.on_way: list[Sent] = []
        self.stamps: dict[str, float] = {}
        self.said: list[tuple[str, RunReport]] = []
        self.fraction = 0.5

    def new_id(self) -> UUID:
        """Small ids: what failed is read by people."""
        return UUID(int=next(self._ids))

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """One transaction."""
        return await self.database.run(work)

    # --- leading

    async def begin(self, replica: Replica) -> bool:
        """Asks for the lease; a replica that gets it anew begins with an empty memory."""

        async def ask(tx: Transaction) -> int | None:
            await tx.ensure_partitions()
            keys = ["hk-minimax", *(f"cecelia-run@{name}" for name in self.executors)]
            await tx.add_breakers(keys)
            leadership = await acquire_or_renew(tx, replica.holder, "here", LEADER_LEASE)
            return leadership.term if leadership.holder == replica.holder else None

        term = await self.run(ask)
        if term is None:
            return False
        if term != replica.term:
            replica.term = term
            replica.memory = TickMemory(new_leader=True)
            replica.reaper = Reaper(self.database, self.rules, self.clock, _Deaf(), lambda: None)  # type: ignore[arg-type]
            replica.disowned = set()
        self.leader = replica
        return True

    # --- what the leader does

    def heard(self) -> tuple[ExecutorReport, ...]:
        """The executors that could be given something."""
        able = [e for e in self.executors.values() if e.reachable and not e.draining]
        return tuple(executor.report() for executor in able)

    def _stamp(self, executor: SimulatedExecutor) -> float:
        if executor.reachable:
            self.stamps[executor.name] = self.clock.monotonic()
        return self.stamps.get(executor.name, 0.0)

    async def submit(self, *specs: TaskSpec) -> list[Task]:
        """Stores a batch."""
        return await self.run(lambda tx: submit(tx, specs, self.rules.routes, self.new_id))

    async def tick(self, replica: Replica, kind: TickKind) -> TickResult:
        """One tick; its orders are on their way afterwards. Raises NotLeader."""
        request = TickRequest(replica.holder, replica.term, kind, self.heard(), replica.memory, self.rules, self.new_id)
        result = await self.run(lambda tx: take_tick(tx, request))
        replica.memory = result.memory
        self.on_way += [Sent(o, self._stamp(self.executors[o.executor_id]), replica.term) for o in result.orders]
        return result

    async def deliver(self, sent: Sent, rejection: str = "", *, answer_lost: bool = False) -> None:
        """An order arrives, maybe late; its answer comes back, or does not."""
        executor = self.executors[sent.order.executor_id]
        answer = executor.dispatch(sent.order, sent.stamp, sent.term, self.clock.monotonic(), rejection)
        if not answer_lost:
            await self.run(lambda tx: record_answers(tx, [answer], self.rules, lambda: self.fraction))

    async def take_in(self, name: str, reports: Sequence[RunReport]) -> Recorded:
        """Records what an executor says."""
        self.said += [(name, report) for report in reports]
        return await self.run(lambda tx: record_reports(tx, name, reports, self.rules, lambda: self.fraction))

    async def hear(self, executor: SimulatedExecutor, *, acknowledged: bool = True) -> None:
        """A whole replay of its stream."""
        recorded = await self.take_in(executor.name, [run.report for run in executor.runs.values()])
        if acknowledged:
            executor.acknowledge(recorded.settled)

    async def look_after(self, executor: SimulatedExecutor) -> None:
        """Ends what is cancelled, resends what is unanswered, calls off what is stale."""
        name, in_flight = executor.name, {sent.order.run_id for sent in self.on_way}
        await self._end(executor, await self.run(lambda tx: tx.runs_to_cancel(name)))
        runs = await self.run(lambda tx: tx.unanswered_runs(name, tx.now))
        due = [run for run in runs if run.run_id not in in_flight]
        tasks = await self.run(lambda tx: tx.tasks([run.task_id for run in due]))
        now = self.clock.now()
        for run in due:
            task = tasks.get(run.task_id)
            wanted = task is not None and task.run_id == run.run_id and not task.cancel_requested
            if task is not None and wanted and not order_is_stale(run, now, self.rules):
                self.on_way.append(Sent(order_of(task, name), self._stamp(executor), self.leader.term))
            else:
                await self._end(executor, [run.run_id])

    async def _end(self, executor: SimulatedExecutor, run_ids: Iterable[UUID]) -> None:
        refused = [run_id for run_id in run_ids if executor.cancel(run_id) is CancelAnswer.REFUSED]
        known = await self.run(lambda tx: tx.runs(refused))
        never_seen = [id_ for id_ in refused if id_ in known and known[id_].state is RunState.DISPATCHING]
        self.leader.disowned |= {
            id_ for id_ in refused if id_ in known and known[id_].state in (RunState.ACCEPTED, RunState.RUNNING)
        }
        await self.run(lambda tx: record_lost(tx, never_seen, "never seen", self.rules, lambda: self.fraction))

    async def renew(self, executor: SimulatedExecutor, *, lost: bool = False) -> None:
        """Extends leases: committed first, then told, unless that is lost."""
        stamp, leader = self._stamp(executor), self.leader
        renewal = await self.run(
            lambda tx: extend_leases(tx, leader.holder, leader.term, executor.name, self.rules, frozenset(leader.disowned))
        )
        if lost:
            return
        unknown = executor.renew(renewal.run_ids, stamp)
        for run_id in renewal.end_runs:
            executor.cancel(run_id)
        runs = await self.run(lambda tx: tx.runs(unknown))
        gone = [id_ for id_ in unknown if runs[id_].state in (RunState.ACCEPTED, RunState.RUNNING)]
        strays = [id_ for id_, run in executor.runs.items() if run.live and id_ not in renewal.run_ids]
        ended = await self.run(lambda tx: tx.runs(strays))
        strays = [id_ for id_ in strays if id_ not in ended or ended[id_].state is RunState.ENDED]
        await self._end(executor, [*gone, *strays])

    async def reap(self) -> None:
        """Gives up runs whose lease is over on both clocks."""
        if self.leader.reaper is not None:
            await self.leader.reaper.look()

    # --- time

    def advance(self, seconds: float) -> None:
        """Time passes for all; guards keep their leases, whoever listens."""
        self.clock.advance(seconds=seconds)
        for executor in self.executors.values():
            executor.enforce_leases(self.clock.monotonic())

    # --- what is looked at

    def live_runs_of_tasks(self) -> dict[UUID, list[UUID]]:
        """By task, the runs of which something may be running: the truth, whatever the scheduler believes."""
        found: dict[UUID, list[UUID]] = {}
        for executor in self.executors.values():
            for run_id, run in executor.runs.items():
                if run.live:
                    found.setdefault(run.order.task_id, []).append(run_id)
        return found
