"""A leader that ticks by hand on a real database: the scheduler's own transactions, without its programs around them."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

from scheduler_service.core.dispatch_checks import CheckSettings
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.limits import TaskSpec
from scheduler_service.core.run import BackendReport, ExecutorReport, RunOrder, RunReport
from scheduler_service.core.task import Task
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict
from scheduler_service.storage.postgres import PostgresDatabase
from scheduler_service.transactions.leading import acquire_or_renew
from scheduler_service.transactions.planning import TickKind, TickMemory
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.recording import Recorded, record_reports
from scheduler_service.transactions.submitting import submit
from scheduler_service.transactions.ticking import TickRequest, TickResult, take_tick
from service_runtime.ids import new_id
from tests.bench.measuring.filling import DESCRIPTION

T = TypeVar("T")
EXECUTOR = "host-a"


def report(seats: int, max_runs: int = 0) -> ExecutorReport:
    """An executor with room for `seats` local runs; `max_runs` 0: its hk-minimax is full."""
    return ExecutorReport(
        executor_id=EXECUTOR,
        boot_id="boot",
        stamp=1,
        draining=False,
        version="1",
        resources_ok=True,
        resources_reason="",
        max_seats=seats,
        physical_capacity=seats,
        effective_slots=seats,
        max_pressure=0.1,
        headed_sessions=0,
        backends=(
            BackendReport("cecelia-run", True, True, True, "", "", 0, 0),
            BackendReport("hk-minimax", False, True, True, "", "", max_runs, 0),
        ),
    )


class Leading:
    """A leader with one executor of `seats` seats (two of them are kept for people)."""

    def __init__(self, database: PostgresDatabase, seats: int) -> None:
        self._database = database
        self._executors = (report(seats),)
        self._rules = DispatchRules(checks=CheckSettings(), lease_ttl=timedelta(minutes=10))
        self._holder = uuid4()
        self._term = 0
        self._memory = TickMemory()

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """One transaction."""
        return await self._database.run(work)

    async def lead(self) -> None:
        """Takes the lease, and prepares what a leader prepares."""

        async def begin(tx: Transaction) -> int:
            await tx.ensure_partitions()
            await tx.add_breakers(["hk-minimax", f"cecelia-run@{EXECUTOR}"])
            return (await acquire_or_renew(tx, self._holder, "here", timedelta(hours=1))).term

        self._term = await self.run(begin)

    async def tick(self) -> TickResult:
        """One tick of the clock."""
        request = TickRequest(self._holder, self._term, TickKind.CLOCK, self._executors, self._memory, self._rules, new_id)
        result = await self.run(lambda tx: take_tick(tx, request))
        self._memory = result.memory
        return result

    async def submit(self, count: int = 1) -> list[Task]:
        """Submits tasks that pass every check."""
        specs = [TaskSpec(title=f"Task number {i}", description=DESCRIPTION) for i in range(count)]
        return await self.run(lambda tx: submit(tx, specs, self._rules.routes, new_id))

    async def complete(self, orders: Sequence[RunOrder]) -> Recorded:
        """Their start and their end, as the executor tells both at once of a short run."""
        said = [
            RunReport(
                order.run_id, order.task_id, order.fence, False, StartVerdict.SUCCESS, outcome=OutcomeClass.COMPLETED, exit_code=0
            )
            for order in orders
        ]
        return await self.run(lambda tx: record_reports(tx, EXECUTOR, said, self._rules, random.random))


@asynccontextmanager
async def leading(url: str, seats: int) -> AsyncIterator[Leading]:
    """A leader on the database at `url`."""
    database = PostgresDatabase(url)
    await database.open()
    try:
        made = Leading(database, seats)
        await made.lead()
        yield made
    finally:
        await database.close()


async def timed(work: Callable[[], Awaitable[T]]) -> tuple[float, T]:
    """Seconds, and what came of it."""
    began = time.perf_counter()
    result = await work()
    return time.perf_counter() - began, result
