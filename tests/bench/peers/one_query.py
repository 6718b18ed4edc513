"""The same kind of server as the scheduler's, with one rpc that runs one indexed query of one row.

    python -m tests.bench.peers.one_query DATABASE_URL

Prints its port when it serves, and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from cecelia.scheduler.v1 import scheduler_service_pb2_grpc as pb_grpc
from prometheus_client import CollectorRegistry
from psycopg_pool import AsyncConnectionPool

from service_runtime.grpc_server import GrpcServer, OfferedService
from service_runtime.metrics import MetricSet
from service_runtime.structured_logging import configure_logging

SERVICE = "cecelia.scheduler.v1.SchedulerService"
KEY = "hk-minimax"


class OneQuery(pb_grpc.SchedulerServiceServicer):
    """GetBreaker by its primary key, in autocommit, on one pooled connection."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool

    async def GetBreaker(self, request: pb.GetBreakerRequest, context: grpc.aio.ServicerContext) -> pb.GetBreakerResponse:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT key, failures, generation, reason FROM circuit_breaker_states WHERE key = %s", (request.key,)
            )
            row = await cursor.fetchone()
        assert row is not None
        key, failures, generation, reason = row
        return pb.GetBreakerResponse(
            breaker=pb.Breaker(key=key, state=pb.BREAKER_STATE_CLOSED, failures=failures, generation=generation, reason=reason)
        )


async def serve(database_url: str) -> None:
    """Until it is cancelled."""
    async with AsyncConnectionPool(database_url, min_size=1, max_size=8, kwargs={"autocommit": True}, open=False) as pool:
        durations = MetricSet(CollectorRegistry(), "bench").rpc_durations()
        server = GrpcServer("127.0.0.1:0", "address", domain="bench", durations=durations)
        port = server.bind()
        server.offer(OfferedService(pb_grpc.add_SchedulerServiceServicer_to_server, OneQuery(pool), SERVICE))
        await server.start()
        print(port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    configure_logging("console", "info")
    asyncio.run(serve(sys.argv[1]))
