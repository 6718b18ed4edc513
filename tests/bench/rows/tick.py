"""A tick, and a submission, with a queue of 10³ to 10⁶ tasks of which a tenth each is held by one of three things."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from statistics import median

from tests.bench.measuring.bench import Bench
from tests.bench.measuring.comparison import Comparison, Goal, Variant
from tests.bench.measuring.filling import fill_queue
from tests.bench.measuring.leading import leading, timed

STARTS = 12
TIMES, WARM_UPS = 40, 6
SIZES = {"10³ queued": 10**3, "10⁴ queued": 10**4, "10⁵ queued": 10**5, "10⁶ queued": 10**6}
LEAST = "10³ queued"


def _size(bench: Bench, queued: int) -> int:
    return bench.size(queued, max(300, queued // 100))


def _queue(queued: int) -> tuple[str, Callable[[str], Awaitable[None]]]:
    return f"queue of {queued}", partial(fill_queue, count=queued)


async def prepare(bench: Bench, queued: int) -> None:
    """The queue."""
    await bench.fill(*_queue(_size(bench, queued)))


async def measure(bench: Bench, queued: int) -> Mapping[str, float]:
    """Medians: a tick that starts STARTS tasks, and a SubmitTask. What starts is completed in between, unmeasured."""
    queued = _size(bench, queued)
    times = bench.size(TIMES, 3)
    ticks, submissions = [], []
    async with bench.filled_database(*_queue(queued)) as url:
        async with leading(url, seats=STARTS + 2) as leader:
            for _ in range(WARM_UPS + times):
                seconds, result = await timed(leader.tick)
                if len(result.orders) != STARTS:
                    raise RuntimeError(f"a tick started {len(result.orders)} tasks instead of {STARTS}: {result.verdicts}")
                ticks.append(1_000 * seconds)
                await leader.complete(result.orders)
            for _ in range(WARM_UPS + times):
                submissions.append(1_000 * (await timed(leader.submit))[0])
    return {"tick_ms": median(ticks[WARM_UPS:]), "submit_ms": median(submissions[WARM_UPS:])}


COMPARISONS = (
    Comparison(
        "tick",
        "Does a tick, or a submission, cost more with a longer queue?",
        tuple(Variant(name, partial(measure, queued=queued), partial(prepare, queued=queued)) for name, queued in SIZES.items()),
        tuple(Goal(figure, name, LEAST, at_most=1.3) for figure in ("tick_ms", "submit_ms") for name in SIZES if name != LEAST),
        {"tick_ms": "ms", "submit_ms": "ms"},
        f"`take_tick` on PostgreSQL with one executor of {STARTS} free slots, so that each tick claims {STARTS} tasks, and `submit` "
        "of one task, each with its commit, without rpcs around them. Of ten queued tasks one waits for a prerequisite, one for its "
        f"back-off, one for a backend that is full, evenly spread. Each figure is the median of {TIMES}.",
    ),
)
