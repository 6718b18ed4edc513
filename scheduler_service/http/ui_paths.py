"""The paths below /api/ui, which the status page needs besides those of the reference: each an rpc, its answer as JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from scheduler_service.core.reasons import HOLD_MEANINGS, REASON_KINDS, REASON_MEANINGS
from scheduler_service.http import shapes
from scheduler_service.http.event_stream import EventStreams
from scheduler_service.http.output_stream import END_FRAME, OutputFrames, asked_output
from scheduler_service.http.ports import SchedulerRpcs
from scheduler_service.http.requests import call_of, filter_of, override_of, page_of, paging_of
from service_runtime.clock import Clock
from service_runtime.http_app import problem

PREFIX = "/api/ui"
BUCKET = timedelta(minutes=6)
BUCKETS = 10
BULK_FIELDS = {"statuses": list, "task_types": list, "priorities": list, "validate_only": bool, "page_token": str}
REASONS = {reason.value: {"kind": REASON_KINDS[reason].value, "meaning": REASON_MEANINGS[reason]} for reason in REASON_KINDS}
HOLDS = {hold.value: meaning for hold, meaning in HOLD_MEANINGS.items()}


class UiPaths:
    """The handlers. `page_version` lets an open page see that there is a newer one."""

    def __init__(
        self, rpcs: SchedulerRpcs, clock: Clock, streams: EventStreams, page_version: str, *, hide_payloads: bool
    ) -> None:
        self._rpcs = rpcs
        self._clock = clock
        self._streams = streams
        self._page_version = page_version
        self._hide = hide_payloads

    def routes(self) -> list[Route]:
        """Every path with its method."""
        paths: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("GET", "/overview", self._overview),
            ("GET", "/audit", self._audit),
            ("GET", "/tasks", self._tasks),
            ("GET", "/tasks/{task_id}/explanation", self._explanation),
            ("GET", "/tasks/{task_id}/output", self._output),
            ("POST", "/tasks/{task_id}/cancel", self._cancel),
            ("POST", "/tasks/{task_id}/requeue", self._requeue),
            ("POST", "/tasks/cancel", self._cancel_all),
            ("POST", "/tasks/requeue", self._requeue_all),
            ("POST", "/billing-pause/clear", self._clear_pause),
            ("POST", "/budget-cap/lift", self._lift_cap),
            ("POST", "/settings/{name}/reset", self._reset_setting),
        ]
        routes = [Route(PREFIX + path, handler, methods=[method]) for method, path, handler in paths]
        for route in routes:
            if route.endpoint == self._output and route.methods is not None:
                # A stream without its body would never end.
                route.methods.discard("HEAD")
        return routes

    def _json(self, body: Any) -> Response:
        return JSONResponse(shapes.without_payloads(body) if self._hide else body, headers={"cache-control": "no-store"})

    def _answer(self, message: Message) -> Response:
        return self._json({"success": True, **shapes.plain(message)})

    # --- reading

    async def _overview(self, request: Request) -> Response:
        status = await self._rpcs.GetStatus(pb.GetStatusRequest(), call_of(request))
        windows = [Duration(seconds=int(BUCKET.total_seconds()) * n) for n in range(1, BUCKETS + 1)]
        stats = await self._rpcs.GetDispatchStats(pb.GetDispatchStatsRequest(windows=windows), call_of(request))
        settings = await self._rpcs.ListSettings(pb.ListSettingsRequest(), call_of(request))
        now = self._clock.now()
        return self._json(
            {
                "success": True,
                "snapshot_ts": shapes.iso(now),
                "page_version": self._page_version,
                "status": shapes.plain(status),
                "settings": [shapes.plain(setting) for setting in settings.settings if setting.origin == "override"],
                "hour": shapes.buckets(stats.windows, now),
                "reasons": REASONS,
                "holds": HOLDS,
            }
        )

    async def _audit(self, request: Request) -> Response:
        size, token = paging_of(request)
        asked = pb.ListAuditEntriesRequest(page_size=size, page_token=token)
        return self._answer(await self._rpcs.ListAuditEntries(asked, call_of(request)))

    async def _tasks(self, request: Request) -> Response:
        return self._answer(await self._rpcs.ListTasks(page_of(request), call_of(request)))

    async def _explanation(self, request: Request) -> Response:
        asked = pb.ExplainDispatchRequest(task_id=request.path_params["task_id"])
        answer = await self._rpcs.ExplainDispatch(asked, call_of(request))
        if self._hide:
            # It may tell the task's error.
            answer.sentence = shapes.HIDDEN
        return self._answer(answer)

    async def _output(self, request: Request) -> Response:
        if self._hide:
            return problem(403, "outputs are not shown here: HTTP_HIDE_PAYLOADS is set", "PAYLOADS_HIDDEN")
        asked, call = asked_output(request), call_of(request)
        frames = OutputFrames()
        return await self._streams.open(lambda: self._rpcs.StreamTaskLogs(asked, call), call, frames.frame, last=END_FRAME)

    # --- changing

    async def _cancel(self, request: Request) -> Response:
        body = await override_of(request, {})
        asked = pb.CancelTaskRequest(task_id=request.path_params["task_id"], **body)
        return self._answer(await self._rpcs.CancelTask(asked, call_of(request)))

    async def _requeue(self, request: Request) -> Response:
        body = await override_of(request, {})
        asked = pb.RequeueTaskRequest(task_id=request.path_params["task_id"], **body)
        return self._answer(await self._rpcs.RequeueTask(asked, call_of(request)))

    async def _cancel_all(self, request: Request) -> Response:
        asked = pb.CancelTasksRequest(**await _bulk_of(request))
        return self._answer(await self._rpcs.CancelTasks(asked, call_of(request)))

    async def _requeue_all(self, request: Request) -> Response:
        asked = pb.RequeueTasksRequest(**await _bulk_of(request))
        return self._answer(await self._rpcs.RequeueTasks(asked, call_of(request)))

    async def _clear_pause(self, request: Request) -> Response:
        body = await override_of(request, {"backend": str})
        return self._answer(await self._rpcs.ClearBillingPause(pb.ClearBillingPauseRequest(**body), call_of(request)))

    async def _lift_cap(self, request: Request) -> Response:
        body = await override_of(request, {})
        return self._answer(await self._rpcs.SetBudgetCap(pb.SetBudgetCapRequest(**body), call_of(request)))

    async def _reset_setting(self, request: Request) -> Response:
        body = await override_of(request, {})
        asked = pb.ResetSettingRequest(name=request.path_params["name"], **body)
        return self._answer(await self._rpcs.ResetSetting(asked, call_of(request)))


async def _bulk_of(request: Request) -> dict[str, Any]:
    body = await override_of(request, BULK_FIELDS)
    return {**body, **filter_of(body)}
