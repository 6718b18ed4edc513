"""The HTTP server against clients that are slow, silent, many, or speak no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service_runtime import http_app, http_server
from service_runtime.http_app import HttpPolicy, json_body, make_app
from service_runtime.http_server import HttpServer

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
