"""The types of events: who emits each, what its payload carries, and what it says. Wire values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class EventType(StrEnum):
    """What can happen; the closed set of `Event.type`."""

    TASK_DISPATCHED = "task_dispatched"
    TASK_COMPLETED = "task_completed"
    TASK_FAILED = "task_failed"
    TASK_CANCELLED = "task_cancelled"
    TASK_QUARANTINED = "task_quarantined"
    CIRCUIT_OPEN = "circuit_open"
    CIRCUIT_CLOSED = "circuit_closed"
    DISPATCH_LOW_SUCCESS_RATE = "dispatch_low_success_rate"
    DRAIN_STARTED = "drain_started"
    DRAIN_ENDED = "drain_ended"
    BILLING_PAUSE_STARTED = "billing_pause_started"
    BILLING_PAUSE_ENDED = "billing_pause_ended"
    SETTING_CHANGED = "setting_changed"
    EXECUTOR_UP = "executor_up"
    EXECUTOR_DOWN = "executor_down"


@dataclass(frozen=True, slots=True)
class EventShape:
    """What an event of a type looks like: its source, the keys that its payload always has, those it may have, its meaning."""

    source: str
    always: tuple[str, ...]
    sometimes: tuple[str, ...]
    meaning: str


_TASK = ("task_id", "title", "task_type", "priority", "backend", "status", "tries")
_TASK_MORE = ("run_id", "executor_id", "hold_reason", "exit_code", "error")


def _of_task(meaning: str) -> EventShape:
    return EventShape("scheduler", _TASK, _TASK_MORE, meaning)


EVENT_SHAPES: Mapping[EventType, EventShape] = MappingProxyType(
    {
        EventType.TASK_DISPATCHED: _of_task("a run has begun: its start verdict is success"),
        EventType.TASK_COMPLETED: _of_task("a task has ended well"),
        EventType.TASK_FAILED: _of_task(
            "a try has failed, and `status` says whether another one follows; or one that the task depends on has failed"
        ),
        EventType.TASK_CANCELLED: _of_task("a task has been cancelled, and nothing of it runs"),
        EventType.TASK_QUARANTINED: _of_task("a task is put aside for a person; `hold_reason` says why"),
        EventType.CIRCUIT_OPEN: EventShape(
            "circuit_breaker",
            ("key", "reason", "failures"),
            ("actor", "enforced"),
            "a breaker lets nothing through from now on; `enforced` false: its guard only observes, or is off",
        ),
        EventType.CIRCUIT_CLOSED: EventShape(
            "circuit_breaker",
            ("key", "previous_state", "previous_failures"),
            ("actor",),
            "a breaker lets through again: its probe succeeded, or somebody reset it",
        ),
        EventType.DISPATCH_LOW_SUCCESS_RATE: EventShape(
            "scheduler",
            ("backend", "rate", "threshold", "enforced"),
            (),
            "too few of a backend's starts succeed; `enforced` false: it is only observed",
        ),
        EventType.DRAIN_STARTED: EventShape("drain", ("source", "reason", "actor"), (), "a source asks that nothing start"),
        EventType.DRAIN_ENDED: EventShape(
            "drain", ("source", "reason", "actor", "seconds"), (), "a source's drain is over, after that many seconds"
        ),
        EventType.BILLING_PAUSE_STARTED: EventShape(
            "billing",
            ("backend", "until_time", "reason", "actor"),
            (),
            "a backend ('': each) is paused until that time (ISO 8601)",
        ),
        EventType.BILLING_PAUSE_ENDED: EventShape("billing", ("backend", "reason", "actor"), (), "a billing pause is over"),
        EventType.SETTING_CHANGED: EventShape(
            "settings",
            ("name", "value", "previous_value", "origin", "reason", "actor"),
            (),
            "a setting has another value from now on; `origin` is `override`, or where the value comes from without one",
        ),
        EventType.EXECUTOR_UP: EventShape(
            "executor", ("executor_id", "target", "version"), (), "an executor answers, for the first time or again"
        ),
        EventType.EXECUTOR_DOWN: EventShape("executor", ("executor_id", "target"), (), "an executor answers no more"),
    }
)
"""One row a type. `docs/events.md` is made of it."""
