"""Times and objects that are set in a message's own fields: what is there is there, what is not is absent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from service_runtime.proto_values import (
    duration,
    moment_of,
    object_of,
    set_duration,
    set_struct,
    set_timestamp,
    span_of,
    struct,
    timestamp,
)

MOMENT = datetime(2026, 11, 28, 12, 0, 0, 123456, UTC)
SPAN = timedelta(days=2, seconds=3, microseconds=4)


def test_a_time_a_span_and_an_object_come_back_as_they_were() -> None:
    message = pb.Task()
    set_timestamp(message.create_time, MOMENT)
    set_duration(message.timeout, SPAN)
    set_struct(message.payload, {"a": [1, {"b": None}]})
    again = pb.Task.FromString(message.SerializeToString())
    assert moment_of(again.create_time) == MOMENT
    assert span_of(again.timeout) == SPAN
    assert object_of(again.payload) == {"a": [1, {"b": None}]}


def test_it_is_what_a_value_of_its_own_would_be() -> None:
    message = pb.Task()
    set_timestamp(message.create_time, MOMENT)
    set_duration(message.timeout, SPAN)
    set_struct(message.payload, {"a": 1})
    assert message == pb.Task(create_time=timestamp(MOMENT), timeout=duration(SPAN), payload=struct({"a": 1}))


def test_what_is_zero_or_empty_is_there_and_what_is_none_is_absent() -> None:
    message = pb.Task()
    set_timestamp(message.create_time, datetime(1970, 1, 1, tzinfo=UTC))
    set_duration(message.timeout, timedelta(0))
    set_struct(message.payload, {})
    assert [name for name in ("create_time", "timeout", "payload", "usage") if message.HasField(name)] == [
        "create_time",
        "timeout",
        "payload",
    ]
    assert timestamp(None) is None
