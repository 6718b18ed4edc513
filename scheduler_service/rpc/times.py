"""Protobuf times and payloads to Python's and back. What does not fit raises ValueError with a text for the caller."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)
_NANOS = 1_000_000_000


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A Timestamp, None for None."""
    if moment is None:
        return None
    since = moment - _EPOCH
    seconds = since // timedelta(seconds=1)
    return Timestamp(seconds=seconds, nanos=(since - timedelta(seconds=seconds)).microseconds * 1000)


def moment_of(message: Timestamp) -> datetime:
    """An aware UTC time, to the microsecond. Raises ValueError outside of the years 1970 to 9999."""
    if not 0 <= message.nanos < _NANOS:
        raise ValueError(f"has {message.nanos} nanos; must be 0 to 999999999")
    if not 0 <= message.seconds <= (_LATEST - _EPOCH) // timedelta(seconds=1):
        raise ValueError(f"is {message.seconds} s since 1970; must lie in the years 1970 to 9998")
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def duration(span: timedelta) -> Duration:
    """A Duration."""
    seconds = span // timedelta(seconds=1)
    return Duration(seconds=seconds, nanos=(span - timedelta(seconds=seconds)).microseconds * 1000)


def span_of(message: Duration) -> timedelta:
    """A time span. Raises ValueError for one that is negative or longer than 10,000 years."""
    if not (0 <= message.seconds <= 315_576_000_000 and 0 <= message.nanos < _NANOS):
        raise ValueError(f"is {message.seconds} s and {message.nanos} ns; must be 0 or more")
    return timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def struct(payload: Mapping[str, Any]) -> Struct:
    """A Struct of a JSON object. Written out here because json_format is not for data of callers (reliability.md section 7)."""
    message = Struct()
    for key, value in payload.items():
        _fill(message.fields[key], value)
    return message


def _fill(target: Value, value: Any) -> None:
    match value:
        case None:
            target.null_value = 0  # type: ignore[assignment]  # the enum's one value, NULL_VALUE
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


def payload_of(message: Struct) -> dict[str, Any]:
    """The JSON object of a Struct; whole numbers become ints as in JSON."""
    return {key: _value(value) for key, value in message.fields.items()}


def _value(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return payload_of(value.struct_value)
    if kind == "list_value":
        inner: ListValue = value.list_value
        return [_value(item) for item in inner.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    return None
