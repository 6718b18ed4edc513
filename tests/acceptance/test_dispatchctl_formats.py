"""dispatchctl against both services: what is on standard output in which format."""

from __future__ import annotations

import json
import shlex

import pytest
from cecelia.executor.v1 import executor_service_pb2 as executor_pb
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from dispatchctl.__main__ import main
from dispatchctl.cli import cli as root
from tests.acceptance.command_line import Capture, cli, queued
from tests.acceptance.programs import DESCRIPTION, Pair

pytestmark = pytest.mark.usefixtures("at_the_pair")

READING: list[tuple[str, type[Message]]] = [
    ("status", pb.GetStatusResponse),
    ("stats", pb.GetDispatchStatsResponse),
    ("slots", pb.GetSlotsResponse),
    ("explain", pb.ExplainDispatchResponse),
    ("history -n 3", pb.ListDispatchEventsResponse),
    ("tasks -n 3", pb.ListTasksResponse),
    ("task {task}", pb.Task),
    ("explain {task}", pb.ExplainDispatchResponse),
    ("breakers", pb.ListBreakersResponse),
    ("breakers cecelia-run", pb.Breaker),
    ("runs", executor_pb.ListRunsResponse),
    ("run {run}", executor_pb.Run),
    ("resources", executor_pb.CheckResourcesResponse),
    ("backends", executor_pb.CheckAvailabilityResponse),
    ("logs {task}", pb.StreamTaskLogsResponse),
    ("logs {run}", executor_pb.StreamRunLogsResponse),
    ("tick", pb.RunTickResponse),
    ("settings", pb.ListSettingsResponse),
    ("settings get WINDOW_MS", pb.Setting),
    ("audit -n 3", pb.ListAuditEntriesResponse),
]
WRITING: list[tuple[str, type[Message]]] = [
    ("submit --title 'Tidy the importer' --not-before +1h", pb.Task),
    ("edit {queued} --priority p0", pb.Task),
    ("cancel {queued} --yes", pb.Task),
    ("requeue {cancelled}", pb.Task),
    ("reset cecelia-run --reason test", pb.ResetBreakerResponse),
    ("trip cecelia-run --for 1ms --reason test", pb.TripBreakerResponse),
    ("reset cecelia-run", pb.ResetBreakerResponse),
    ("drain off", pb.SetDrainResponse),
    ("billing clear", pb.ClearBillingPauseResponse),
    ("billing pause --for 5s --backend hk-minimax", pb.SetBillingPauseResponse),
    ("cap 1000", pb.SetBudgetCapResponse),
    ("cap off", pb.SetBudgetCapResponse),
    ("settings set DISPATCH_MIN_SAMPLE 11 --reason test", pb.SetSettingResponse),
    ("settings reset DISPATCH_MIN_SAMPLE", pb.ResetSettingResponse),
]
# While the machine is busy a gate holds what waits, which is as good an answer.
ANSWERED = (0, 6)


def words_of(line: str, task: pb.Task, capsys: Capture) -> list[str]:
    id_ = queued(capsys) if "{queued}" in line or "{cancelled}" in line else ""
    if "{cancelled}" in line:
        assert main(["cancel", id_, "--yes"]) == 0
        capsys.readouterr()
    return shlex.split(line.format(task=task.id, run=task.run_id, queued=id_, cancelled=id_))


@pytest.mark.parametrize(("line", "kind"), [*READING, *WRITING])
def test_json_is_one_document_under_proto_field_names(finished: pb.Task, capsys: Capture, line: str, kind: type[Message]) -> None:
    assert main([*words_of(line, finished, capsys), "-o", "json"]) in ANSWERED
    found = json.loads(capsys.readouterr().out)
    again = MessageToDict(ParseDict(found, kind()), preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    assert found == again


def test_each_command_that_prints_data_is_listed_here() -> None:
    listed = {line.split()[0] for line, _ in [*READING, *WRITING]}
    assert {*listed, "events", "up", "psql", "top", "doctor", "completion", "import-original"} == set(root.commands)


@pytest.mark.parametrize(("line", "kind"), WRITING)
def test_what_an_override_prints_besides_goes_to_standard_error(
    finished: pb.Task, capsys: Capture, line: str, kind: type[Message]
) -> None:
    assert main([*words_of(line, finished, capsys), "-o", "jsonl"]) == 0
    assert all(isinstance(json.loads(one), dict) for one in capsys.readouterr().out.splitlines())
    assert main([*words_of(line, finished, capsys), "-o", "name"]) == 0
    assert all(len(one.split()) == 1 for one in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(("line", "kind"), READING)
def test_each_other_format_is_as_its_name_says(finished: pb.Task, capsys: Capture, line: str, kind: type[Message]) -> None:
    words = words_of(line, finished, capsys)
    # So that the audit log has something.
    assert main(["cap", "off"]) == 0
    capsys.readouterr()
    if words[0] != "tick":
        assert main([*words, "-o", "jsonl"]) in ANSWERED
        lines = capsys.readouterr().out.splitlines()
        assert lines
        assert all(isinstance(json.loads(one), dict) for one in lines)
    assert main([*words, "-o", "name"]) in ANSWERED
    assert all(len(one.split()) == 1 for one in capsys.readouterr().out.splitlines())
    for output in ("table", "wide"):
        assert main([*words, "-o", output]) in ANSWERED
        out = capsys.readouterr().out
        assert out.strip()
        assert "\x1b" not in out


def test_events_are_one_document_or_a_line_each(finished: pb.Task, capsys: Capture) -> None:
    assert main(["events", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["events"]
    of_task = [event for event in document["events"] if event["payload"].get("task_id") == finished.id]
    assert [event["type"] for event in of_task] == ["task_dispatched", "task_completed"]
    assert main(["events", "-o", "jsonl"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == document["events"]
    assert main(["events", "--type", "task_completed", "-n", "1", "-o", "name"]) == 0
    newest = [event["id"] for event in document["events"] if event["type"] == "task_completed"][-1]
    assert capsys.readouterr().out.split() == [newest]
    assert main(["events", "--after", document["events"][0]["id"], "-n", "1", "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == [document["events"][1]["id"]]
    assert main(["events", "--after", "1000000"]) == 0
    assert capsys.readouterr().out == ""


def test_events_are_followed_from_where_it_is_said(finished: pb.Task, capsys: Capture) -> None:
    assert main(["events", "-f", "--after", "0", "-n", "2", "-o", "jsonl"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["events", "-f", "-o", "json"]) == 2


def test_logs_are_what_the_run_wrote(finished: pb.Task, running: Pair) -> None:
    said = cli("logs", finished.id, pair=running).stdout
    assert said == f"Tidy the importer\n\n{DESCRIPTION}" == cli("logs", finished.run_id, "-f", pair=running).stdout
    assert cli("logs", finished.id, "--offset", "5", pair=running).stdout == said[5:]
    assert cli("logs", finished.id, "--tail", "5", pair=running).stdout == said[-5:]
