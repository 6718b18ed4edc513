"""Hypothesis strategies drawn from protobuf descriptors: messages as a careless or hostile caller would fill them."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

DEPTH_MAX = 4
TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "\0",
            "a\0b",
            "x" * 129,
            "x" * 501,
            "ü" * 140_000,
            "\u202e\u0000",
            "\ufeff",
            "👩\u200d💻",
            "'; DROP TABLE tasks; --",
            "%s%n%x",
            "../../etc/passwd",
            "123e4567-e89b-42d3-a456-426614174000",
            "{123e4567-e89b-42d3-a456-426614174000}",
            "123E4567-E89B-42D3-A456-426614174000",
            "cecelia-run",
            "hk-minimax",
            "constructor",
            "task_dispatched",
        ]
    ),
    st.text(max_size=40),
)
_BITS = {
    FieldDescriptor.TYPE_INT32: (32, True),
    FieldDescriptor.TYPE_INT64: (64, True),
    FieldDescriptor.TYPE_UINT32: (32, False),
    FieldDescriptor.TYPE_UINT64: (64, False),
}


def messages(descriptor: Descriptor, depth: int = 0) -> st.SearchStrategy[Message]:
    """Messages of a type, each field left out, plain, or extreme."""
    fields = {field.name: st.none() | _values(field, depth) for field in descriptor.fields}
    return st.fixed_dictionaries(fields).map(lambda chosen: _filled(descriptor, chosen))


def _filled(descriptor: Descriptor, chosen: dict[str, Any]) -> Message:
    message = GetMessageClass(descriptor)()
    for name, value in chosen.items():
        if value is None:
            continue
        field = descriptor.fields_by_name[name]
        target = getattr(message, name)
        if _is_map(field):
            for key, inner in value.items():
                if isinstance(inner, Message):
                    target[key].CopyFrom(inner)
                else:
                    target[key] = inner
        elif field.is_repeated:
            target.extend(value)
        elif isinstance(value, Message):
            target.CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if _is_map(field):
        if depth >= DEPTH_MAX:
            return st.just({})
        return st.dictionaries(st.text(max_size=8), _single(field.message_type.fields_by_name["value"], depth), max_size=3)
    single = _single(field, depth)
    if not field.is_repeated:
        return single
    # Many of the small, few of the large: a request of a hundred megabytes tests the machine.
    return st.lists(single, max_size=4) | single.map(lambda one: [one] * (120 if _is_small(one) else 2))


def _is_small(value: Any) -> bool:
    return (value.ByteSize() if isinstance(value, Message) else len(value) if isinstance(value, str | bytes) else 8) < 1_000


def _single(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        if depth >= DEPTH_MAX:
            return st.just(GetMessageClass(field.message_type)())
        return messages(field.message_type, depth + 1)
    if field.type in _BITS:
        bits, signed = _BITS[field.type]
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        return st.sampled_from([0, 1, low, high]) | st.integers(low, high)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_ENUM:
        known = [value.number for value in field.enum_type.values]
        return st.sampled_from([*known, 99, -1])
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return st.sampled_from([0.0, -0.0, 1e308, float("nan"), float("inf"), -float("inf")]) | st.floats()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=40)
    return TEXTS
