"""The status page, and the paths below /api/brain: each calls the rpc of the same meaning and shows its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from scheduler_service.core.callback import CALLBACK_STATUSES, Callback
from scheduler_service.http import shapes
from scheduler_service.http.event_stream import EventStreams, asked_events, event_frame
from scheduler_service.http.ports import Callbacks, SchedulerRpcs, WorkingMemory
from scheduler_service.http.requests import call_of, override_of
from scheduler_service.http.static_files import load_static_files
from scheduler_service.http.status_page import HEADERS, PageSetup, status_page
from scheduler_service.http.ui_paths import UiPaths
from service_runtime.clock import Clock
from service_runtime.field_checks import FieldChecker, shown
from service_runtime.http_app import HttpPolicy, json_body

RESULT_MAX_BYTES = 64 * 1024
# Of a result only the end is kept: one that is larger must not lose the end of its run.
CALLBACK_MAX_BYTES = 4 * 1024 * 1024
PREFIX = "/api/brain"


class BrainPaths:
    """The handlers. `hide_payloads` leaves out what the submitters of tasks wrote."""

    def __init__(
        self,
        rpcs: SchedulerRpcs,
        memory: WorkingMemory,
        callbacks: Callbacks,
        clock: Clock,
        policy: HttpPolicy,
        *,
        hide_payloads: bool,
    ) -> None:
        self._rpcs = rpcs
        self._memory = memory
        self._callbacks = callbacks
        self._clock = clock
        self._hide = hide_payloads
        self._streams = EventStreams()
        self._static = load_static_files()
        self._setup = PageSetup(policy.base_path, self._static.root, policy.read_only, hide_payloads)

    def routes(self) -> list[BaseRoute]:
        """Every path with its method."""
        paths: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("GET", "/dispatch-stats", self._dispatch_stats),
            ("GET", "/memory", self._working_memory),
            ("GET", "/status/full", self._status_full),
            ("GET", "/health", self._health),
            ("POST", "/circuit-breaker/{key}/reset", self._reset),
            ("POST", "/drain", self._drain_on),
            ("POST", "/drain/off", self._drain_off),
            ("GET", "/drain-status", self._drain_status),
            ("GET", "/slots", self._slots),
            ("GET", "/events", self._events),
            ("POST", "/execution-callback", self._callback),
        ]
        routes = [
            Route("/", self._page, methods=["GET"]),
            Route("/static/{version}/{name}", self._static.serve, methods=["GET"]),
            *UiPaths(self._rpcs, self._clock, self._streams, self._static.version, hide_payloads=self._hide).routes(),
        ]
        routes += [Route(PREFIX + path, handler, methods=[method]) for method, path, handler in paths]
        for route in routes:
            if route.endpoint == self._events and route.methods is not None:
                # A stream without its body would never end.
                route.methods.discard("HEAD")
        return list(routes)

    def _json(self, body: Any) -> Response:
        return JSONResponse(shapes.without_payloads(body) if self._hide else body, headers={"cache-control": "no-store"})

    async def _status(self, request: Request) -> pb.GetStatusResponse:
        return await self._rpcs.GetStatus(pb.GetStatusRequest(), call_of(request))

    # --- reading

    async def _dispatch_stats(self, request: Request) -> Response:
        stats = await self._rpcs.GetDispatchStats(pb.GetDispatchStatsRequest(), call_of(request))
        return self._json({"success": True, "window_1h": shapes.window(stats.window_1h)})

    async def _working_memory(self, _request: Request) -> Response:
        return self._json(shapes.memory(await self._memory.working_memory()))

    async def _page(self, request: Request) -> Response:
        return HTMLResponse(status_page(await self._status(request), self._setup), headers=HEADERS)

    async def _status_full(self, request: Request) -> Response:
        status = shapes.plain(await self._status(request))
        rows = shapes.memory(await self._memory.working_memory())
        return self._json({"success": True, "snapshot_ts": shapes.iso(self._clock.now()), **status, "working_memory": rows})

    async def _health(self, request: Request) -> Response:
        return self._json(shapes.health(await self._status(request), self._clock.now()))

    async def _slots(self, request: Request) -> Response:
        return self._json(shapes.slots(await self._rpcs.GetSlots(pb.GetSlotsRequest(), call_of(request))))

    async def _drain_status(self, request: Request) -> Response:
        return self._json(shapes.drain(await self._status(request)))

    async def _events(self, request: Request) -> Response:
        asked, call = asked_events(request), call_of(request)
        shape: Callable[[Any], Any] = shapes.without_payloads if self._hide else lambda event: event
        return await self._streams.open(
            lambda: self._rpcs.WatchEvents(asked, call), call, lambda response: event_frame(response, shape)
        )

    # --- overriding

    async def _reset(self, request: Request) -> Response:
        body = await override_of(request, {})
        key = request.path_params["key"]
        answer = await self._rpcs.ResetBreaker(pb.ResetBreakerRequest(key=key, **body), call_of(request))
        return self._json({"success": True, "key": key, "state": shapes.breaker(answer.after)})

    async def _drain_on(self, request: Request) -> Response:
        body = await override_of(request, {"source": str, "until_idle": bool})
        return await self._drain(request, pb.SetDrainRequest(enabled=True, **body))

    async def _drain_off(self, request: Request) -> Response:
        body = await override_of(request, {"source": str})
        return await self._drain(request, pb.SetDrainRequest(enabled=False, **body))

    async def _drain(self, request: Request, asked: pb.SetDrainRequest) -> Response:
        was_draining = (await self._status(request)).draining
        await self._rpcs.SetDrain(asked, call_of(request))
        return self._json({**shapes.drain(await self._status(request)), "was_draining": was_draining})

    # --- the bridge

    async def _callback(self, request: Request) -> Response:
        callback = callback_of(await json_body(request, CALLBACK_MAX_BYTES))
        result = await self._callbacks.record(callback)
        changed = result.recorded is not None
        message = "recorded" if changed else "this end was recorded before"
        status = {"task_id": str(callback.task_id), "new_status": result.status.value}
        return self._json({"success": True, **status, "changed": changed, "message": message})


def callback_of(body: Mapping[str, Any]) -> Callback:
    """The callback in a body; what the reference's worker sends beyond our fields is passed over. Raises InvalidArgument."""
    check = FieldChecker()
    texts = {name: value for name, value in body.items() if isinstance(value, str)}
    task_id = check.uuid("task_id", texts.get("task_id", ""))
    named = "checkpoint_id" if "checkpoint_id" in texts else "run_id"
    run_id = check.uuid(named, texts.get(named, ""))
    status = texts.get("status", "")
    if status not in CALLBACK_STATUSES:
        check.wrong("status", f"is {shown(body.get('status'))}; must be one of {', '.join(CALLBACK_STATUSES)}")
    result, error = _words(body.get("result"))
    check.done()
    assert task_id is not None
    assert run_id is not None
    return Callback(run_id, task_id, status, result, error or texts.get("error", "")[:2000].replace("\0", "\ufffd"))


def _words(result: Any) -> tuple[str, str]:
    """Result and error of a callback's `result`: text, or an object with `result` and `error`, or nothing."""
    if isinstance(result, Mapping):
        inner, error = result.get("result"), result.get("error")
        return _text(inner if inner is not None else dict(result)), _text(error)[:2000]
    return _text(result), ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else shapes.compact(value)
    raw = text.replace("\0", "\ufffd").encode("utf-8", "replace")[-RESULT_MAX_BYTES:]
    return raw.decode("utf-8", "ignore")
