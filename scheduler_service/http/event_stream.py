"""Events as server-sent events: resumed by Last-Event-ID, with a heartbeat, one read ahead and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from scheduler_service.http import shapes
from scheduler_service.http.ports import LocalCall, SchedulerRpcs
from service_runtime.errors import ServiceError
from service_runtime.field_checks import FieldChecker, shown

HEARTBEAT_S = 15.0
OPENED_S = 5.0
RECONNECT_MS = 1_000
_ID_MAX = 2**63 - 1


async def event_stream(
    rpcs: SchedulerRpcs, request: Request, call: LocalCall, shape: Callable[[pb.Event], Mapping[str, Any]]
) -> Response:
    """The stream from `Last-Event-ID` (or `?after=`) on; without either, what comes from now on. `?types=a,b` chooses.

    Raises ServiceError when it cannot be opened.
    """
    check = FieldChecker()
    after = -1
    asked = [name for name, _ in request.query_params.multi_items()]
    for name in dict.fromkeys(asked):
        if name not in ("after", "types"):
            check.wrong(name[:64], "is unknown; must be after or types")
        elif asked.count(name) > 1:
            check.wrong(name, f"is given {asked.count(name)} times; must be given once")
    given = request.headers.get("last-event-id") or request.query_params.get("after")
    if given is not None:
        if given.isdecimal() and given.isascii() and int(given) <= _ID_MAX:
            after = int(given)
        else:
            check.wrong("Last-Event-ID", f"is {shown(given)}; must be the id of an event")
    types = [word for word in request.query_params.get("types", "").split(",") if word]
    check.done()
    events = rpcs.WatchEvents(pb.WatchEventsRequest(after_event_id=after, types=types), call)
    first = asyncio.ensure_future(anext(events))
    opened = asyncio.ensure_future(call.opened.wait())
    try:
        await asyncio.wait({first, opened}, timeout=OPENED_S, return_when=asyncio.FIRST_COMPLETED)
        if first.done() and isinstance(error := first.exception(), ServiceError):
            raise error
    finally:
        opened.cancel()
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_lines(events, first, shape), media_type="text/event-stream", headers=headers)


async def _lines(
    events: AsyncIterator[pb.WatchEventsResponse],
    following: asyncio.Future[pb.WatchEventsResponse],
    shape: Callable[[pb.Event], Mapping[str, Any]],
) -> AsyncIterator[str]:
    try:
        yield f"retry: {RECONNECT_MS}\n: open\n\n"
        while True:
            done, _ = await asyncio.wait({following}, timeout=HEARTBEAT_S)
            if not done:
                yield ": still here\n\n"
                continue
            try:
                event = following.result().event
            except (ServiceError, StopAsyncIteration):
                # The reader comes back by itself and resumes where it was.
                return
            yield f"id: {event.id}\nevent: {event.type}\ndata: {shapes.compact(shape(event))}\n\n"
            following = asyncio.ensure_future(anext(events))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await events.aclose()  # type: ignore[attr-defined]  # an async generator behind the Protocol
