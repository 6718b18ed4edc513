"""Random kills of everything while tasks run: each ends once, none runs twice at a time. The seed is in the test's name."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from tests.acceptance.programs import Pair, eventually, guards_of

TASKS = 60
KILLS = 10


@pytest.mark.parametrize("seed", [1])
async def test_every_task_ends_exactly_once_through_random_kills(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    pair = Pair(tmp_path, "", LEASE_TTL_MS="60000", OPEN_DURATION_MS="1000")
    await pair.start()
    try:
        pair.write_command(seconds=0.5)
        ids = await pair.submit(TASKS, max_tries=50)
        killed: Counter[str] = Counter()
        in_flight = 0

        async def at_work() -> bool:
            return len(pair.starts()) > len(pair.ends())

        async def at_work_or_done() -> bool:
            return await at_work() or len(set(pair.ends())) == TASKS

        for _ in range(KILLS):
            # A busy machine may refuse for a while; a kill in that time would show nothing.
            await eventually(at_work_or_done)
            await asyncio.sleep(chance.uniform(0.0, 0.8))
            victim = chance.choice(["scheduler", "executor", "postgres", "guard"])
            in_flight += await at_work()
            if victim == "postgres":
                os.kill(int((tmp_path / "scheduler/postgres/postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)
            elif victim == "guard":
                guards = list(guards_of(tmp_path))
                if not guards:
                    continue
                os.kill(chance.choice(guards), signal.SIGKILL)
            else:
                program = pair.scheduler if victim == "scheduler" else pair.executor
                await program.kill()
                await program.start()
            killed[victim] += 1
        tasks = await pair.until_ended(ids)
    finally:
        await pair.stop()
    assert sum(killed.values()) >= KILLS / 2, "a campaign that kills nothing shows nothing"
    assert in_flight >= 3, "kills must hit work in flight"
    assert Counter(task.status for task in tasks) == {pb.TASK_STATUS_COMPLETED: TASKS}
    ended, started = Counter(pair.ends()), Counter(pair.starts())
    assert set(ended) == set(ids)
    # Only a killed guard loses a run, and its task is then started once more; services and database may be killed at will.
    assert sum(started.values()) - TASKS <= killed["guard"], (started - ended, killed)
    assert sum(ended.values()) - TASKS <= killed["guard"], (ended, killed)
