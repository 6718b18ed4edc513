"""Server-sent events: resumed by Last-Event-ID, with a heartbeat, one message read ahead and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Generic, TypeVar

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from scheduler_service.http import shapes
from scheduler_service.http.ports import LocalCall
from service_runtime.errors import ResourceExhausted, ServiceError
from service_runtime.field_checks import FieldChecker, shown

M = TypeVar("M")

STREAMS_MAX = 100
HEARTBEAT_S = 15.0
OPENED_S = 5.0
RECONNECT_MS = 1_000
_ID_MAX = 2**63 - 1


class EventStreams:
    """Opens streams: only so many at once, so that browsers leave streams to the callers of the rpcs."""

    def __init__(self) -> None:
        self._open = 0

    async def open(
        self, messages: Callable[[], AsyncIterator[M]], call: LocalCall, frame: Callable[[M], str], *, last: str = ""
    ) -> Response:
        """What an rpc streams as frames, and `last` when it has come to its end.

        Raises ServiceError when it cannot be opened.
        """
        if self._open >= STREAMS_MAX:
            raise ResourceExhausted(
                f"{STREAMS_MAX} streams are open already", reason="TOO_MANY_STREAMS", retry_after=timedelta(seconds=5)
            )
        self._open += 1
        reading = _Reading(messages())
        try:
            await reading.opened(call)
        except BaseException:
            await self._close(reading)
            raise
        return _EventStream(_lines(reading, frame, last), partial(self._close, reading))

    async def _close(self, reading: _Reading[Any]) -> None:
        self._open -= 1
        await reading.close()


class _Reading(Generic[M]):
    """The messages with the next one asked for ahead."""

    def __init__(self, messages: AsyncIterator[M]) -> None:
        self._messages = messages
        self.following = asyncio.ensure_future(anext(messages))

    async def opened(self, call: LocalCall) -> None:
        """Returns when the stream has found its place. Raises ServiceError when it has none."""
        opened = asyncio.ensure_future(call.opened.wait())
        try:
            await asyncio.wait({self.following, opened}, timeout=OPENED_S, return_when=asyncio.FIRST_COMPLETED)
            if self.following.done() and isinstance(error := self.following.exception(), ServiceError):
                raise error
        finally:
            opened.cancel()

    def take(self) -> M:
        """The message that was asked for and is there; asks for the next one. Raises what the stream has ended with."""
        message = self.following.result()
        self.following = asyncio.ensure_future(anext(self._messages))
        return message

    async def close(self) -> None:
        """Gives the stream up."""
        self.following.cancel()
        await asyncio.gather(self.following, return_exceptions=True)
        if isinstance(self._messages, AsyncGenerator):
            await self._messages.aclose()


class _EventStream(StreamingResponse):
    """A stream that is given up whatever becomes of its reader: one that is gone before the first line, too."""

    def __init__(self, lines: AsyncIterator[str], close: Callable[[], Awaitable[None]]) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(lines, media_type="text/event-stream", headers=headers)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._close()


async def _lines(reading: _Reading[M], frame: Callable[[M], str], last: str) -> AsyncIterator[str]:
    yield f"retry: {RECONNECT_MS}\n: open\n\n"
    while True:
        done, _ = await asyncio.wait({reading.following}, timeout=HEARTBEAT_S)
        if not done:
            yield ": still here\n\n"
            continue
        try:
            message = reading.take()
        except StopAsyncIteration:
            if last:
                yield last
            return
        except ServiceError:
            # The reader comes back by itself and resumes where it was.
            return
        yield frame(message)


def place_of(request: Request, allowed: tuple[str, ...], check: FieldChecker) -> int | None:
    """Where a reader was: `Last-Event-ID`, or `?after=`; None without either. Notes what is wrong with it and with the query."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in dict.fromkeys(names):
        if name not in ("after", *allowed):
            check.wrong(name[:64], f"is unknown; must be {' or '.join(('after', *allowed))}")
        elif names.count(name) > 1:
            check.wrong(name, f"is given {names.count(name)} times; must be given once")
    given = request.headers.get("last-event-id") or request.query_params.get("after")
    if given is None:
        return None
    if given.isdecimal() and given.isascii() and int(given) <= _ID_MAX:
        return int(given)
    check.wrong("Last-Event-ID", f"is {shown(given)}; must be the id of an event")
    return None


def asked_events(request: Request) -> pb.WatchEventsRequest:
    """The events after `Last-Event-ID` (or `?after=`); without either, what comes from now on. `?types=a,b` chooses."""
    check = FieldChecker()
    after = place_of(request, ("types",), check)
    types = [word for word in request.query_params.get("types", "").split(",") if word]
    check.done()
    return pb.WatchEventsRequest(after_event_id=-1 if after is None else after, types=types)


def event_frame(response: pb.WatchEventsResponse, shape: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> str:
    """An event as a frame under its id."""
    event = response.event
    return f"id: {event.id}\nevent: {event.type}\ndata: {shapes.compact(shape(shapes.event(event)))}\n\n"
