"""The upper bound of our design: a scheduler and an executor reduced to their bones, over one real PostgreSQL.

Claim and complete are one statement, batches go over one stream, enqueues that wait together are one insert, and a job that finds
an idle executor is inserted as leased and sent at once. No fence, no journal, no history, no pre-flight, no gate, no retry.

`bare_pair.py scheduler` prints its port, and takes its statement from COMPLETE_AND_CLAIM (bare.py); `bare_pair.py executor PORT CREDITS` attaches when it reads a line.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psycopg
from started import from_environment

pb, pb_grpc = grpc.protos_and_services("bare_pair.proto")

BATCH_MAX = 500

ENQUEUE = """
INSERT INTO jobs (payload, status, attempt, lease_until)
SELECT payload::jsonb, %(leased)s, %(leased)s, CASE WHEN %(leased)s = 1 THEN now() + interval '60s' END
FROM unnest(%(payloads)s::text[]) AS payload RETURNING id
"""


class BareScheduler(pb_grpc.BareSchedulerServicer):  # type: ignore[misc]  # made at run time
    """One executor; what arrives while a statement runs waits for the next one."""

    def __init__(
        self, claims: psycopg.AsyncConnection[Any], inserts: psycopg.AsyncConnection[Any], complete_and_claim: str
    ) -> None:
        self._claims = claims
        self._complete_and_claim = complete_and_claim
        self._inserts = inserts
        self._waiting: list[tuple[Any, asyncio.Future[list[int]]]] = []
        self._enqueued = asyncio.Event()
        self._news = asyncio.Event()
        self._to_send: asyncio.Queue[Any] = asyncio.Queue()
        self._credits = 0
        self._no_backlog = False

    async def Enqueue(self, request: Any, context: Any) -> Any:
        ids: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, ids))
        self._enqueued.set()
        return pb.Ids(ids=await ids)

    async def insert(self) -> None:
        """For ever: everything that waits, in one statement."""
        while True:
            await self._enqueued.wait()
            self._enqueued.clear()
            batch, self._waiting = self._waiting, []
            payloads = [job.payload for request, _ in batch for job in request.jobs]
            leased = self._no_backlog and self._credits >= len(payloads)
            if leased:
                self._credits -= len(payloads)
            cursor = await self._inserts.execute(ENQUEUE, {"leased": int(leased), "payloads": payloads})
            ids = iter([int(row[0]) for row in await cursor.fetchall()])
            for request, answer in batch:
                mine = [next(ids) for _ in request.jobs]
                answer.set_result(mine)
                if leased:
                    jobs = [pb.Job(id=id_, payload=job.payload) for id_, job in zip(mine, request.jobs, strict=True)]
                    self._to_send.put_nowait(pb.Jobs(jobs=jobs))
            if not leased:
                self._news.set()

    async def Attach(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        done: list[int] = []

        async def read() -> None:
            async for message in requests:
                self._credits += message.credits
                done.extend(message.done)
                self._news.set()

        async def claim() -> None:
            cursor = self._claims.cursor(binary=True)
            while True:
                await self._news.wait()
                self._news.clear()
                ended = done[:]
                done.clear()
                room = min(self._credits, BATCH_MAX)
                if not room and not ended:
                    continue
                self._credits -= room
                rows = await (await cursor.execute(self._complete_and_claim, (ended, room))).fetchall()
                self._credits += room - len(rows)
                self._no_backlog = len(rows) < room
                if rows:
                    self._to_send.put_nowait(pb.Jobs(jobs=[pb.Job(id=row[0], payload=row[1]) for row in rows]))
                    if self._credits:
                        self._news.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            group.create_task(claim())
            while True:
                yield await self._to_send.get()


async def schedule() -> None:
    url = os.environ["DATABASE_URL"]
    claims = await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0)
    inserts = await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0)
    servicer = BareScheduler(claims, inserts, os.environ["COMPLETE_AND_CLAIM"])
    server = grpc.aio.server()
    pb_grpc.add_BareSchedulerServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await servicer.insert()


async def execute(port: int, credits: int) -> None:
    started = from_environment()
    done: list[int] = []
    ended = asyncio.Event()
    running: set[asyncio.Task[None]] = set()

    async def run(job: Any) -> None:
        started.tell()
        done.append(job.id)
        ended.set()

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        stream = pb_grpc.BareSchedulerStub(channel).Attach()
        await stream.write(pb.Results(credits=credits))

        async def report() -> None:
            while True:
                await ended.wait()
                ended.clear()
                batch = done[:]
                done.clear()
                await stream.write(pb.Results(done=batch, credits=len(batch)))

        async with asyncio.TaskGroup() as group:
            group.create_task(report())
            while (jobs := await stream.read()) is not grpc.aio.EOF:
                for job in jobs.jobs:
                    task = asyncio.create_task(run(job))
                    running.add(task)
                    task.add_done_callback(running.discard)


if __name__ == "__main__":
    asyncio.run(schedule() if sys.argv[1] == "scheduler" else execute(int(sys.argv[2]), int(sys.argv[3])))
