"""Messages as the JSON that the reference's callers know: plain numbers, times as ISO 8601 in UTC, null for what is not there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from scheduler_service.transactions.stored import MemoryRow
from service_runtime.proto_values import object_of

HIDDEN = "(hidden)"
# What the submitters of tasks wrote, wherever it shows.
_SUBMITTED = frozenset({"title", "task_title", "task_type", "description", "skill", "payload", "result", "error"})


def iso(moment: datetime) -> str:
    """As JavaScript writes it: 2026-01-31T08:00:00.000Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_json(stamp: Timestamp) -> str | None:
    """A time; null when it is not set."""
    return iso(stamp.ToDatetime(tzinfo=UTC)) if stamp.seconds or stamp.nanos else None


def plain(message: Message) -> dict[str, Any]:
    """A message under its proto field names, every field there. Enums by the last part of their name, as `CLOSED` or `P1`."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {str(key): _value(value[key], inner) for key in sorted(value)}
    if field.is_repeated:
        return [_value(item, field) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value(value, field)


def _value(value: Any, field: Any) -> Any:
    match value:
        case Timestamp():
            return time_json(value)
        case Duration():
            return value.ToTimedelta().total_seconds()
        case Struct():
            return object_of(value)
        case Message():
            return plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        prefix = f"{_screaming(field.enum_type.name)}_"
        return known.name.removeprefix(prefix) if known is not None else value
    return value


def _screaming(name: str) -> str:
    """BreakerState as BREAKER_STATE."""
    return "".join(f"_{char}" if char.isupper() else char.upper() for char in name).lstrip("_").upper()


def window(message: pb.DispatchWindow) -> dict[str, Any]:
    """A window of the statistics."""
    return {
        "total": message.total,
        "success": message.success,
        "failed": message.failed,
        "rate": message.rate if message.HasField("rate") else None,
        "last_updated": time_json(message.last_updated),
        "failure_reasons": dict(sorted(message.failure_reasons.items())),
    }


def buckets(windows: Sequence[pb.DispatchStatsWindow], now: datetime) -> list[dict[str, Any]]:
    """What lies between windows of growing length, oldest first: `started` and `reasons` count all decisions, `attempts` starts.

    The windows are counted one after the other: what is recorded meanwhile must not make a count negative.
    """
    found: list[dict[str, Any]] = []
    before, inner = timedelta(0), pb.DispatchStatsWindow()
    for window in windows:
        length = window.length.ToTimedelta()
        reasons = {
            reason: n - inner.decisions.failure_reasons.get(reason, 0)
            for reason, n in sorted(window.decisions.failure_reasons.items())
        }
        found.append(
            {
                "from": iso(now - length),
                "until": iso(now - before),
                "started": max(0, window.decisions.success - inner.decisions.success),
                "reasons": {reason: n for reason, n in reasons.items() if n > 0},
                "attempts": max(0, window.attempts.total - inner.attempts.total),
                "failed_attempts": max(0, window.attempts.failed - inner.attempts.failed),
            }
        )
        before, inner = length, window
    return found[::-1]


def breaker(message: pb.Breaker) -> dict[str, Any]:
    """A breaker's record: the reference's four fields, and ours."""
    return {
        "state": pb.BreakerState.Name(message.state).removeprefix("BREAKER_STATE_"),
        "failures": message.failures,
        "lastFailureAt": time_json(message.last_failure_time),
        "openedAt": time_json(message.opened_time),
        "retryAt": time_json(message.retry_time),
        "generation": message.generation,
        "reason": message.reason,
    }


def health(status: pb.GetStatusResponse, now: datetime) -> dict[str, Any]:
    """The health: `healthy`, `recovering` while a breaker probes, `degraded` while one is open or the tick fails."""
    breakers = {one.key: breaker(one) for one in status.breakers}
    by_state = {state: [key for key, record in breakers.items() if record["state"] == state] for state in ("OPEN", "HALF_OPEN")}
    word = "degraded" if by_state["OPEN"] or status.tick.last_error else "recovering" if by_state["HALF_OPEN"] else "healthy"
    states = "has_open" if by_state["OPEN"] else "has_half_open" if by_state["HALF_OPEN"] else "all_closed"
    wrong = [
        {"executor_id": executor.executor_id, "backend": one.backend, "detail": one.detail}
        for executor in status.executors
        for one in executor.misconfigured
    ]
    return {
        "status": word,
        "sentence": status.sentence,
        "breakers": breakers,
        "organs": {
            "scheduler": {
                "status": "failing" if status.tick.last_error else "running" if status.tick.enabled else "stopped",
                "enabled": status.tick.enabled,
                "leader": status.leader,
                "last_tick": time_json(status.tick.last_success_time),
                "last_error": status.tick.last_error or None,
            },
            "circuit_breaker": {
                "status": states,
                "open": by_state["OPEN"],
                "half_open": by_state["HALF_OPEN"],
                "states": breakers,
            },
            "backends": {"status": "config_error" if wrong else "configured", "misconfigured": wrong},
        },
        "timestamp": iso(now),
    }


def slots(message: pb.GetSlotsResponse) -> dict[str, Any]:
    """The pools, with what each executor and each backend has."""
    shown = plain(message)
    return {
        "total_capacity": shown["total_capacity"],
        "pools": {name: shown[name] for name in ("user", "internal", "task_pool")},
        "pressure": {"max": shown["max_pressure"], "effective_slots": shown["effective_slots"]},
        "dispatch_allowed": shown["dispatch_allowed"],
        "budget_cap": shown["budget_cap"],
        "executors": shown["executors"],
        "backends": shown["backends"],
    }


def drain(status: pb.GetStatusResponse) -> dict[str, Any]:
    """The drain: who holds it, since when, and how much still runs."""
    drains = [override for override in status.overrides if override.kind == "drain"]
    started = min((one.since_time.ToDatetime(tzinfo=UTC) for one in drains), default=None)
    live = (pb.TASK_STATUS_DISPATCHING, pb.TASK_STATUS_RUNNING)
    return {
        "success": True,
        "draining": status.draining,
        "drain_started_at": iso(started) if started is not None else None,
        "remaining": sum(depth.tasks for depth in status.queue if depth.status in live),
        "sources": [
            {"source": one.scope, "reason": one.reason, "actor": one.actor, "since": time_json(one.since_time)} for one in drains
        ],
    }


def memory(rows: Sequence[MemoryRow]) -> list[dict[str, Any]]:
    """The rows of `working_memory`."""
    return [{"key": row.key, "value_json": row.value_json, "updated_at": iso(row.updated_at)} for row in rows]


def event(message: pb.Event) -> dict[str, Any]:
    """An event."""
    return {
        "id": message.id,
        "type": message.type,
        "time": time_json(message.time),
        "source": message.source,
        "payload": object_of(message.payload),
    }


def without_payloads(value: Any) -> Any:
    """The same, with what the submitters of tasks wrote left out (HTTP_HIDE_PAYLOADS)."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if key in _SUBMITTED and isinstance(inner, str) and inner else without_payloads(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_payloads(inner) for inner in value]
    return value


def compact(value: Any) -> str:
    """JSON in one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
