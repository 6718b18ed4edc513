"""Callers who come by themselves, so many a second: what they wait, though those who are answered together are waited for together."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping

from tests.bench.measuring.bench import Bench
from tests.bench.measuring.comparison import Comparison, Variant
from tests.bench.rows.hand_off import percentiles
from tests.bench.rows.reads import PLAIN, Call, idle_pair, plain, readings

RATES = (30, 100, 300, 600)
SECONDS, QUICK_SECONDS = 6, 0.2
WARM_UPS = 40
OURS = "GetStatus"


async def measure(bench: Bench) -> Mapping[str, float]:
    """A pair as shipped that has nothing to do."""
    async with bench.fresh_database() as url, idle_pair(bench, url) as stub:
        return await _latencies(bench, readings(stub)["status"])


async def measure_plain(bench: Bench) -> Mapping[str, float]:
    """Nobody is waited for there."""
    async with plain(bench) as call:
        return await _latencies(bench, call)


async def _latencies(bench: Bench, call: Call) -> Mapping[str, float]:
    for _ in range(WARM_UPS):
        await call()
    found: dict[str, float] = {}
    for rate in RATES:
        took = await _arrive(call, rate, bench.size(SECONDS * rate, int(QUICK_SECONDS * rate)))
        found |= {f"{name}_ms_at_{rate}": value for name, value in percentiles([1_000 * seconds for seconds in took]).items()}
    return found


async def _arrive(call: Call, rate: float, count: int) -> list[float]:
    """Seconds from when each should have called, whatever kept it, until it was answered. Callers come at random (Poisson)."""
    gaps = random.Random(1)
    took: list[float] = []

    async def one(due: float) -> None:
        await call()
        took.append(time.perf_counter() - due)

    due = time.perf_counter()
    async with asyncio.TaskGroup() as callers:
        for _ in range(count):
            due += gaps.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            callers.create_task(one(due))
    return took


FIGURES = tuple(f"{name}_ms_at_{rate}" for rate in RATES for name in ("p50", "p99"))

COMPARISONS = (
    Comparison(
        "arrivals",
        "What do callers wait who come by themselves, and not one after the other's answer?",
        (Variant(OURS, measure), Variant(PLAIN, measure_plain)),
        (),
        dict.fromkeys(FIGURES, "ms"),
        "`GetStatus` of a pair as shipped that has nothing to do, beside the server of the row `reads` that answers by one query of one row. "
        f"{', '.join(map(str, RATES))} callers a second come at random (Poisson), for {SECONDS} seconds each; what each waits is counted from "
        "when it should have called. Ours reads once for those who come meanwhile, and waits a little for those it has just answered.",
    ),
)
