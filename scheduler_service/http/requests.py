"""What a request says: who calls, the fields of its body and of its query, each wrong one named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from starlette.requests import Request

from scheduler_service.http.ports import LocalCall
from service_runtime.field_checks import FieldChecker, shown
from service_runtime.http_app import json_body

DEFAULT_REASON = "http"
STATUSES: Mapping[str, pb.TaskStatus.ValueType] = {
    name.removeprefix("TASK_STATUS_").lower(): number for name, number in pb.TaskStatus.items() if number
}
PRIORITIES: Mapping[str, pb.Priority.ValueType] = {
    name.removeprefix("PRIORITY_"): number for name, number in pb.Priority.items() if number
}


def call_of(request: Request) -> LocalCall:
    """The call as an rpc sees it."""
    client = request.client
    return LocalCall(f"http:{client.host}:{client.port}" if client is not None else "http")


async def override_of(request: Request, more: Mapping[str, type]) -> dict[str, Any]:
    """The fields of an override: `reason` ('http' without one), `request_id`, and `more`, where `list` is one of texts.

    Raises InvalidArgument.
    """
    body = await json_body(request)
    allowed = {"reason": str, "request_id": str, **more}
    check = FieldChecker()
    for name, value in body.items():
        if name not in allowed:
            check.wrong(name[:64], f"is unknown; must be one of {', '.join(allowed)}")
        elif not isinstance(value, allowed[name]) or (isinstance(value, list) and not all(isinstance(v, str) for v in value)):
            kind = {str: "a text", bool: "true or false", list: "a list of texts"}[allowed[name]]
            check.wrong(name, f"is {shown(value)}; must be {kind}")
        elif isinstance(value, str):
            check.text(name, value, 4096)
    check.done()
    return {"reason": DEFAULT_REASON, **body}


def filter_of(given: Mapping[str, Sequence[str]]) -> dict[str, list[Any]]:
    """The fields of a filter over tasks: `statuses`, `task_types` and `priorities` by their words. Raises InvalidArgument."""
    check = FieldChecker()
    statuses = _numbers(check, "statuses", given.get("statuses", ()), STATUSES)
    priorities = _numbers(check, "priorities", given.get("priorities", ()), PRIORITIES)
    check.done()
    return {"statuses": statuses, "task_types": list(given.get("task_types", ())), "priorities": priorities}


def _numbers(check: FieldChecker, field: str, words: Sequence[str], known: Mapping[str, int]) -> list[int]:
    for word in words:
        if word not in known:
            check.wrong(field, f"has {shown(word)}; must be one of {', '.join(known)}")
    return [known[word] for word in words if word in known]


def paging_of(request: Request, *more: str) -> tuple[int, str]:
    """Size (0: as the rpc has it) and token of a page, of a query that may also have `more`. Raises InvalidArgument."""
    query, allowed = request.query_params, (*more, "page_size", "page_token")
    check = FieldChecker()
    for name in query:
        if name not in allowed:
            check.wrong(name[:64], f"is unknown; must be one of {', '.join(allowed)}")
    size = query.get("page_size", "0")
    if not (size.isascii() and size.isdecimal() and len(size) < 4):
        check.wrong("page_size", f"is {shown(size)}; must be 1 to 500")
    check.done()
    return int(size), query.get("page_token", "")


def page_of(request: Request) -> pb.ListTasksRequest:
    """The page of tasks that a query names: `status`, `type` and `priority` (repeatable), `page_size`, `page_token`.

    Raises InvalidArgument.
    """
    names = {"status": "statuses", "type": "task_types", "priority": "priorities"}
    size, token = paging_of(request, *names)
    chosen = filter_of({field: request.query_params.getlist(name) for name, field in names.items()})
    return pb.ListTasksRequest(page_size=size, page_token=token, **chosen)
