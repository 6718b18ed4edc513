"""The executor is killed again and again while it is busy: every run is accounted for once.

The long form: `make chaos` (CHAOS_KILLS=200); the suite runs a short one.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from executor_service.host.delegation import delegated_group
from tests.acceptance.programs import Pair, eventually, guards_of

KILLS = int(os.environ.get("CHAOS_KILLS", "6"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
WAVE = 10


async def ends_told(pair: Pair, wanted: int) -> Counter[str]:
    """How often an end of each task was told, as the event log has it."""
    told: Counter[str] = Counter()
    async with pair.calls() as stub, asyncio.timeout(60):
        async for answer in stub.WatchEvents(pb.WatchEventsRequest(types=["task_completed", "task_failed"])):
            told[str(dict(answer.event.payload)["task_id"])] += 1
            if told.total() >= wanted:
                return told
    return told


async def test_every_run_is_accounted_for_once_through_kills_of_the_executor(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    pair = Pair(tmp_path, "", LEASE_TTL_MS="60000", OPEN_DURATION_MS="1000")
    await pair.start()
    in_flight = 0
    ids: list[str] = []

    async def at_work() -> bool:
        return len(pair.starts()) > len(pair.ends())

    try:
        pair.write_command(seconds=0.7)
        for _ in range(KILLS):
            # Always more to do than there is room for.
            if len(pair.starts()) + WAVE > len(ids):
                ids += await pair.submit(WAVE, max_tries=1)
            await eventually(at_work)
            await asyncio.sleep(chance.uniform(0.0, 0.8))
            in_flight += await at_work()
            await pair.executor.kill()
            await pair.executor.start()
        tasks = await pair.until_ended(ids)

        async def nobody_is_left() -> bool:
            return not list(guards_of(tmp_path))

        await eventually(nobody_is_left)
        told = await ends_told(pair, len(ids))
    finally:
        await pair.stop()
    assert in_flight >= KILLS / 2, "kills must hit work in flight"
    assert Counter(task.status for task in tasks) == {pb.TASK_STATUS_COMPLETED: len(ids)}
    once = Counter(ids)
    assert Counter(pair.starts()) == once, f"seed {SEED}"
    assert Counter(pair.ends()) == once, f"seed {SEED}"
    assert told == once, f"seed {SEED}"
    assert {task.tries for task in tasks} == {0}, "no kill costs a try"
    group = delegated_group()
    runs = {entry.name for entry in (tmp_path / "executor" / "runs").iterdir()}
    assert group is None or not [
        entry for entry in group.glob("cecelia-run-*") if entry.name.removeprefix("cecelia-run-") in runs
    ]
    print(f"{KILLS} kills, {in_flight} of them with runs in flight: {len(ids)} tasks, each started, ended and told once")
