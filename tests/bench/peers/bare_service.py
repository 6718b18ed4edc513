"""The least that a service of this kind is: grpc.aio with health, and a pool of PostgreSQL connections that is asked once a second.

    python -m tests.bench.peers.bare_service DATABASE_URL

Prints its port when it serves, and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from psycopg_pool import AsyncConnectionPool


async def serve(database_url: str) -> None:
    """Until it is cancelled."""
    async with AsyncConnectionPool(database_url, min_size=1, max_size=8, kwargs={"autocommit": True}, open=False) as pool:
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")
        server = grpc.aio.server()
        servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing in its stubs
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        print(port, flush=True)
        while True:
            await asyncio.sleep(1.0)
            async with pool.connection() as connection:
                await connection.execute("SELECT 1")


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
