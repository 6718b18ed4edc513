"""The original's rows as our tasks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import MessageToDict

from dispatchctl.failures import Failure
from dispatchctl.original_tasks import BATCH_BYTES, BATCH_TASKS, Import, batches, convert, read_rows

A, B, C, D = (f"00000000-0000-4000-8000-00000000000{n}" for n in "abcd")


def row(id_: str = A, **fields: Any) -> dict[str, Any]:
    """A queued row as json_agg gives it."""
    given = {
        "id": id_,
        "title": "Tidy it",
        "description": "Split it up",
        "status": "queued",
        "priority": "P1",
        "task_type": "dev",
    }
    return {**given, "payload": None, "goal_id": None, "created_at": "2026-02-01T10:00:00", **fields}


def converted(*rows: dict[str, Any], statuses: tuple[str, ...] = ("queued",)) -> Import:
    """As if the file held these rows."""
    return convert(read_rows(json.dumps(rows), "rows.json"), statuses, "rows.json")


def test_every_column_that_comes_along() -> None:
    payload = {
        "repo_path": "/srv/app",
        "limit": 3,
        "next_run_at": "2026-02-01T12:00:00",
        "depends_on": [B],
        "current_run_id": "r",
        "run_status": "triggered",
        "last_run_result": {"status": "AI Failed"},
    }
    found = converted(row(payload=payload, priority="P0", task_type="research"), row(B))
    assert [task.task_id for task in found.tasks] == [B, A]
    assert MessageToDict(found.tasks[1], preserving_proto_field_name=True) == {
        "task_id": A,
        "title": "Tidy it",
        "description": "Split it up",
        "task_type": "research",
        "priority": "PRIORITY_P0",
        "payload": {"repo_path": "/srv/app", "limit": 3.0},
        "depends_on": [B],
        "not_before_time": "2026-02-01T12:00:00Z",
    }
    assert not found.tasks[0].HasField("payload")


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"description": None, "prd_content": "The whole story"}, "description", "The whole story"),
        ({"description": "Short", "prd_content": "The whole story"}, "description", "Short"),
        ({"priority": None}, "priority", pb.PRIORITY_P1),
        ({"priority": "P2"}, "priority", pb.PRIORITY_P2),
        ({"priority": "P3"}, "priority", pb.PRIORITY_P2),
        ({"task_type": None}, "task_type", ""),
    ],
)
def test_columns_with_a_choice(fields: dict[str, Any], name: str, value: object) -> None:
    assert getattr(converted(row(**fields)).tasks[0], name) == value


def test_a_time_with_a_zone_is_that_time() -> None:
    task = converted(row(payload={"next_run_at": "2026-02-01T12:00:00+08:00"})).tasks[0]
    assert task.not_before_time.ToJsonString() == "2026-02-01T04:00:00Z"


def test_only_the_named_statuses_come_along_and_the_others_are_counted() -> None:
    rows = [row(A), row(B, status="in_progress"), row(C, status="failed"), row(D, status="failed")]
    assert [task.task_id for task in converted(*rows).tasks] == [A]
    assert converted(*rows).other_statuses == {"in_progress": 1, "failed": 2}
    assert {task.task_id for task in converted(*rows, statuses=("queued", "in_progress")).tasks} == {A, B}


@pytest.mark.parametrize("status", ["completed", "completed_no_pr"])
def test_a_prerequisite_that_has_completed_is_met(status: str) -> None:
    # Whichever row comes first.
    for rows in (
        [row(A, payload={"depends_on": [B]}), row(B, status=status)],
        [row(B, status=status), row(A, payload={"depends_on": [B]})],
    ):
        assert [list(task.depends_on) for task in converted(*rows).tasks] == [[]]


def test_what_waits_for_a_task_that_stays_behind_stays_behind_too() -> None:
    found = converted(row(A, payload={"depends_on": [B]}), row(B, payload={"depends_on": [C]}), row(C, status="failed"), row(D))
    assert [task.task_id for task in found.tasks] == [D]
    assert found.unmet == {B: C, A: B}


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([row(id="7")], "row 0.id is '7'; must be a UUID"),
        ([row(), row()], "row 1.id is"),
        ([row(), row(B, payload=[1])], "row 1.payload is"),
        ([row(payload={"depends_on": B})], "row 0.payload.depends_on is"),
        ([row(payload={"depends_on": ["soon"]})], "row 0.payload.depends_on is 'soon'; must be a UUID"),
        ([row(payload={"next_run_at": "soon"})], "row 0.payload.next_run_at is 'soon'"),
        ([row(title=7)], "row 0.title is 7; must be a text"),
        ([row(A, payload={"depends_on": [B]}), row(B, payload={"depends_on": [A]})], "in a circle"),
    ],
)
def test_a_row_that_will_not_do_is_named(rows: list[dict[str, Any]], word: str) -> None:
    with pytest.raises(Failure) as caught:
        converted(*rows)
    assert word in caught.value.why


@pytest.mark.parametrize(("text", "word"), [("{}", "no list"), ("[1]", "no list"), ("[", "no JSON")])
def test_a_file_that_is_none(text: str, word: str) -> None:
    with pytest.raises(Failure) as caught:
        read_rows(text, "rows.json")
    assert word in caught.value.why


def test_no_rows_at_all() -> None:
    assert read_rows("null", "rows.json") == []
    assert batches(()) == []


def test_batches_are_bounded_and_the_same_each_time() -> None:
    many = [pb.TaskSpec(task_id=str(n), title="Tidy it") for n in range(BATCH_TASKS + 1)]
    assert [len(batch.tasks) for batch in batches(many)] == [BATCH_TASKS, 1]
    large = [pb.TaskSpec(task_id=str(n), title="Tidy it", description="x" * (BATCH_BYTES // 3)) for n in range(4)]
    assert [len(batch.tasks) for batch in batches(large)] == [2, 2]
    assert [batch.request_id for batch in batches(many)] == [batch.request_id for batch in batches(many)]
    assert len({batch.request_id for batch in batches(many)}) == 2
