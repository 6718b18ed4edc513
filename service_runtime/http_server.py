"""HTTP in the service's own event loop: uvicorn on a socket bound beforehand, with its signal handling off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from service_runtime.lifecycle import bound_socket

STOP_S = 2.0
CONNECTIONS_MAX = 1_000
OPERATIONAL_PATHS = frozenset({"/metrics", "/healthz", "/readyz"})


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service can do its work, and if not, why not."""

    ready: bool
    reason: str = ""


def operational_routes(registry: CollectorRegistry, readiness: Callable[[], Readiness]) -> list[BaseRoute]:
    """`/metrics`, `/healthz` (alive) and `/readyz` (ready to serve)."""

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        state = readiness()
        return JSONResponse({"ready": state.ready, "reason": state.reason}, status_code=200 if state.ready else 503)

    return [Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the service."""
        yield


class HttpServer:
    """One HTTP server. `bind`, then `start`, then `stop`."""

    def __init__(self, address: str, setting: str) -> None:
        self._address = address
        self._setting = setting
        self._server: _Server | None = None
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    def bind(self) -> int:
        """Binds the port and returns it. Raises StartupError that names the setting when it is taken."""
        self._socket = bound_socket(self._address, self._setting)
        return int(self._socket.getsockname()[1])

    async def start(self, app: ASGIApp) -> None:
        """Serves an application on the bound socket."""
        if self._socket is None:
            self.bind()
        assert self._socket is not None
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            timeout_keep_alive=30,
            h11_max_incomplete_event_size=64 * 1024,
            limit_concurrency=CONNECTIONS_MAX,
            server_header=False,
        )
        self._server = _Server(config)
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._socket]), name="http")

    async def stop(self) -> None:
        """Ends within two seconds, open connections included."""
        if self._task is None or self._server is None:
            if self._socket is not None:
                self._socket.close()
            return
        self._server.should_exit = True
        _done, pending = await asyncio.wait([self._task], timeout=STOP_S)
        if pending:
            self._server.force_exit = True
            self._task.cancel()
            await asyncio.wait([self._task], timeout=STOP_S)
