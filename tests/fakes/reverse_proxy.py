"""A reverse proxy in front of one service: below a prefix that it strips or keeps, and counting what is open."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator


class ReverseProxy:
    """Passes requests through, one a connection. `open` counts those under way, `total` all, by the path that the browser asked."""

    def __init__(self, target_port: int, *, prefix: str, strips: bool) -> None:
        self._target_port = target_port
        self._prefix = prefix
        self._strips = strips
        self.open: Counter[str] = Counter()
        self.total: Counter[str] = Counter()
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = ""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            request_line, *headers = head.split("\r\n")
            method, path, version = request_line.split(" ")
            self.open[path] += 1
            self.total[path] += 1
            if not path.startswith(self._prefix):
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await writer.drain()
                return
            passed = path.removeprefix(self._prefix) or "/" if self._strips else path
            kept = [line for line in headers if not line.lower().startswith("connection:")]
            await self._pass(
                reader, writer, "\r\n".join([f"{method} {passed} {version}", "connection: close", *kept]).encode("latin-1")
            )
        if path:
            self.open[path] -= 1

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        with contextlib.closing(up_writer):
            up_writer.write(head)
            ways = [asyncio.create_task(_pump(reader, up_writer)), asyncio.create_task(_pump(up_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(64 * 1024):
        writer.write(data)
        await writer.drain()


@contextlib.asynccontextmanager
async def proxying(target_port: int, *, prefix: str = "", strips: bool = False) -> AsyncIterator[ReverseProxy]:
    """A proxy on a free port of loopback."""
    proxy = ReverseProxy(target_port, prefix=prefix, strips=strips)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
