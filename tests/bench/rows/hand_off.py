"""From a submit on an idle system to the start of the job's work."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping

from cecelia.scheduler.v1 import scheduler_service_pb2 as ours_pb

from tests.bench.measuring.bench import Bench
from tests.bench.measuring.comparison import Comparison, Goal, Variant
from tests.bench.our_pair import RPC_S, our_pair, specs_of
from tests.bench.peers.bare import bare_pair, pb
from tests.bench.peers.programs import Listener, listener

JOBS, QUICK_JOBS, UNCOUNTED = 200, 10, 10
PAUSE_S = (0.03, 0.08)
OURS, BARE = "ours", "bare pair"


async def ours(bench: Bench) -> Mapping[str, float]:
    """Ours: `SubmitTask` to the start of the backend's `work`."""
    with listener() as heard:
        async with our_pair(bench, max_runs=500, started_address=heard.address) as pair:
            (spec,) = specs_of([1])

            async def submit() -> None:
                await pair.stub.SubmitTask(ours_pb.SubmitTaskRequest(task=spec), timeout=RPC_S)

            heard.forget()
            return await latencies(bench, heard, submit)


async def bare(bench: Bench) -> Mapping[str, float]:
    """The bare pair: `Enqueue` to the start of the job."""
    with listener() as heard:
        async with bare_pair(bench, credits=500, started_address=heard.address) as pair:
            await pair.attach()

            async def submit() -> None:
                await pair.stub.Enqueue(pb.Jobs(jobs=[pb.Job(payload='{"k": 1}')]), timeout=RPC_S)

            return await latencies(bench, heard, submit)


async def latencies(bench: Bench, heard: Listener, submit: Callable[[], Awaitable[None]]) -> Mapping[str, float]:
    """Submits one job after the other, each on an idle system; the first ones are not counted."""
    pauses = random.Random(1)
    found = []
    for _ in range(UNCOUNTED + bench.size(JOBS, QUICK_JOBS)):
        await asyncio.sleep(pauses.uniform(*PAUSE_S))
        begin = time.monotonic_ns()
        await submit()
        found.append((await heard.next_start() - begin) / 1e6)
    return percentiles(found[UNCOUNTED:])


def percentiles(milliseconds: list[float]) -> Mapping[str, float]:
    """The middle, and what one in a hundred exceeds."""
    ordered = sorted(milliseconds)
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[int(len(ordered) * 0.99)]}


COMPARISONS = (
    Comparison(
        name="hand-off",
        question="How long is it from a submit on an idle system until the job's work starts?",
        variants=(Variant(OURS, ours), Variant(BARE, bare)),
        goals=(
            Goal("p50", OURS, BARE, at_most=1.5),
            Goal("p99", OURS, BARE, at_most=1.5),
        ),
        units={"p50": "ms", "p99": "ms"},
        settings="200 jobs, one after the other, 30 to 80 ms apart, each from the call that submits it (its answer is awaited first) to "
        "the moment that its work tells by a datagram; both are read from CLOCK_MONOTONIC. Ours crosses three processes, as does the "
        "bare pair.",
    ),
)
