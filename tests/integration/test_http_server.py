"""The HTTP server against clients that are slow, silent, many, or speak no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from scheduler_service.http.event_stream import EventStreams
from scheduler_service.http.ports import LocalCall
from service_runtime import http_app, http_server
from service_runtime.http_app import HttpPolicy, json_body, make_app
from service_runtime.http_server import HttpServer, _Protocol

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"


async def _get(_request: Request) -> Response:
    return JSONResponse({"fine": True})


async def _post(request: Request) -> Response:
    return JSONResponse(await json_body(request))


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = HttpServer("127.0.0.1:0", "TEST_HTTP_ADDRESS")
    number = server.bind()
    routes = [Route("/", _get, methods=["GET"]), Route("/", _post, methods=["POST"])]
    await server.start(make_app(routes, HttpPolicy()))
    async with asyncio.timeout(60):
        yield number
        await server.stop()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def head_and_body(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """One answer with its length in its head."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].split("\r\n")[0])
    return head, await reader.readexactly(length)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: local"])
async def test_a_head_that_does_not_come_is_not_waited_for(port: int, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(http_server, "HEAD_S", 0.2)
    async with connected(port) as (reader, writer):
        writer.write(sent)
        assert await reader.read() == b""


async def test_the_second_head_on_a_kept_connection_has_a_deadline_too(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_S", 0.2)
    async with connected(port) as (reader, writer):
        for _ in range(2):
            writer.write(GET)
            assert (await head_and_body(reader))[1] == b'{"fine":true}'
        writer.write(b"GET / HT")
        assert await reader.read() == b""


async def test_a_body_that_does_not_come_is_answered(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_app, "BODY_S", 0.2)
    monkeypatch.setattr(http_server, "HEAD_S", 0.1)
    async with connected(port) as (reader, writer):
        writer.write(POST + b'{"a": ')
        head, body = await head_and_body(reader)
        assert head.startswith("http/1.1 408")
        assert json.loads(body)["status"] == 408


async def test_a_client_that_breaks_off_is_no_error_of_ours(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with connected(port) as (_reader, writer):
            writer.write(POST + b'{"a": ')
            await writer.drain()
        async with connected(port) as (reader, writer):
            writer.write(GET)
            await head_and_body(reader)
    assert "internal_error" not in caplog.text


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01 TLS\r\n\r\n", GET.replace(b"\r\n\r\n", b"\r\nHost: two\r\n\r\n"), b"GET /\r\n\r\n"]
)
async def test_what_is_no_http_is_told_as_a_problem(port: int, sent: bytes) -> None:
    async with connected(port) as (reader, writer):
        writer.write(sent)
        head, body = await head_and_body(reader)
        assert head.startswith("http/1.1 400")
        assert "content-type: application/problem+json" in head
        assert json.loads(body)["reason"] == "HTTP_ERROR"
        assert await reader.read() == b""


async def test_those_who_ask_nothing_do_not_shut_out_those_who_ask(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS_MAX", 5)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(connected(port))
        for _ in range(3):
            reader, writer = await stack.enter_async_context(connected(port))
            writer.write(GET)
            assert (await head_and_body(reader))[0].startswith("http/1.1 200")


class Flood:
    """An event stream that never ends, and how many of its readers are still served."""

    def __init__(self) -> None:
        self.streams = EventStreams()
        self.sent = 0

    async def open(self, _request: Request) -> Response:
        call = LocalCall("test")
        call.opened.set()
        return await self.streams.open(self._messages, call, lambda word: f"data: {word}\n\n")

    async def _messages(self) -> AsyncIterator[str]:
        while True:
            self.sent += 64 * 1024
            yield "x" * 64 * 1024


async def test_a_stream_that_nobody_reads_is_cut_off_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "SLOW_READER_S", 0.3)
    flood = Flood()
    server = HttpServer("127.0.0.1:0", "TEST_HTTP_ADDRESS")
    number = server.bind()
    await server.start(make_app([Route("/", flood.open, methods=["GET"])], HttpPolicy()))
    async with asyncio.timeout(60):
        with socket.socket() as reader:
            reader.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(reader, ("127.0.0.1", number))
            await loop.sock_sendall(reader, GET)
            assert (await loop.sock_recv(reader, 64)).startswith(b"HTTP/1.1 200")
            assert flood.streams._open == 1
            while flood.streams._open:
                await asyncio.sleep(0.02)
            assert flood.sent < 32 * 1024 * 1024, "the transport takes a window's worth and no more"
            while await loop.sock_recv(reader, 1024 * 1024):
                pass
        await server.stop()


class Timers:
    """An event loop's timers, which run when told to."""

    def __init__(self) -> None:
        self.due: list[tuple[Any, tuple[Any, ...]]] = []

    def call_later(self, seconds: float, work: Any, *arguments: Any) -> Timers:
        assert seconds == http_server.SLOW_READER_S
        self.due.append((work, arguments))
        return self

    def cancel(self) -> None:
        self.due.clear()

    def ring(self) -> None:
        work, arguments = self.due.pop()
        work(*arguments)


class Outgoing:
    """A transport with bytes that wait for their reader."""

    def __init__(self) -> None:
        self.unread = 1_000_000
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.aborted = True


def test_who_reads_slowly_is_served_and_who_stops_is_not() -> None:
    timers: Any = Timers()
    transport: Any = Outgoing()
    protocol = _Protocol(uvicorn.Config(_get, log_config=None), uvicorn.server.ServerState(), {}, timers)
    protocol.transport = transport
    protocol.flow = uvicorn.protocols.http.flow_control.FlowControl(transport)
    protocol.pause_writing()
    for _ in range(5):
        transport.unread -= 1
        timers.ring()
        assert not transport.aborted
    protocol.resume_writing()
    assert timers.due == [], "nothing is expected of whom nothing waits for"
    protocol.pause_writing()
    timers.ring()
    assert transport.aborted
    assert timers.due == []
