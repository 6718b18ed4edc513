"""Recording decisions while 10² to 10⁷ of them are in the window, and beside a plain batched insert of as many rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from statistics import median

import psycopg

from scheduler_service.core.run import RunOrder
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import DispatchEvent
from service_runtime.ids import new_id
from tests.bench.measuring.bench import Absent, Bench
from tests.bench.measuring.comparison import Comparison, Goal, Variant
from tests.bench.measuring.filling import fill_window
from tests.bench.measuring.leading import EXECUTOR, leading, timed

BATCH = 100
TIMES, WARM_UPS = 30, 5
SIZES = {"10² decisions": 10**2, "10⁴ decisions": 10**4, "10⁶ decisions": 10**6, "10⁷ decisions": 10**7}
LEAST, LARGEST = "10² decisions", "10⁷ decisions"
INSERT = "batched insert"

_TABLE = """
CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY, create_time timestamptz NOT NULL, success boolean NOT NULL,
    reason text NOT NULL, detail text NOT NULL, attempt boolean NOT NULL, backend text NOT NULL, task_id uuid, run_id uuid,
    executor_id text NOT NULL, PRIMARY KEY (id, create_time));
CREATE INDEX ON plain (create_time, id);
CREATE INDEX ON plain (task_id, id) WHERE task_id IS NOT NULL
"""
_PLAIN = """
INSERT INTO plain (create_time, success, reason, detail, attempt, backend, task_id, run_id, executor_id)
SELECT now(), true, '', '', true, 'cecelia-run', t, r, 'host-a' FROM unnest(%s::uuid[], %s::uuid[]) u (t, r)
"""


def _window(bench: Bench, decisions: int) -> tuple[str, Callable[[str], Awaitable[None]]]:
    count = bench.size(decisions, max(100, decisions // 100))
    return f"{count} decisions", partial(fill_window, count=count)


async def prepare(bench: Bench, decisions: int) -> None:
    """The decisions."""
    if bench.quick and decisions > 10**6:
        raise Absent("not with --quick")
    await bench.fill(*_window(bench, decisions))


async def measure(bench: Bench, decisions: int) -> Mapping[str, float]:
    """µs a decision in batches of BATCH: the decisions alone, and with the tasks and runs that they are about."""
    times = bench.size(TIMES, 2)
    alone, whole = [], []
    async with bench.filled_database(*_window(bench, decisions)) as url:
        async with leading(url, seats=BATCH + 2) as leader:
            for _ in range(WARM_UPS + times):
                alone.append((await timed(lambda: leader.run(_decide)))[0])
            for _ in range(WARM_UPS + times):
                await leader.submit(BATCH)
                orders: tuple[RunOrder, ...] = (await leader.tick()).orders
                if len(orders) != BATCH:
                    raise RuntimeError(f"a tick started {len(orders)} tasks instead of {BATCH}")
                whole.append((await timed(partial(leader.complete, orders)))[0])
    return {name: 1e6 / BATCH * median(seconds[WARM_UPS:]) for name, seconds in (("decision_us", alone), ("reports_us", whole))}


async def _decide(tx: Transaction) -> None:
    for _ in range(BATCH):
        tx.record(DispatchEvent(tx.now, True, "", "", True, "cecelia-run", new_id(), new_id(), EXECUTOR))


async def measure_insert(bench: Bench) -> Mapping[str, float]:
    """One statement and one commit for BATCH rows, from a prepared statement."""
    seconds = []
    async with bench.fresh_database(migrated=False) as url:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(_TABLE)

            async def insert() -> None:
                await connection.execute(_PLAIN, ([new_id() for _ in range(BATCH)], [new_id() for _ in range(BATCH)]))

            for _ in range(2 * WARM_UPS + bench.size(TIMES, 2)):
                seconds.append((await timed(insert))[0])
    return {"decision_us": 1e6 / BATCH * median(seconds[2 * WARM_UPS :])}


COMPARISONS = (
    Comparison(
        "recording",
        "Does recording a decision cost more with more of them, and what beside a plain insert?",
        (
            *(
                Variant(name, partial(measure, decisions=decisions), partial(prepare, decisions=decisions))
                for name, decisions in SIZES.items()
            ),
            Variant(INSERT, measure_insert),
        ),
        (
            *(Goal("decision_us", name, LEAST, at_most=1.2) for name in SIZES if name != LEAST),
            *(Goal("reports_us", name, LEAST, at_most=1.2) for name in SIZES if name != LEAST),
            Goal("decision_us", LEAST, INSERT, at_most=1.5),
        ),
        {"decision_us": "µs", "reports_us": "µs"},
        f"Batches of {BATCH} in one transaction through `PostgresDatabase`. `decision_us`: decisions with their counters by second and "
        "minute. `reports_us`: `record_reports` of runs that started and completed, which writes their tasks and runs and one event a "
        "task besides. Beside it one `INSERT … SELECT FROM unnest` of as many rows into a table of the same columns and indexes. Each "
        f"figure is the median of {TIMES} batches.",
    ),
)
