"""A cluster to play with, once on the memory store and once on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest

from scheduler_service.core.dispatch_checks import CheckSettings
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.events import EVENT_SHAPES, EventType
from scheduler_service.core.limits import TaskSpec
from scheduler_service.core.run import BackendReport, DispatchAnswer, ExecutorReport, Run, RunReport
from scheduler_service.core.task import Task
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict
from scheduler_service.storage.postgres import PostgresDatabase
from scheduler_service.transactions.auditing import Caller
from scheduler_service.transactions.leading import acquire_or_renew
from scheduler_service.transactions.planning import TickKind, TickMemory
from scheduler_service.transactions.ports import Database, Transaction
from scheduler_service.transactions.recording import Recorded, record_answers, record_lost, record_reports
from scheduler_service.transactions.stored import EventFilter
from scheduler_service.transactions.submitting import submit
from scheduler_service.transactions.ticking import TickRequest, TickResult, take_tick
from tests.fakes.fake_clock import FakeClock
from tests.fakes.memory_database import MemoryDatabase

T = TypeVar("T")
EXECUTOR = "host-a"
DESCRIPTION = "A description that is long enough for pre-flight to let it pass."
CALLER = Caller("tester", "because", "")


def report(
    executor_id: str = EXECUTOR, *, seats: int = 12, slots: int | None = None, max_runs: int = 2, **changes: Any
) -> ExecutorReport:
    """A live executor with both backends."""
    made = ExecutorReport(
        executor_id=executor_id,
        boot_id="boot",
        stamp=1,
        draining=False,
        version="1",
        resources_ok=True,
        resources_reason="",
        max_seats=seats,
        physical_capacity=seats,
        effective_slots=seats if slots is None else slots,
        max_pressure=0.1,
        headed_sessions=0,
        backends=(
            BackendReport("cecelia-run", True, True, True, "", "", 0, 0),
            BackendReport("hk-minimax", False, True, True, "", "", max_runs, 0),
        ),
    )
    return replace(made, **changes)


class Cluster:
    """A database, a clock, and a leader that ticks by hand."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        self.database = database
        self.clock = clock
        self.rules = DispatchRules(checks=CheckSettings(), lease_ttl=timedelta(minutes=10))
        self.holder = uuid4()
        self.term = 0
        self.memory = TickMemory()
        self.executors: tuple[ExecutorReport, ...] = (report(),)
        self.fraction = 0.5
        self._numbers = count(1)

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        return await self.database.run(work)

    async def lead(self) -> None:
        """Takes the lease, and prepares what a leader prepares."""

        async def begin(tx: Transaction) -> int:
            await tx.ensure_partitions()
            await tx.add_breakers(["hk-minimax", *(f"cecelia-run@{e.executor_id}" for e in self.executors)])
            return (await acquire_or_renew(tx, self.holder, "here", timedelta(seconds=3))).term

        self.term = await self.run(begin)

    async def submit(self, *specs: TaskSpec) -> list[Task]:
        return await self.run(lambda tx: submit(tx, specs, self.rules.routes, uuid4))

    async def add(self, title: str = "A good title", **changes: Any) -> Task:
        """One task that passes every check."""
        changes.setdefault("description", DESCRIPTION)
        self.clock.advance(seconds=0.001)
        return (await self.submit(TaskSpec(title=title, **changes)))[0]

    async def tick(self, kind: TickKind = TickKind.CLOCK) -> TickResult:
        request = TickRequest(self.holder, self.term, kind, self.executors, self.memory, self.rules, uuid4)
        result = await self.run(lambda tx: take_tick(tx, request))
        self.memory = result.memory
        return result

    async def task(self, task_id: UUID) -> Task:
        return (await self.run(lambda tx: tx.tasks([task_id])))[task_id]

    async def run_of(self, task_id: UUID) -> Run:
        """The newest run of a task."""
        return (await self.run(lambda tx: tx.runs_of_task(task_id)))[0]

    async def started(self, task_id: UUID, executor_id: str | None = None) -> Recorded:
        return await self.reported(task_id, executor_id, verdict=StartVerdict.SUCCESS)

    async def reported(self, task_id: UUID, executor_id: str | None = None, **changes: Any) -> Recorded:
        """What the executor says of a task's newest run."""
        run = await self.run_of(task_id)
        message = RunReport(run.run_id, run.task_id, run.fence, live="outcome" not in changes, **changes)
        return await self.take_in(message, executor_id or run.executor_id)

    async def take_in(self, message: RunReport, executor_id: str = EXECUTOR) -> Recorded:
        return await self.run(lambda tx: record_reports(tx, executor_id, [message], self.rules, lambda: self.fraction))

    async def failed_start(self, task_id: UUID) -> Recorded:
        return await self.reported(
            task_id,
            verdict=StartVerdict.FAILURE,
            verdict_reason="executor_failed",
            verdict_detail="no interpreter",
            outcome=OutcomeClass.NOT_STARTED,
        )

    async def completed(self, task_id: UUID, result: str = "done") -> Recorded:
        return await self.reported(
            task_id, verdict=StartVerdict.SUCCESS, outcome=OutcomeClass.COMPLETED, exit_code=0, result=result
        )

    async def answered(self, task_id: UUID, accepted: bool, reason: str = "") -> Recorded:
        run = await self.run_of(task_id)
        answers: Sequence[DispatchAnswer] = [DispatchAnswer(run.run_id, accepted, reason, "words")]
        return await self.run(lambda tx: record_answers(tx, answers, self.rules, lambda: self.fraction))

    async def lost(self, task_id: UUID) -> Recorded:
        run = await self.run_of(task_id)
        return await self.run(lambda tx: record_lost(tx, [run.run_id], "gone", self.rules, lambda: self.fraction))

    async def decisions(self) -> list[tuple[bool, str, str]]:
        """Every recorded decision, oldest first: success, reason, backend."""
        found = await self.run(lambda tx: tx.dispatch_events(EventFilter(), None, 1_000))
        return [(event.success, event.reason, event.backend) for event in reversed(found)]

    async def events(self) -> list[str]:
        return [event.type for event in await self.run(lambda tx: tx.events_after(0, (), 1_000))]

    async def check_events(self) -> None:
        """Each event has the source and the payload that its type's row in EVENT_SHAPES says."""
        for event in await self.run(lambda tx: tx.events_after(0, (), 1_000)):
            shape = EVENT_SHAPES[EventType(event.type)]
            assert event.source == shape.source, event
            assert set(shape.always) <= set(event.payload) <= {*shape.always, *shape.sometimes}, event


@pytest.fixture(params=["memory", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The address of a database, '' for the memory store."""
    return "" if request.param == "memory" else str(request.getfixturevalue("database_url"))


@pytest.fixture
async def cluster(store_url: str) -> AsyncIterator[Cluster]:
    """A leading cluster on each store; every event of the test must be one that docs/events.md describes."""
    clock = FakeClock()
    if not store_url:
        made = Cluster(MemoryDatabase(clock.now), clock)
        await made.lead()
        yield made
        await made.check_events()
        return
    database = PostgresDatabase(store_url, clock=clock.now)
    await database.open()
    made = Cluster(database, clock)
    await made.lead()
    yield made
    await made.check_events()
    await database.close()
