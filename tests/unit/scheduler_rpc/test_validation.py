"""Bad requests: every wrong field named with its value and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.struct_pb2 import Struct

from scheduler_service.core.task import Priority, TaskStatus
from scheduler_service.rpc.conversions import BREAKER_STATES, PRIORITIES, STATUSES
from scheduler_service.rpc.validation import Checker, page_token
from service_runtime.errors import InvalidArgument
from service_runtime.proto_values import duration, moment_of, object_of, span_of, struct, timestamp

ID = "123e4567-e89b-42d3-a456-426614174000"


def deep(levels: int) -> Struct:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"x": value}
    return struct(value)


def nan() -> Struct:
    message = Struct()
    message.fields["n"].number_value = float("nan")
    return message


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "empty title": ({"title": ""}, "task.title"),
    "long title": ({"title": "x" * 501}, "task.title"),
    "NUL in title": ({"title": "a\x00b"}, "task.title"),
    "long description": ({"description": "x" * (256 * 1024 + 1)}, "task.description"),
    "NUL in payload": ({"payload": struct({"k": "\x00"})}, "task.payload"),
    "deep payload": ({"payload": deep(17)}, "task.payload"),
    "large payload": ({"payload": struct({"k": "x" * (256 * 1024)})}, "task.payload"),
    "NaN": ({"payload": nan()}, "task.payload"),
    "bad id": ({"task_id": "x"}, "task.task_id"),
    "braced id": ({"task_id": "{" + ID + "}"}, "task.task_id"),
    "no policy": ({"dependency_policy": 9}, "task.dependency_policy"),
    "bad prerequisite": ({"depends_on": ["nope"]}, "task.depends_on[0]"),
    "itself": ({"task_id": ID, "depends_on": [ID]}, "task.depends_on"),
    "many prerequisites": ({"depends_on": [f"{i:08d}-e89b-42d3-a456-426614174000" for i in range(101)]}, "task.depends_on"),
    "unknown priority": ({"priority": 9}, "task.priority"),
    "too many tries": ({"max_tries": 101}, "task.max_tries"),
    "negative tries": ({"max_tries": -1}, "task.max_tries"),
    "odd type": ({"task_type": "dev; rm"}, "task.task_type"),
}


@pytest.mark.parametrize(("fields", "field"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_field_is_named(fields: dict[str, Any], field: str) -> None:
    check = Checker()
    check.spec(pb.TaskSpec(**{"title": "A good title", **fields}), "task")
    with pytest.raises(InvalidArgument) as caught:
        check.done()
    assert any(violation.field.startswith(field) for violation in caught.value.violations), caught.value.violations
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(("seconds", "nanos"), [(-1, 0), (8 * 86_400, 0), (0, 0), (0, -5), (10**12, 0)])
def test_a_wrong_time_out_is_named(seconds: int, nanos: int) -> None:
    spec = pb.TaskSpec(title="A good title")
    spec.timeout.seconds, spec.timeout.nanos = seconds, nanos
    check = Checker()
    check.spec(spec, "task")
    with pytest.raises(InvalidArgument) as caught:
        check.done()
    assert caught.value.violations[0].field == "task.timeout"


@pytest.mark.parametrize(("seconds", "nanos"), [(-1, 0), (300_000_000_000, 0), (5, 2_000_000_000)])
def test_a_wrong_time_is_named(seconds: int, nanos: int) -> None:
    spec = pb.TaskSpec(title="A good title")
    spec.not_before_time.seconds, spec.not_before_time.nanos = seconds, nanos
    check = Checker()
    check.spec(spec, "task")
    with pytest.raises(InvalidArgument):
        check.done()


def test_the_defaults_of_a_spec_are_the_contracts() -> None:
    check = Checker()
    spec = check.spec(pb.TaskSpec(title="A good title"), "task")
    check.done()
    assert spec is not None
    assert (spec.task_type, spec.priority, spec.max_tries, spec.timeout.total_seconds()) == ("dev", Priority.P1, 3, 3_600)


def test_what_is_poor_is_left_to_pre_flight() -> None:
    check = Checker()
    check.spec(pb.TaskSpec(title="fix", description="todo"), "task")
    check.done()


@pytest.mark.parametrize(
    "bad",
    [
        list,
        lambda: [pb.TaskSpec(title="t" * 6)] * 1001,
        lambda: [pb.TaskSpec(title="one", task_id=ID), pb.TaskSpec(title="two", task_id=ID)],
    ],
)
def test_a_wrong_batch_is_refused(bad: Callable[[], list[pb.TaskSpec]]) -> None:
    check = Checker()

    def whole() -> None:
        check.specs(bad())
        check.done()

    with pytest.raises(InvalidArgument):
        whole()


def test_a_circle_in_a_batch_is_refused() -> None:
    other = ID.replace("1", "2")
    check = Checker()
    check.specs(
        [pb.TaskSpec(title="one", task_id=ID, depends_on=[other]), pb.TaskSpec(title="two", task_id=other, depends_on=[ID])]
    )
    with pytest.raises(InvalidArgument):
        check.done()


@pytest.mark.parametrize("token", ["foreign", "====", "x" * 5_000, "\udcff", page_token(5, "other filters")])
def test_a_foreign_page_token_is_refused(token: str) -> None:
    check = Checker()
    assert check.page_key(token, "these filters") is None
    with pytest.raises(InvalidArgument):
        check.done()


def test_our_own_page_token_is_taken() -> None:
    check = Checker()
    assert check.page_key(page_token(42, "these filters"), "these filters") == 42
    assert check.page_key("", "these filters") is None
    check.done()


def test_a_mask_changes_only_what_it_names() -> None:
    request = pb.UpdateTaskRequest(
        task_id=ID, task=pb.TaskSpec(title="A new title", priority=pb.PRIORITY_P0, description="ignored")
    )
    request.update_mask.paths.extend(["title", "priority", "not_before_time"])
    assert Checker().changes(request) == {"title": "A new title", "priority": Priority.P0, "not_before_time": None}


@pytest.mark.parametrize("paths", [[], ["task_type"], ["title", "max_tries"], ["title.x"]])
def test_a_mask_that_names_something_else_is_refused(paths: list[str]) -> None:
    request = pb.UpdateTaskRequest(task_id=ID, task=pb.TaskSpec(title="A new title"))
    request.update_mask.paths.extend(paths)
    with pytest.raises(InvalidArgument) as caught:
        Checker().changes(request)
    assert caught.value.violations[0].field == "update_mask"


def test_unknown_filter_values_are_refused() -> None:
    check = Checker()
    assert check.statuses([1, 1]) == [TaskStatus.QUEUED] * 2
    check.statuses([0])
    check.priorities([7])
    with pytest.raises(InvalidArgument) as caught:
        check.done()
    assert [violation.field for violation in caught.value.violations] == ["statuses", "priorities"]


def test_a_report_is_bounded() -> None:
    check = Checker()
    for i in range(100):
        check.wrong(f"field{i}", "is wrong")
    with pytest.raises(InvalidArgument) as caught:
        check.done()
    assert len(caught.value.violations) == 20


def test_every_enum_value_has_its_wire_form() -> None:
    assert len(set(STATUSES.values())) == len(TaskStatus) == len(pb.TaskStatus.values()) - 1
    assert len(set(PRIORITIES.values())) == len(Priority) == len(pb.Priority.values()) - 1
    assert len(set(BREAKER_STATES.values())) == 3 == len(pb.BreakerState.values()) - 1


@pytest.mark.parametrize("moment", [datetime(1970, 1, 1, tzinfo=UTC), datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)])
def test_times_come_back(moment: datetime) -> None:
    message = timestamp(moment)
    assert message is not None
    assert moment_of(message) == moment
    span = moment - datetime(1970, 1, 1, tzinfo=UTC)
    assert span_of(duration(span)) == span


def test_json_objects_come_back() -> None:
    value = {"a": [1, 2.5, None, True, "☃", {}], "b": {"c": {"d": []}}, "big": 2**53, "neg": -7}
    assert object_of(struct(value)) == {**value, "big": float(2**53)}
