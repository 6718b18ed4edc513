"""Protobuf times and JSON objects to Python's and back. What does not fit raises ValueError with a text for the caller."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_DAY_S = 86_400
_NANOS = 1_000_000_000
_SPAN_MAX_S = 315_576_000_000


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A Timestamp, None for None."""
    if moment is None:
        return None
    message = Timestamp()
    set_timestamp(message, moment)
    return message


def set_timestamp(message: Timestamp, moment: datetime) -> None:
    """Makes a message's own field a time. One made apart would be copied."""
    since = moment - _EPOCH
    message.seconds = since.days * _DAY_S + since.seconds
    message.nanos = since.microseconds * 1000


def moment_of(message: Timestamp) -> datetime:
    """An aware UTC time, to the microsecond. Raises ValueError outside of the years 1970 to 9998."""
    if not 0 <= message.nanos < _NANOS:
        raise ValueError(f"has {message.nanos} nanos; must be 0 to {_NANOS - 1}")
    if not 0 <= message.seconds < (_LATEST - _EPOCH) // _SECOND:
        raise ValueError(f"is {message.seconds} s since 1970; must lie in the years 1970 to 9998")
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def duration(span: timedelta) -> Duration:
    """A Duration."""
    message = Duration()
    set_duration(message, span)
    return message


def set_duration(message: Duration, span: timedelta) -> None:
    """Makes a message's own field a time span, as `set_timestamp` does a time."""
    message.seconds = span.days * _DAY_S + span.seconds
    message.nanos = span.microseconds * 1000


def span_of(message: Duration) -> timedelta:
    """A time span. Raises ValueError for one that is negative or longer than 10,000 years."""
    if not (0 <= message.seconds <= _SPAN_MAX_S and 0 <= message.nanos < _NANOS):
        raise ValueError(f"is {message.seconds} s and {message.nanos} ns; must be 0 or more")
    return timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def struct(payload: Mapping[str, Any]) -> Struct:
    """A Struct of a JSON object. Written out here because json_format is not for data of callers (reliability.md section 7)."""
    message = Struct()
    set_struct(message, payload)
    return message


def set_struct(message: Struct, payload: Mapping[str, Any]) -> None:
    """Makes a message's own field, which is empty, a JSON object."""
    message.SetInParent()
    for key, value in payload.items():
        _fill(message.fields[key], value)


def _fill(target: Value, value: Any) -> None:
    match value:
        case None:
            target.null_value = NULL_VALUE
        case bool():
            target.bool_value = value
        case int() | float():
            target.number_value = float(value)
        case str():
            target.string_value = value
        case Mapping():
            target.struct_value.SetInParent()
            for key, inner in value.items():
                _fill(target.struct_value.fields[key], inner)
        case _:
            target.list_value.SetInParent()
            for inner in value:
                _fill(target.list_value.values.add(), inner)


def object_of(message: Struct) -> dict[str, Any]:
    """The JSON object of a Struct; whole numbers become ints as in JSON."""
    return {key: _value(value) for key, value in message.fields.items()}


def _value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return object_of(value.struct_value)
        case "list_value":
            return [_value(item) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None
