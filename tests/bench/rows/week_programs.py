"""Much of what the other rows measure of the programs on an empty database, in short, on one with a week of history."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from tests.bench.measuring.bench import Bench
from tests.bench.measuring.comparison import ByTurns, Comparison, Figures, Goal
from tests.bench.measuring.turns import by_turns
from tests.bench.our_pair import OurPair, our_pair
from tests.bench.peers.programs import Listener, listener
from tests.bench.rows.hand_off import of_pair
from tests.bench.rows.reads import FIGURES as READINGS
from tests.bench.rows.reads import read, readings
from tests.bench.rows.week import EMPTY, HOUR, SIDES, WEEK, databases, prepare

TURNS = 3
TASKS, QUICK_TASKS = 2_000, 10
JOBS, CALLS = 20, 800
DRAIN_S = 120.0

Side = tuple[OurPair, Listener]


async def measure(bench: Bench) -> Mapping[str, Figures]:
    """All pairs run all the time, and are measured by turns."""
    async with databases(bench) as urls, AsyncExitStack() as stack:
        sides = {name: await stack.enter_async_context(_side(bench, url)) for name, url in urls.items()}
        turns = bench.size(TURNS, 1)
        measures = [partial(measure_one, bench) for measure_one in (_submit_and_drain, _hand_off, _read)]
        found = await by_turns(turns, sides, measures)
        # Last, as starts ramp up after it.
        ready = await by_turns(turns, sides, [_start])
        return {name: {**found[name], **ready[name]} for name in sides}


@asynccontextmanager
async def _side(bench: Bench, url: str) -> AsyncIterator[Side]:
    with listener() as heard:
        async with our_pair(bench, max_runs=500, started_address=heard.address, database_url=url) as pair:
            yield pair, heard


async def _start(side: Side) -> Figures:
    """Of the scheduler, until it serves."""
    scheduler = side[0].scheduler
    await scheduler.end()
    began = time.perf_counter()
    await scheduler.start()
    return {"ready_s": time.perf_counter() - began}


async def _submit_and_drain(bench: Bench, side: Side) -> Figures:
    """A backlog in batches, made and submitted, while the tick is switched off; then until the last one is done."""
    pair, _ = side
    count = bench.size(TASKS, QUICK_TASKS)
    await pair.tick(enabled=False)
    begin = time.perf_counter()
    await pair.submit(count)
    submitted_s = time.perf_counter() - begin
    begin = time.perf_counter()
    await pair.tick(enabled=True)
    await pair.until_all_ended(DRAIN_S)
    return {"submit_rate": count / submitted_s, "drain_rate": count / (time.perf_counter() - begin)}


async def _hand_off(bench: Bench, side: Side) -> Figures:
    pair, heard = side
    found = await of_pair(bench, pair, heard, JOBS)
    await pair.until_all_ended(DRAIN_S)
    return {"hand_off_ms": found["p50"]}


async def _read(bench: Bench, side: Side) -> Figures:
    calls = readings(side[0].stub)
    return {name: value for figure in READINGS for name, value in (await read(bench, figure, calls, CALLS)).items()}


RATES = ("submit_rate", "drain_rate", *(f"{name}_calls_s" for name in READINGS))
TIMES = ("ready_s", "hand_off_ms", *(f"{name}_p50_ms" for name in READINGS))
LESS, MORE = 0.84, 1.2

COMPARISONS = (
    Comparison(
        "week-programs",
        "Does a week of history make the programs slower?",
        (ByTurns(SIDES, measure, prepare),),
        (
            *(Goal(figure, WEEK, other, at_least=LESS) for other in (EMPTY, HOUR) for figure in RATES),
            *(Goal(figure, WEEK, other, at_most=MORE) for other in (EMPTY, HOUR) for figure in TIMES),
        ),
        {
            **dict.fromkeys(("submit_rate", "drain_rate"), "tasks/s"),
            "hand_off_ms": "ms",
            **{f"{name}_calls_s": "1/s" for name in READINGS},
            **{f"{name}_p50_ms": "ms" for name in READINGS},
            "ready_s": "s",
        },
        "Three pairs as in the row `drain`, on the databases of the row `week`, without its queue; all run, and each figure is measured "
        f"of one after the other, {TURNS} times a round: {TASKS:,} tasks submitted in batches of 1,000 while the tick is switched off, and "
        f"drained; {JOBS} hand-offs; {CALLS} calls of each rpc by 8 callers and {CALLS // 4} by one. At the end each "
        f"scheduler is started anew, {TURNS} times in turn. A figure is the median of the turns.",
    ),
)
