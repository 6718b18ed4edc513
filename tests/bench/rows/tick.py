"""A tick, and a submission, with a queue of 10^3 to 10^6 tasks of which a tenth each is held by one of three things."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from tests.bench.measuring.filling import fill_queue, settle
from tests.bench.measuring.leading import leading, timed

STARTS = 12
TICKS, SUBMISSIONS = 40, 40
WARM_UPS = 6


async def measure_tick(bench, queued: int) -> Mapping[str, float]:
    """Medians in ms: a tick that starts STARTS tasks, and a SubmitTask. What starts is completed in between, unmeasured."""
    ticks, submissions = [], []
    async with bench.fresh_database() as url:
        await fill_queue(url, queued)
        await settle(url)
        async with leading(url, seats=STARTS + 2) as leader:
            for _ in range(WARM_UPS + TICKS):
                seconds, result = await timed(leader.tick)
                assert len(result.orders) == STARTS, result
                ticks.append(1_000 * seconds)
                await leader.complete(result.orders)
            for _ in range(WARM_UPS + SUBMISSIONS):
                submissions.append(1_000 * (await timed(leader.submit))[0])
    return {"tick_ms": median(ticks[WARM_UPS:]), "submit_ms": median(submissions[WARM_UPS:])}
