"""The bare pair as the bench starts it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psycopg

from tests.acceptance.programs import channel_to
from tests.bench.measuring.bench import Bench
from tests.bench.peers.programs import PEERS, PeerProgram, environment, running

pb, pb_grpc = grpc.protos_and_services("tests/bench/peers/bare_pair.proto")
PROGRAM = str(PEERS / "bare_pair.py")
SETUP = """
CREATE TABLE jobs (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    status      smallint NOT NULL DEFAULT 0,
    priority    smallint NOT NULL DEFAULT 0,
    payload     jsonb NOT NULL DEFAULT '{}',
    lease_until timestamptz,
    attempt     integer NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL DEFAULT now(),
    end_time    timestamptz
) WITH (fillfactor = 70);
CREATE INDEX jobs_ready ON jobs (priority DESC, id) WHERE status = 0;
"""


class BarePair:
    """Both processes, the executor not attached yet; `stub` calls the scheduler."""

    def __init__(self, url: str, scheduler: PeerProgram, executor: PeerProgram, stub: Any) -> None:
        self.url = url
        self.pids = (scheduler.pid, executor.pid)
        self.stub = stub
        self._executor = executor

    async def attach(self) -> None:
        """Jobs flow from now on."""
        await self._executor.say("go")


@contextlib.asynccontextmanager
async def bare_pair(bench: Bench, *, credits: int, backlog: int = 0, started_address: str = "") -> AsyncIterator[BarePair]:
    """The bare pair on a fresh database with so many jobs."""
    with bench.scratch("bare") as folder:
        async with bench.fresh_database(migrated=False) as url:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                await connection.execute(SETUP)
                await connection.execute("INSERT INTO jobs (payload) SELECT '{\"k\": 1}' FROM generate_series(1, %s)", (backlog,))
            await bench.settle(url)
            env = environment(DATABASE_URL=url, STARTED_ADDRESS=started_address)
            async with running((sys.executable, PROGRAM, "scheduler"), env, folder / "scheduler.log") as scheduler:
                port = int(await scheduler.line())
                command = (sys.executable, PROGRAM, "executor", str(port), str(credits))
                async with running(command, env, folder / "executor.log") as executor, channel_to(port) as channel:
                    await executor.line()
                    yield BarePair(url, scheduler, executor, pb_grpc.BareSchedulerStub(channel))
