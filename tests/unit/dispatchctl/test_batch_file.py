"""Files of tasks: names become ids, mistakes are named, and the samples are what the README promises."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.batch_file import load_batch
from dispatchctl.failures import ExitStatus, Failure

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"
TASK = "123e4567-e89b-12d3-a456-426614174000"


def load(document: object, request_id: str = "r") -> tuple[pb.TaskSpec, ...]:
    return load_batch(json.dumps(document), "tasks.json", request_id).tasks


def test_names_become_the_same_ids_within_a_request_and_others_in_the_next() -> None:
    second_one = {"task_id": "b", "title": "B", "depends_on": ["a", TASK], "dependency_policy": "wait"}
    document = [{"task_id": "a", "title": "A"}, second_one]
    first, second = load(document)
    assert str(UUID(first.task_id)) == first.task_id
    assert list(second.depends_on) == [first.task_id, TASK]
    assert (first.dependency_policy, second.dependency_policy) == (0, pb.DEPENDENCY_POLICY_WAIT)
    assert load(document)[0].task_id == first.task_id
    assert load(document, "another")[0].task_id != first.task_id


def test_a_uuid_is_kept() -> None:
    assert load([{"task_id": TASK, "title": "A"}])[0].task_id == TASK


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "is empty"),
        ({"tasks": []}, "is empty"),
        ({}, "missing"),
        ("text", "no list"),
        ([1], "tasks[0] is no object"),
        ({"tasks": [{"title": "A"}], "expect": {}}, "unknown field 'expect'"),
        ([{"title": "A", "colour": "red"}], "tasks[0] has the unknown field 'colour'"),
        ([{"title": "A", "priority": "P7"}], "tasks[0].priority is 'P7'; must be P0, P1 or P2"),
        ([{"title": "A", "payload": [1]}], "tasks[0].payload is [1]; must be an object"),
        ([{"title": "A", "payload": json.loads('{"a":' * 40 + "1" + "}" * 40)}], "must be an object of at most 16 levels"),
        ([{"title": "A", "payload": {"a": "\ud800"}}], "tasks[0].payload"),
        ([{"title": 7}], "tasks[0].title is 7; must be a text"),
        ([{"title": "A"}, {"title": "B", "timeout": "soon"}], "tasks[1].timeout is 'soon'"),
        ([{"title": "A", "depends_on": "a"}], "tasks[0].depends_on"),
        ([{"title": "A", "dependency_policy": "hope"}], "tasks[0].dependency_policy is 'hope'; must be fail or wait"),
        ([{"title": "A", "depends_on": ["b"]}], "tasks[0].depends_on names 'b', which is no task_id of this file"),
        ([{"task_id": "a", "depends_on": ["b"]}, {"task_id": "b", "depends_on": ["a"]}], "a circle: "),
        ([{"task_id": "a", "depends_on": ["a"]}], "a → a"),
        ([{"task_id": "a"}, {"task_id": "a"}], "'a'"),
        ([{"task_id": 7}], "no text"),
        ({"tasks": [{"task_id": "a"}], "expected": {"b": "failed"}}, "'b'"),
        ({"tasks": [{"task_id": "a"}], "expected": {"a": "done"}}, "expected.a is 'done'"),
    ],
)
def test_a_mistake_is_named(document: object, words: str) -> None:
    with pytest.raises(Failure) as caught:
        load(document)
    assert words in caught.value.why
    assert caught.value.status is ExitStatus.USAGE


def test_a_priority_is_written_as_on_the_command_line_or_as_in_the_protocol() -> None:
    words: list[object] = ["P0", "p0", "PRIORITY_P0", 1]
    assert [load([{"title": "A", "priority": word}])[0].priority for word in words] == [pb.PRIORITY_P0] * 4


def test_fields_are_named_as_in_the_protocol_or_as_in_its_json() -> None:
    first, second = load([{"title": "A", "task_type": "qa", "max_tries": 2}, {"title": "A", "taskType": "qa", "maxTries": 2}])
    assert first == second


def test_an_unknown_field_is_answered_with_those_that_there_are_as_the_samples_write_them() -> None:
    with pytest.raises(Failure) as caught:
        load([{"title": "A", "colour": "red"}])
    assert "not_before_time" in caught.value.remedy


def test_no_json_is_named() -> None:
    with pytest.raises(Failure, match=r"tasks\.json"):
        load_batch("{", "tasks.json", "r")


def test_the_samples_are_what_is_promised() -> None:
    batch = load_batch((EXAMPLES / "tasks.json").read_text("utf-8"), "tasks.json", "r")
    assert len(batch.tasks) == 12
    assert {"talk", "research", "data", "dev", "review", "qa", "audit"} <= {spec.task_type for spec in batch.tasks}
    assert {spec.priority for spec in batch.tasks} == {pb.PRIORITY_P0, pb.PRIORITY_P1, pb.PRIORITY_P2}
    assert any(spec.depends_on for spec in batch.tasks)
    assert list(batch.expected.values()).count(pb.TASK_STATUS_QUARANTINED) == 2
    failing = [spec for spec in batch.tasks if "exit-status:" in spec.description]
    poor = [spec for spec in batch.tasks if len(spec.title) < 5]
    assert [batch.expected[spec.task_id] for spec in (*failing, *poor)] == [pb.TASK_STATUS_QUARANTINED] * 2
    assert failing[0].max_tries <= 2
