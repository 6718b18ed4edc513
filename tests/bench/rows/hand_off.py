"""From a submit on an idle system to the start of the job's work."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from cecelia.scheduler.v1 import scheduler_service_pb2 as ours_pb

from tests.bench.measuring.bench import Bench
from tests.bench.measuring.comparison import Comparison, Goal, Variant
from tests.bench.our_pair import RPC_S, OurPair, our_pair, specs_of
from tests.bench.peers.bare import bare_pair, pb
from tests.bench.peers.other import CELERY, DRAMATIQ, GRAPHILE, PG_BOSS, PROCRASTINATE, Peer, peer
from tests.bench.peers.programs import Listener, listener

JOBS, QUICK_JOBS = 200, 3
UNCOUNTED, QUICK_UNCOUNTED = 10, 1
PAUSE_S = (0.03, 0.08)
OURS, BARE = "ours", "bare pair"
GRAPHILE_ONE, BOSS = "graphile-worker, one process", "pg-boss, polling"
CROSSING = {"procrastinate": PROCRASTINATE, "celery, Redis": CELERY, "dramatiq, Redis": DRAMATIQ}
POLLED_JOBS = 60


async def ours(bench: Bench) -> Mapping[str, float]:
    """Ours: `SubmitTask` to the start of the backend's `work`."""
    with listener() as heard:
        async with our_pair(bench, max_runs=500, started_address=heard.address) as pair:
            return await of_pair(bench, pair, heard)


async def of_pair(bench: Bench, pair: OurPair, heard: Listener, jobs: int = JOBS) -> Mapping[str, float]:
    """The same of a pair that runs already and tells its starts to this listener."""
    (spec,) = specs_of([1])

    async def submit() -> int:
        begin = time.monotonic_ns()
        await pair.stub.SubmitTask(ours_pb.SubmitTaskRequest(task=spec), timeout=RPC_S)
        return begin

    heard.forget()
    return await latencies(bench, heard, submit, jobs)


async def bare(bench: Bench) -> Mapping[str, float]:
    """The bare pair: `Enqueue` to the start of the job."""
    with listener() as heard:
        async with bare_pair(bench, credits=500, started_address=heard.address) as pair:
            await pair.attach()

            async def submit() -> int:
                begin = time.monotonic_ns()
                await pair.stub.Enqueue(pb.Jobs(jobs=[pb.Job(payload='{"k": 1}')]), timeout=RPC_S)
                return begin

            return await latencies(bench, heard, submit)


async def other(bench: Bench, which: Peer, jobs: int = JOBS) -> Mapping[str, float]:
    """A peer of another package: the call that enqueues, in its own process, to the start of the job."""
    with listener() as heard:
        async with peer(bench, which, started_address=heard.address) as running:
            await running.ask("start", "started")

            async def submit() -> int:
                await running.program.say("submit")
                return int(await running.program.line())

            return await latencies(bench, heard, submit, jobs)


async def latencies(bench: Bench, heard: Listener, submit: Callable[[], Awaitable[int]], jobs: int = JOBS) -> Mapping[str, float]:
    """Submits one job after the other, each on an idle system; the first ones are not counted. `submit` gives when it began, in ns."""
    pauses = random.Random(1)
    found = []
    uncounted = bench.size(UNCOUNTED, QUICK_UNCOUNTED)
    for _ in range(uncounted + bench.size(jobs, QUICK_JOBS)):
        await asyncio.sleep(pauses.uniform(*PAUSE_S))
        begin = await submit()
        found.append((await heard.next_start() - begin) / 1e6)
    return percentiles(found[uncounted:])


def percentiles(milliseconds: list[float]) -> Mapping[str, float]:
    """The middle, and what one in a hundred exceeds."""
    ordered = sorted(milliseconds)
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[int(len(ordered) * 0.99)]}


COMPARISONS = (
    Comparison(
        name="hand-off",
        question="How long is it from a submit on an idle system until the job's work starts?",
        variants=(
            Variant(OURS, ours),
            Variant(BARE, bare),
            *(Variant(name, partial(other, which=which)) for name, which in CROSSING.items()),
            Variant(GRAPHILE_ONE, partial(other, which=GRAPHILE)),
            Variant(BOSS, partial(other, which=PG_BOSS, jobs=POLLED_JOBS)),
        ),
        goals=(
            Goal("p50", OURS, BARE, at_most=1.5),
            Goal("p99", OURS, BARE, at_most=1.5),
            *(Goal(figure, OURS, name, at_most=1.0) for name in CROSSING for figure in ("p50", "p99")),
            Goal("p50", OURS, GRAPHILE_ONE, at_most=1.3),
            Goal("p99", OURS, GRAPHILE_ONE, at_most=1.3),
        ),
        units={"p50": "ms", "p99": "ms"},
        settings="200 jobs, one after the other, 30 to 80 ms apart, each from the call that submits it (its answer is awaited first) to "
        "the moment that its work tells by a datagram; both are read from CLOCK_MONOTONIC. Ours crosses three processes, as does the "
        "bare pair; procrastinate, celery and dramatiq cross two, graphile-worker (10 jobs at once) and pg-boss (60 jobs, polling twice a "
        "second, which is as often as it may) enqueue and work in one.",
    ),
)
