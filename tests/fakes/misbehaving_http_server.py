"""A real HTTP server on loopback that answers POST /execute as it is told, well or badly."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

Writer = asyncio.StreamWriter
Behaviour = Callable[[Writer, bytes], Awaitable[None]]


class MisbehavingServer:
    """Keeps what it was asked; `behaviour` writes the answer, after the request was read."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.behaviour: Behaviour = plain({"success": True, "result": "fine"})
        self.url = ""
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._answer(reader, writer)
        finally:
            self._serving.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rows = head.strip().split("\r\n")
            headers = {key.lower(): value.strip() for key, _, value in (row.partition(":") for row in rows)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append((line, headers, body))
            self.asked.set()
            behaving = asyncio.ensure_future(self.behaviour(writer, body))
            # Whoever asked may go away in the middle of the answer.
            leaving = asyncio.ensure_future(reader.read())
            leaving.add_done_callback(lambda _task: self.left.set())
            try:
                await asyncio.wait({behaving, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if behaving.done():
                    behaving.result()
            finally:
                behaving.cancel()
                leaving.cancel()
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[MisbehavingServer]:
        """Serves on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._serving:
                task.cancel()
            if self._serving:
                await asyncio.wait(self._serving, timeout=5)


def raw(data: bytes) -> Behaviour:
    """Exactly these bytes."""

    async def behave(writer: Writer, _body: bytes) -> None:
        writer.write(data)
        await writer.drain()

    return behave


def answer(status: int, body: bytes, content_type: str = "application/json", **headers: str) -> Behaviour:
    """A well-formed HTTP answer."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = (
        f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    )
    return raw(head.encode() + body)


def plain(value: object, status: int = 200, **headers: str) -> Behaviour:
    """A JSON answer."""
    return answer(status, json.dumps(value).encode(), **headers)


def drip(seconds: float) -> Behaviour:
    """A valid answer, a byte at a time."""

    async def behave(writer: Writer, _body: bytes) -> None:
        body = b'{"success": true, "result": "slow"}'
        writer.write(f"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(seconds)

    return behave


def drip_head(seconds: float) -> Behaviour:
    """The head of an answer, a byte at a time, and it does not end."""

    async def behave(writer: Writer, _body: bytes) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nX-Slow: ")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(seconds)

    return behave


def interim(seconds: float) -> Behaviour:
    """Word that the answer will come, again and again."""

    async def behave(writer: Writer, _body: bytes) -> None:
        while True:
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(seconds)

    return behave


def endless() -> Behaviour:
    """A body without an end."""

    async def behave(writer: Writer, _body: bytes) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b" " * 65536)
                await writer.drain()

    return behave


def silent(until: asyncio.Event) -> Behaviour:
    """No answer before the event."""

    async def behave(_writer: Writer, _body: bytes) -> None:
        await until.wait()

    return behave
