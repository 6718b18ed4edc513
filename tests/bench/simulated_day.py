"""A simulated day with three outages of the backend: what each guard saves while it lasts, and costs afterwards.

The real transactions on the memory database under a fake clock, one clock tick after the other; no woken ticks, no processes.
`python -m tests.bench.simulated_day [FILE]` writes the table into FILE (default docs/guards.md).
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from uuid import UUID

from scheduler_service.core.breaker import BreakerSettings
from scheduler_service.core.dispatch_checks import CheckSettings, GuardMode
from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.limits import TaskSpec
from scheduler_service.core.run import BackendReport, ExecutorReport, RunOrder, RunReport
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict
from scheduler_service.transactions.leading import acquire_or_renew
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.recording import record_reports
from scheduler_service.transactions.stored import Part
from scheduler_service.transactions.submitting import submit
from scheduler_service.transactions.ticking import TickKind, TickMemory, TickRequest, TickResult, take_tick
from tests.fakes.fake_clock import FakeClock
from tests.fakes.memory_database import MemoryDatabase

BACKEND, EXECUTOR, SLOTS = "cecelia-run", "host-a", 10
TICK = timedelta(seconds=5)
ARRIVAL = timedelta(seconds=20)
RUN_LENGTH = timedelta(minutes=2)
DAY = timedelta(hours=24)
FORGET = timedelta(minutes=61)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
BEGIN, END = "<!-- the simulated day: begin -->", "<!-- the simulated day: end -->"
DOC = Path(__file__).resolve().parents[2] / "docs" / "guards.md"


@dataclass(frozen=True, slots=True)
class Outage:
    """The backend cannot start anything from `begin` on, for so long."""

    begin: timedelta
    length: timedelta

    @property
    def end(self) -> timedelta:
        return self.begin + self.length


OUTAGES = (
    Outage(timedelta(hours=2), timedelta(minutes=10)),
    Outage(timedelta(hours=8), timedelta(minutes=45)),
    Outage(timedelta(hours=16), timedelta(minutes=60)),
)


@dataclass(frozen=True, slots=True)
class Guards:
    """One column of settings."""

    rate: GuardMode
    breaker: GuardMode
    open_duration: timedelta = timedelta(minutes=30)

    @property
    def rules(self) -> DispatchRules:
        breaker = BreakerSettings(open_duration=self.open_duration)
        return DispatchRules(checks=CheckSettings(rate_guard=self.rate, breaker_guard=self.breaker, breaker=breaker))


@dataclass(frozen=True, slots=True)
class Cost:
    """What one outage came to: failed starts; from the recovery to the last tick that a guard limited; what that delayed.

    `idle_starts`: what the slots that stood free while tasks were due could have started meanwhile.
    """

    outage: Outage
    wasted: int
    recovery: timedelta
    idle_starts: float


class Day:
    """One day under one set of guards."""

    def __init__(self, guards: Guards) -> None:
        self._rules = guards.rules
        self._clock = FakeClock(MIDNIGHT)
        self._database = MemoryDatabase(self._clock.now)
        self._random = random.Random(1)
        self._memory = TickMemory()
        self._holder = self._new_id()
        self._term = 0
        self._ends: dict[datetime, list[RunOrder]] = {}
        self._seats = SLOTS + self._rules.interactive_reserve

    def _new_id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    async def run(self, until: timedelta) -> list[Cost]:
        """Lives the day until then; the cost of each outage that was over before."""
        await self._database.run(self._lead)
        costs = {outage: Cost(outage, 0, timedelta(0), 0.0) for outage in OUTAGES if outage.end < until}
        while (now := self._clock.now() - MIDNIGHT) < until:
            outage = next((one for one in reversed(OUTAGES) if one.begin <= now), None)
            down = outage is not None and now < outage.end
            wasted, idle = await self._tick(now, down)
            if outage in costs:
                costs[outage] = _counted(costs[outage], now, down, wasted, idle)
            self._clock.advance(seconds=TICK.total_seconds())
        return list(costs.values())

    async def _lead(self, tx: Transaction) -> None:
        await tx.add_breakers([f"{BACKEND}@{EXECUTOR}", "hk-minimax"])
        self._term = (await acquire_or_renew(tx, self._holder, "here", timedelta(seconds=3))).term

    async def _tick(self, now: timedelta, down: bool) -> tuple[int, int]:
        """One clock tick and what comes of it: failed starts, and how many more could have started."""
        if now % ARRIVAL == timedelta(0):
            spec = TaskSpec(title="One of many tasks", description="A description that is long enough for pre-flight.")
            await self._database.run(lambda tx: submit(tx, [spec], self._rules.routes, self._new_id))
        await self._report([_completed(order) for order in self._ends.pop(self._clock.now(), [])])
        result = await self._take_tick()
        await self._report([_start(order, down) for order in result.orders])
        if not down:
            self._ends.setdefault(self._clock.now() + RUN_LENGTH, []).extend(result.orders)
        if now % timedelta(minutes=10) == timedelta(0):
            await self._forget()
        return (len(result.orders) if down else 0), await self._database.run(_idle, read_only=True)

    async def _take_tick(self) -> TickResult:
        request = TickRequest(
            self._holder, self._term, TickKind.CLOCK, (self._executor(),), self._memory, self._rules, self._new_id
        )
        result = await self._database.run(lambda tx: take_tick(tx, request))
        self._memory = result.memory
        return result

    def _executor(self) -> ExecutorReport:
        return ExecutorReport(
            executor_id=EXECUTOR,
            boot_id="boot",
            stamp=1,
            draining=False,
            version="1",
            resources_ok=True,
            resources_reason="",
            max_seats=self._seats,
            physical_capacity=self._seats,
            effective_slots=self._seats,
            max_pressure=0.1,
            headed_sessions=0,
            backends=(BackendReport(BACKEND, True, True, True, "", "", 0, 0),),
        )

    async def _report(self, reports: Sequence[RunReport]) -> None:
        if reports:
            await self._database.run(lambda tx: record_reports(tx, EXECUTOR, reports, self._rules, self._random.random))

    async def _forget(self) -> None:
        """What no decision looks at any more, so that the day takes no longer towards its evening."""
        await self._database.run(lambda tx: tx.purge(60_000, 60_000, 60_000, 10_000))
        state, since = self._database.state, self._clock.now() - FORGET
        state.decisions = [decision for decision in state.decisions if decision.create_time >= since]
        state.events = []


def _completed(order: RunOrder) -> RunReport:
    return RunReport(order.run_id, order.task_id, order.fence, False, outcome=OutcomeClass.COMPLETED, exit_code=0)


def _start(order: RunOrder, down: bool) -> RunReport:
    if not down:
        return RunReport(order.run_id, order.task_id, order.fence, True, StartVerdict.SUCCESS)
    return RunReport(
        order.run_id,
        order.task_id,
        order.fence,
        False,
        StartVerdict.FAILURE,
        "executor_failed",
        "the backend is down",
        outcome=OutcomeClass.NOT_STARTED,
    )


async def _idle(tx: Transaction) -> int:
    """Slots that stand free although a task is due."""
    standing = await tx.standing((Part.LIVE, Part.QUEUE), timedelta(hours=1))
    due = sum(count.due for count in standing.queue if count.backend == BACKEND)
    return min(SLOTS - sum(count.n for count in standing.live), due)


def _counted(cost: Cost, now: timedelta, down: bool, wasted: int, idle: int) -> Cost:
    if down:
        return replace(cost, wasted=cost.wasted + wasted)
    if idle == 0:
        return cost
    return replace(cost, recovery=now + TICK - cost.outage.end, idle_starts=cost.idle_starts + idle * (TICK / RUN_LENGTH))


# --- the table

DEFAULTS = Guards(GuardMode.ENFORCE, GuardMode.ENFORCE)
RUNS = (
    *(Guards(rate, breaker) for breaker, rate in product((GuardMode.ENFORCE, GuardMode.OFF), GuardMode)),
    replace(DEFAULTS, open_duration=timedelta(minutes=10)),
    replace(DEFAULTS, open_duration=timedelta(minutes=60)),
)
HEAD = ("rate guard", "breaker", "`OPEN_DURATION_MS`", "outage", "failed starts", "back at full rate after", "starts delayed")


def row(guards: Guards, cost: Cost) -> tuple[str, ...]:
    """One row of the table."""
    opened = f"{guards.open_duration // timedelta(minutes=1)} min" if guards.breaker is GuardMode.ENFORCE else "–"
    return (
        guards.rate.value,
        guards.breaker.value,
        opened,
        f"{cost.outage.length // timedelta(minutes=1)} min",
        str(cost.wasted),
        _span(cost.recovery),
        f"{cost.idle_starts:.0f}",
    )


def _span(span: timedelta) -> str:
    minutes, rest = divmod(span, timedelta(minutes=1))
    return f"{minutes} min {rest.seconds} s" if minutes else f"{rest.seconds} s"


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(HEAD)} |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: |"
    yield from (f"| {' | '.join(cells)} |" for cells in rows)


def lived(guards: Guards) -> list[Cost]:
    """The costs of a whole day."""
    return asyncio.run(Day(guards).run(DAY))


def main(file: Path) -> None:
    """Lives the day under each set of guards and writes the table."""
    rows = []
    with ProcessPoolExecutor() as pool:
        for guards, costs in zip(RUNS, pool.map(lived, RUNS), strict=True):
            rows += [row(guards, cost) for cost in costs]
            print(*rows[-len(costs) :], sep="\n", flush=True)
    before, _, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join(_lines(rows))
    file.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOC)
