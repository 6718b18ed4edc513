"""The bounds of a submitted task: each at its edge, and that poor but storable content passes."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from scheduler_service.core.limits import (
    VIOLATIONS_MAX,
    TaskSpec,
    Violation,
    batch_violations,
    shown,
    text_problem,
    violations_of,
)

GOOD = TaskSpec(title="Add a retry to the importer")


def ids(*numbers: int) -> tuple[UUID, ...]:
    return tuple(UUID(int=n) for n in numbers)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def fields(spec: TaskSpec) -> list[str]:
    return [violation.field for violation in violations_of(spec)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"title": "x"},
        {"title": "é" * 500},
        {"title": "  "},
        {"description": "d" * 262_144},
        {"description": "TODO"},
        {"payload": nested(16)},
        {"payload": {"a": [1, 2.5, True, None, "ü", {"b": []}]}},
        {"payload": {"k": "v" * (262_144 - 8)}},
        {"depends_on": ids(*range(1, 101))},
        {"max_tries": 1},
        {"max_tries": 100},
        {"timeout": timedelta(microseconds=1)},
        {"timeout": timedelta(days=7)},
        {"task_type": "x" * 64},
        {"task_type": ""},
        {"skill": "/repo-lead.v2:a_b"},
    ],
)
def test_what_keeps_the_bounds_is_accepted(changes: dict[str, Any]) -> None:
    assert violations_of(replace(GOOD, **changes)) == []


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"title": ""}, "title", "empty; must have 1 to 500"),
        ({"title": "x" * 501}, "title", "501 characters; at most 500"),
        ({"title": "a\0b"}, "title", "NUL"),
        ({"title": "a\ud800"}, "title", "lone surrogate at character 1"),
        ({"description": "d" * 262_145}, "description", "262145 bytes; at most 262144"),
        ({"description": "é" * 131_073}, "description", "262146 bytes"),
        ({"description": "\0"}, "description", "NUL"),
        ({"description": "\udfff"}, "description", "surrogate"),
        ({"payload": nested(17)}, "payload", "more than 16 deep"),
        ({"payload": {"k": "v" * (262_144 - 7)}}, "payload", "262145 bytes as JSON; at most 262144"),
        ({"payload": {"a": {"b": [0, "x\0"]}}}, "payload.a.b[1]", "NUL"),
        ({"payload": {"a\0": 1}}, "payload", "key 'a\\x00' contains NUL"),
        ({"payload": {"a\ud800": 1}}, "payload", "surrogate"),
        ({"payload": {7: 1}}, "payload", "keys must be text"),
        ({"payload": {"a": float("nan")}}, "payload.a", "nan is not a number"),
        ({"payload": {"a": float("-inf")}}, "payload.a", "-inf is not a number"),
        ({"payload": {"a": 1 << 1023}}, "payload.a", "too large"),
        ({"payload": {"a": {1, 2}}}, "payload.a", "not a JSON value"),
        ({"depends_on": ids(*range(1, 102))}, "depends_on", "101 tasks; at most 100"),
        ({"depends_on": ids(1, 2, 1)}, "depends_on", "listed more than once"),
        ({"task_id": UUID(int=1), "depends_on": ids(1)}, "depends_on", "the task itself"),
        ({"max_tries": 0}, "max_tries", "is 0; must be 1 to 100"),
        ({"max_tries": 101}, "max_tries", "is 101"),
        ({"timeout": timedelta(0)}, "timeout", "above 0"),
        ({"timeout": timedelta(days=7, microseconds=1)}, "timeout", "at most 7 days"),
        ({"task_type": "x" * 65}, "task_type", "65 characters; at most 64"),
        ({"task_type": "dev ops"}, "task_type", "'dev ops' has other characters"),
        ({"task_type": "dev\n"}, "task_type", "other characters"),
        ({"skill": "é"}, "skill", "'\\xe9' has other characters"),
        ({"payload": {"skill_override": "x" * 65}}, "payload.skill_override", "65 characters"),
    ],
)
def test_what_breaks_a_bound_is_named(changes: dict[str, Any], field: str, words: str) -> None:
    (violation,) = violations_of(replace(GOOD, **changes))
    assert violation.field == field
    assert words in violation.description


def test_all_violations_come_at_once() -> None:
    assert fields(replace(GOOD, title="", max_tries=0, skill="a b", payload={"a": "\0"})) == [
        "title",
        "skill",
        "max_tries",
        "payload.a",
    ]


def test_a_hostile_payload_gives_a_short_report() -> None:
    found = violations_of(replace(GOOD, payload={"k" * 10_000: ["\0" * 1_000] * 10_000}))
    assert len(found) == VIOLATIONS_MAX
    assert all(len(violation.field) < 200 and len(violation.description) < 200 for violation in found)


def test_a_deep_payload_does_not_exhaust_the_stack() -> None:
    assert fields(replace(GOOD, payload=nested(100_000))) == ["payload"]


def test_long_paths_are_shortened() -> None:
    value: Any = "\0"
    for _ in range(15):
        value = {"k" * 1_000: value}
    (violation,) = violations_of(replace(GOOD, payload=value))
    assert len(violation.field) < 200


def test_shown_is_short_and_escaped() -> None:
    assert shown("a\nb") == "'a\\nb'"
    assert len(shown("x" * 1_000)) == 43
    assert text_problem("plain") == ""


class TestBatch:
    def test_a_good_batch(self) -> None:
        a, b, c, outside = ids(1, 2, 3, 4)
        specs = [
            replace(GOOD, task_id=c, depends_on=(a, b)),
            replace(GOOD, task_id=a),
            replace(GOOD, task_id=b, depends_on=(a, outside)),
            GOOD,
            GOOD,
        ]
        assert batch_violations(specs) == []
        assert batch_violations([GOOD] * 1_000) == []

    def test_size(self) -> None:
        assert batch_violations([GOOD] * 1_001) == [Violation("tasks", "has 1001 tasks; at most 1000 in one call")]
        assert [v.field for v in batch_violations([])] == ["tasks"]

    def test_ids_used_twice(self) -> None:
        same = replace(GOOD, task_id=UUID(int=1))
        assert [v.field for v in batch_violations([same, GOOD, same])] == ["tasks[0].task_id", "tasks[2].task_id"]

    def test_a_circle(self) -> None:
        a, b, c = ids(1, 2, 3)
        specs = [
            replace(GOOD, task_id=a, depends_on=(c,)),
            replace(GOOD, task_id=b, depends_on=(a,)),
            replace(GOOD, task_id=c, depends_on=(b,)),
        ]
        (violation,) = batch_violations(specs)
        assert violation.field in {"tasks[0].depends_on", "tasks[1].depends_on", "tasks[2].depends_on"}
        assert "circle" in violation.description

    def test_a_long_circle_is_shortened(self) -> None:
        specs = [replace(GOOD, task_id=UUID(int=n + 1), depends_on=ids((n + 1) % 100 + 1)) for n in range(100)]
        (violation,) = batch_violations(specs)
        assert len(violation.description) < 400

    def test_waiting_for_itself_is_the_specs_own_violation(self) -> None:
        own = replace(GOOD, task_id=UUID(int=1), depends_on=ids(1))
        assert batch_violations([own]) == []
        assert fields(own) == ["depends_on"]


def test_a_timeout_that_is_too_long_is_shown_in_the_unit_of_the_limit() -> None:
    (violation,) = violations_of(replace(GOOD, timeout=timedelta(days=8)))
    assert violation == Violation("timeout", "is 691200 s; must be above 0 and at most 7 days (604800 s)")
