"""Events and decisions as lines for people."""

from __future__ import annotations

from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import MessageToDict

from dispatchctl.rendering import clean, cut, pad

WORD_COLUMNS = 12
WHO_COLUMNS = 14
NARROW = 90
WHO_COLUMNS_NARROW = 11
TITLE_COLUMNS = 36
TITLE_COLUMNS_MIN = 12

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


def in_columns(word: str, who: str, title: str, said: str, width: int | None) -> str:
    """What happened, to whom, and what is said of it, one below the other's; cut to `width` columns unless that is None.

    Without a title its columns go to what is said.
    """
    who_columns = WHO_COLUMNS if width is None or width >= NARROW else WHO_COLUMNS_NARROW
    title_columns = TITLE_COLUMNS
    if width is not None:
        title_columns = min(TITLE_COLUMNS, max(TITLE_COLUMNS_MIN, (width - WORD_COLUMNS - who_columns) // 2))
        who, title = cut(clean(who), who_columns), cut(clean(title), title_columns)
    titled = f"{pad(clean(title), title_columns)}  " if title else ""
    line = f"{word:<{WORD_COLUMNS}} {pad(clean(who), who_columns)} {titled}{clean(said)}"
    return cut(line.rstrip(), width)


def event_line(event: pb.Event, outcome: str = "", took: str = "", *, width: int | None = None, whose: str = "") -> str:
    """One event as one line of at most `width` columns.

    `outcome` and `took` are known beyond the event of a task that ended, `whose` stands before its title.
    """
    fields = fields_of(event)
    if event.type in TASK_EVENTS:
        return _task_line(event, fields, outcome, took, width=width, whose=whose)
    rest = ", ".join(f"{name} {_number(value)}" for name, value in sorted(fields.items()) if value not in ("", None))
    return cut(f"{event.type:<{WORD_COLUMNS}} {clean(rest)}".rstrip(), width)


def _task_line(event: pb.Event, fields: dict[str, Any], outcome: str, took: str, *, width: int | None, whose: str) -> str:
    word = _TASK_WORDS[event.type]
    title = whose + str(fields.get("title") or fields.get("task_id") or "")
    why = str(fields.get("hold_reason") or "")
    words = ": ".join(part for part in (why, outcome or str(fields.get("error") or "")) if part)
    if event.type == "task_dispatched":
        words = " on ".join(str(fields[name]) for name in ("backend", "executor_id") if fields.get(name))
    elif not ends_task(event):
        word = "try failed"
    said = "  ".join(part for part in (took, words) if part)
    return in_columns(word, f"{fields.get('priority', '')} {fields.get('task_type', '')}", title, said, width)


def decision_line(event: pb.DispatchEvent, title: str = "", width: int | None = None) -> str:
    """A decision that started nothing, as one line of at most `width` columns."""
    kind = "failed start" if event.attempt else "not started"
    why = f"{event.reason}: {event.detail}" if event.detail else event.reason
    return in_columns(kind, event.backend or "all backends", title, why, width)
