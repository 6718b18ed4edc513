"""Events and decisions as lines for people."""

from __future__ import annotations

from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import MessageToDict

from dispatchctl.rendering import clean, cut

WHO_CHARS = 14
TITLE_CHARS = 36
TEXT_CHARS = 110

_TASK_WORDS = {
    "task_dispatched": "started",
    "task_completed": "completed",
    "task_failed": "failed",
    "task_cancelled": "cancelled",
    "task_quarantined": "quarantined",
}
TASK_EVENTS = frozenset(_TASK_WORDS)
ENDED_STATUSES = frozenset({"completed", "failed", "cancelled", "quarantined"})


def fields_of(event: pb.Event) -> dict[str, Any]:
    """An event's figures as plain values."""
    return MessageToDict(event.payload, preserving_proto_field_name=True)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def ends_task(event: pb.Event) -> bool:
    """Whether the task has ended with it: a `task_failed` is also what a failed try leaves that goes back to the queue."""
    return event.type in TASK_EVENTS and fields_of(event).get("status") in ENDED_STATUSES


def event_line(event: pb.Event, outcome: str = "", took: str = "") -> str:
    """One event as one line; `outcome` and `took` are what is known beyond the event of a task that ended."""
    fields = fields_of(event)
    if event.type in TASK_EVENTS:
        return _task_line(event, fields, outcome, took)
    rest = ", ".join(f"{name} {_number(value)}" for name, value in sorted(fields.items()) if value not in ("", None))
    return f"{event.type:<12} {cut(clean(rest), TEXT_CHARS)}".rstrip()


def _task_line(event: pb.Event, fields: dict[str, Any], outcome: str, took: str) -> str:
    word = _TASK_WORDS[event.type]
    title = cut(clean(str(fields.get("title") or fields.get("task_id") or "")), TITLE_CHARS)
    who = cut(clean(f"{fields.get('priority', '')} {fields.get('task_type', '')}"), WHO_CHARS)
    why = str(fields.get("hold_reason") or "")
    words = ": ".join(part for part in (why, outcome or str(fields.get("error") or "")) if part)
    if event.type == "task_dispatched":
        words = " on ".join(str(fields[name]) for name in ("backend", "executor_id") if fields.get(name))
    elif not ends_task(event):
        word = "try failed"
    said = "  ".join(part for part in (took, cut(clean(words), TEXT_CHARS)) if part)
    return f"{word:<12} {who:<{WHO_CHARS}} {title:<{TITLE_CHARS}}  {said}".rstrip()


def decision_line(event: pb.DispatchEvent, title: str = "") -> str:
    """A decision that started nothing, as one line."""
    kind = "failed start" if event.attempt else "not started"
    where = cut(clean(event.backend), WHO_CHARS)
    whom = cut(clean(title or event.backend or "all backends"), TITLE_CHARS)
    why = cut(clean(f"{event.reason}: {event.detail}" if event.detail else event.reason), TEXT_CHARS)
    return f"{kind:<12} {where:<{WHO_CHARS}} {whom:<{TITLE_CHARS}}  {why}"
