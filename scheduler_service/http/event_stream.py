"""Events as server-sent events: resumed by Last-Event-ID, with a heartbeat, one read ahead and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from scheduler_service.http import shapes
from scheduler_service.http.ports import LocalCall, SchedulerRpcs
from service_runtime.errors import ResourceExhausted, ServiceError
from service_runtime.field_checks import FieldChecker, shown

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
        self, rpcs: SchedulerRpcs, request: Request, call: LocalCall, shape: Callable[[pb.Event], Mapping[str, Any]]
    ) -> Response:
        """The stream from `Last-Event-ID` (or `?after=`) on; without either, what comes from now on. `?types=a,b` chooses.

        Raises ServiceError when it cannot be opened.
        """
        asked = _asked(request)
        if self._open >= STREAMS_MAX:
            raise ResourceExhausted(
                f"{STREAMS_MAX} streams are open already", reason="TOO_MANY_STREAMS", retry_after=timedelta(seconds=5)
            )
        self._open += 1
        reading = _Reading(rpcs.WatchEvents(asked, call))
        try:
            await reading.opened(call)
        except BaseException:
            await self._close(reading)
            raise
        return _EventStream(_lines(reading, shape), partial(self._close, reading))

    async def _close(self, reading: _Reading) -> None:
        self._open -= 1
        await reading.close()


class _Reading:
    """The events with the next one asked for ahead."""

    def __init__(self, events: AsyncIterator[pb.WatchEventsResponse]) -> None:
        self._events = events
        self.following = asyncio.ensure_future(anext(events))

    async def opened(self, call: LocalCall) -> None:
        """Returns when the stream has found its place. Raises ServiceError when it has none."""
        opened = asyncio.ensure_future(call.opened.wait())
        try:
            await asyncio.wait({self.following, opened}, timeout=OPENED_S, return_when=asyncio.FIRST_COMPLETED)
            if self.following.done() and isinstance(error := self.following.exception(), ServiceError):
                raise error
        finally:
            opened.cancel()

    def take(self) -> pb.Event:
        """The event that was asked for and is there; asks for the next one. Raises what the stream has ended with."""
        event = self.following.result().event
        self.following = asyncio.ensure_future(anext(self._events))
        return event

    async def close(self) -> None:
        """Gives the stream up."""
        self.following.cancel()
        await asyncio.gather(self.following, return_exceptions=True)
        if isinstance(self._events, AsyncGenerator):
            await self._events.aclose()


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


def _asked(request: Request) -> pb.WatchEventsRequest:
    check = FieldChecker()
    after = -1
    names = [name for name, _ in request.query_params.multi_items()]
    for name in dict.fromkeys(names):
        if name not in ("after", "types"):
            check.wrong(name[:64], "is unknown; must be after or types")
        elif names.count(name) > 1:
            check.wrong(name, f"is given {names.count(name)} times; must be given once")
    given = request.headers.get("last-event-id") or request.query_params.get("after")
    if given is not None:
        if given.isdecimal() and given.isascii() and int(given) <= _ID_MAX:
            after = int(given)
        else:
            check.wrong("Last-Event-ID", f"is {shown(given)}; must be the id of an event")
    types = [word for word in request.query_params.get("types", "").split(",") if word]
    check.done()
    return pb.WatchEventsRequest(after_event_id=after, types=types)


async def _lines(reading: _Reading, shape: Callable[[pb.Event], Mapping[str, Any]]) -> AsyncIterator[str]:
    yield f"retry: {RECONNECT_MS}\n: open\n\n"
    while True:
        done, _ = await asyncio.wait({reading.following}, timeout=HEARTBEAT_S)
        if not done:
            yield ": still here\n\n"
            continue
        try:
            event = reading.take()
        except (ServiceError, StopAsyncIteration):
            # The reader comes back by itself and resumes where it was.
            return
        yield f"id: {event.id}\nevent: {event.type}\ndata: {shapes.compact(shape(event))}\n\n"
