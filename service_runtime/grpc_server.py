"""A gRPC server with health, reflection, our interceptor and bounds; bound first, served later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import Histogram

from service_runtime.grpc_interceptors import ServiceInterceptor
from service_runtime.lifecycle import StartupError, address_taken, taken_by_other

SLOW_READER_S = 30.0
"""A stream whose reader takes nothing for so long is ended."""
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class OfferedService:
    """A servicer, the generated function that adds it, its full name, and its methods, which are measured from the start."""

    add: Callable[[Any, Any], None]
    servicer: Any
    name: str
    methods: tuple[str, ...] = ()


def _options(maximum_message: int) -> list[tuple[str, int]]:
    return [
        # Without it a second process binds the same port silently.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", maximum_message),
        ("grpc.max_send_message_length", 2 * maximum_message),
        ("grpc.max_metadata_size", 8 * 1024),
        ("grpc.absolute_max_metadata_size", 16 * 1024),
        # The defaults cancel calls of a burst of two thousand (feasibility.md section 2).
        ("grpc.server.max_pending_requests", 20_000),
        ("grpc.server.max_pending_requests_hard_limit", 30_000),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


class GrpcServer:
    """One server. `bind`, `offer` what it serves, then `start`, then `stop`."""

    def __init__(
        self,
        address: str,
        setting: str,
        *,
        domain: str,
        durations: Histogram | None = None,
        maximum_message: int = 4 * MEBIBYTE,
        maximum_concurrent_rpcs: int = 4_096,
        slow_reader_s: float = SLOW_READER_S,
    ) -> None:
        self._address = address
        self._setting = setting
        self._durations = durations
        self._interceptor = ServiceInterceptor(domain, durations, slow_reader_s)
        self._server = grpc.aio.server(
            interceptors=[self._interceptor],
            options=_options(maximum_message),
            maximum_concurrent_rpcs=maximum_concurrent_rpcs,
        )
        self._health: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing in its stubs
        self._names: list[str] = []

    def offer(self, service: OfferedService) -> None:
        """Adds a service; only before `start`."""
        service.add(service.servicer, self._server)
        self._names.append(service.name)
        if self._durations is not None:
            for method in service.methods:
                self._durations.labels(method=f"/{service.name}/{method}", code=grpc.StatusCode.OK.name)

    def bind(self) -> int:
        """Binds the port and returns it. Raises StartupError that names the setting when it is taken."""
        # grpc logs its own long complaint about a taken port; ours comes first.
        if taken_by_other(self._address):
            raise address_taken(self._address, self._setting)
        try:
            port: int = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise address_taken(self._address, self._setting) from error
        if port == 0:
            raise StartupError(f"{self._setting}={self._address} cannot be bound")
        return port

    async def start(self) -> None:
        """Serves, with health and reflection; nothing is SERVING yet."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """What health says, overall and for each service."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def set_part_serving(self, part: str, serving: bool) -> None:
        """What health says of a part of a service, as `package.Service/part`; the health of the whole is not touched by it."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set(part, status)

    async def stop(self, grace_s: float) -> None:
        """NOT_SERVING first; calls under way get the grace, and handlers that were cut off are waited for."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
        left = [task for task in self._interceptor.running if task is not asyncio.current_task()]
        if left:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await asyncio.wait(left)
