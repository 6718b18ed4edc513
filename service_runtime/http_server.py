"""HTTP in the service's own event loop: uvicorn on a socket bound beforehand, with its signal handling off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h11
import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from service_runtime.http_app import PROBLEM_TYPE, problem
from service_runtime.lifecycle import bound_socket

_log = structlog.get_logger(__name__)

STOP_S = 2.0
CONNECTIONS_MAX = 1_000
HEAD_S = 10.0
SLOW_READER_S = 30.0
OPERATIONAL_PATHS = frozenset({"/metrics", "/healthz", "/readyz"})


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service can do its work, and if not, why not. `notes`: what somebody should mend although it can."""

    ready: bool
    reason: str = ""
    notes: tuple[str, ...] = ()


def operational_routes(registry: CollectorRegistry, readiness: Callable[[], Readiness]) -> list[BaseRoute]:
    """`/metrics`, `/healthz` (alive) and `/readyz` (ready to serve)."""

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        state = readiness()
        body = {"ready": state.ready, "reason": state.reason, "notes": list(state.notes)}
        return JSONResponse(body, status_code=200 if state.ready else 503)

    return [Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]


class _Protocol(H11Protocol):
    """uvicorn's, with bounds on connections and on how long a request's head may take and an answer may go unread.

    What is no HTTP is told in our words.
    """

    _head_deadline: asyncio.TimerHandle | None = None
    _read_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._head_deadline = self.loop.call_later(HEAD_S, self._too_slow)
        if len(self.connections) > CONNECTIONS_MAX:
            # Whoever holds connections without asking anything must not shut out those who ask.
            idle = (c for c in self.connections if c is not self and isinstance(c, _Protocol) and c.conn.their_state is h11.IDLE)
            next(idle, self).transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        self._forget_read_deadline()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_read_deadline()

    def _expect_reading(self) -> None:
        """Cuts the connection off unless some of what waits for its reader is taken in time."""
        self._forget_read_deadline()
        unread = self.transport.get_write_buffer_size()
        self._read_deadline = self.loop.call_later(SLOW_READER_S, self._look_at_reader, unread)

    def _look_at_reader(self, unread: int) -> None:
        if self.transport.get_write_buffer_size() < unread:
            self._expect_reading()
            return
        self._read_deadline = None
        _log.info("reader_cut_off", peer=str(self.client), unread_bytes=unread, seconds=SLOW_READER_S)
        # Closing would wait until all is read.
        self.transport.abort()

    def _forget_read_deadline(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is not h11.IDLE:
            self._forget_deadline()
        elif self._head_deadline is None and self.conn.trailing_data[0]:
            # The beginning of a further request on a kept connection.
            self._head_deadline = self.loop.call_later(HEAD_S, self._too_slow)

    def _forget_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _too_slow(self) -> None:
        self._head_deadline = None
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP: told like every other error."""
        body = problem(400, msg, "HTTP_ERROR").body
        length = str(len(body)).encode()
        headers = [(b"content-type", PROBLEM_TYPE.encode()), (b"content-length", length), (b"connection", b"close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=bytes(body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


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
            http=_Protocol,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            timeout_keep_alive=30,
            h11_max_incomplete_event_size=64 * 1024,
            server_header=False,
            # Whoever is on this machine could name any peer, and the audit log would believe it.
            proxy_headers=False,
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
