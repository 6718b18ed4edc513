"""Every rpc is reached by a command, and every call says who calls. A new rpc without a row here fails."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator

import pytest
from cecelia.executor.v1 import executor_service_pb2 as executor_pb
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.__main__ import main
from dispatchctl.call_failures import TRYING
from service_runtime.identity import ACTOR_METADATA, actor_of
from tests.fakes.any_service import AnyService, serving_any

SCHEDULER = pb.DESCRIPTOR.services_by_name["SchedulerService"]
EXECUTOR = executor_pb.DESCRIPTOR.services_by_name["ExecutorService"]
ID = "123e4567-e89b-12d3-a456-426614174000"
RUN = "123e4567-e89b-12d3-a456-426614174001"

COMMANDS = {
    "SubmitTask": ["submit", "--title", "Tidy the importer"],
    "SubmitTasks": ["submit", "-f", "deploy/examples/tasks.json"],
    "GetTask": ["task", ID],
    "ListTasks": ["tasks"],
    "WatchTask": ["task", ID, "--watch"],
    "StreamTaskLogs": ["logs", ID],
    "CancelTask": ["cancel", ID, "--yes"],
    "RequeueTask": ["requeue", ID],
    "CancelTasks": ["cancel", "--status", "queued", "--yes"],
    "RequeueTasks": ["requeue", "--all", "--yes"],
    "UpdateTask": ["edit", ID, "--priority", "p0"],
    "RunTick": ["tick"],
    "ExplainDispatch": ["explain"],
    "GetDispatchStats": ["stats"],
    "ListDispatchEvents": ["history"],
    "ListBreakers": ["breakers"],
    "GetBreaker": ["breakers", "cecelia-run"],
    "ResetBreaker": ["reset", "cecelia-run"],
    "TripBreaker": ["trip", "cecelia-run"],
    "SetDrain": ["drain", "on"],
    "SetBillingPause": ["billing", "pause", "--for", "1h"],
    "ClearBillingPause": ["billing", "clear"],
    "SetBudgetCap": ["cap", "2"],
    "ListSettings": ["settings"],
    "SetSetting": ["settings", "set", "OPEN_DURATION_MS", "10m"],
    "ResetSetting": ["settings", "reset", "OPEN_DURATION_MS"],
    "ListAuditEntries": ["audit"],
    "GetSlots": ["slots"],
    "GetStatus": ["status"],
    "WatchEvents": ["events"],
}
EXECUTOR_COMMANDS = {
    "CheckResources": ["resources"],
    "CheckAvailability": ["backends"],
    "ListRuns": ["runs"],
    "GetRun": ["run", ID],
    "StreamRunLogs": ["logs", RUN],
}
THE_SCHEDULERS_BUSINESS = {
    "DispatchTasks": "starts runs that no task owns: `submit` is the way, which counts slots and breakers",
    "CancelRun": "the task would be started again: `cancel` ends both",
    "WatchRuns": "the scheduler's stream of what it must record; `runs` and `events -f` are for people",
    "AcknowledgeRuns": "makes the executor forget an outcome that the scheduler may not have stored",
    "RenewLeases": "says which runs somebody owns, which a person does not",
}


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[AnyService]:
    ended = pb.Task(id=ID, status=pb.TASK_STATUS_COMPLETED, run_id=ID)
    answers = {
        "GetTask": [pb.GetTaskResponse(task=ended)],
        "WatchTask": [pb.WatchTaskResponse(task=ended)],
        "WatchEvents": [pb.WatchEventsResponse(event=pb.Event(id=1, type="drain_started"))],
    }
    handler = AnyService(SCHEDULER, EXECUTOR, answers=answers)
    with serving_any(handler) as address:
        monkeypatch.setenv("DISPATCH_ADDRESS", address)
        monkeypatch.setenv("EXECUTOR_GRPC_ADDRESS", address)
        handler.unknown_tasks.add(RUN)
        yield handler


def test_each_rpc_of_the_services_is_accounted_for() -> None:
    assert set(COMMANDS) == {method.name for method in SCHEDULER.methods}
    assert set(EXECUTOR_COMMANDS).isdisjoint(THE_SCHEDULERS_BUSINESS)
    assert {*EXECUTOR_COMMANDS, *THE_SCHEDULERS_BUSINESS} == {method.name for method in EXECUTOR.methods}


def test_each_rpc_that_a_command_calls_has_words_for_its_errors() -> None:
    assert set(TRYING) == {*COMMANDS, *EXECUTOR_COMMANDS}


@pytest.mark.parametrize("rpc", [*COMMANDS, *EXECUTOR_COMMANDS])
@pytest.mark.parametrize("output", ["table", "jsonl"])
def test_a_command_calls_it_and_says_who_calls(services: AnyService, rpc: str, output: str) -> None:
    assert main([*{**COMMANDS, **EXECUTOR_COMMANDS}[rpc], "-o", output]) == 0
    assert rpc in services.called
    actors = {actor_of(metadata.items(), "peer") for metadata in services.metadata}
    assert actors == {f"{getpass.getuser()}@{socket.gethostname()} (peer)"}
    assert all(ACTOR_METADATA in metadata for metadata in services.metadata)


def test_a_name_that_is_not_ascii_does_not_stop_a_call(services: AnyService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "jürgen")
    assert main(["stats"]) == 0
    assert services.metadata[0][ACTOR_METADATA].startswith("j?rgen@")


def test_edit_sends_what_was_named_and_nothing_else(services: AnyService) -> None:
    words = ["--title", "Tidy the exporter", "--payload", '{"branch": "main"}', "--not-before", "2030-01-31T08:00:00Z"]
    assert main(["edit", ID, *words, "--clear", "skill"]) == 0
    (request,) = services.requests
    assert isinstance(request, pb.UpdateTaskRequest)
    assert list(request.update_mask.paths) == ["title", "payload", "not_before_time", "skill"]
    assert (request.task.title, request.task.payload["branch"], request.task.skill) == ("Tidy the exporter", "main", "")
    assert request.task.not_before_time.ToJsonString() == "2030-01-31T08:00:00Z"
    assert request.request_id


@pytest.mark.parametrize("words", [[], ["--clear", "skill", "--skill", "x"], ["--clear", "title"]])
def test_edit_refuses_what_makes_no_sense(services: AnyService, words: list[str]) -> None:
    assert main(["edit", ID, *words]) == 2
    assert services.called == []


def test_a_cap_is_lifted_by_off(services: AnyService) -> None:
    assert main(["cap", "off"]) == 0
    (request,) = services.requests
    assert isinstance(request, pb.SetBudgetCapRequest)
    assert not request.HasField("slots")


@pytest.mark.parametrize("words", [["billing", "pause"], ["billing", "pause", "--for", "1h", "--until", "+1h"], ["cap", "0"]])
def test_overrides_that_say_too_little_or_too_much(services: AnyService, words: list[str]) -> None:
    assert main(words) == 2
    assert services.called == []


@pytest.mark.parametrize(
    "words",
    [
        ["reset", "k"],
        ["trip", "k"],
        ["drain", "on"],
        ["cap", "2"],
        ["requeue", ID],
        ["billing", "clear"],
        ["settings", "reset", "K"],
    ],
)
def test_an_empty_reason_is_refused(services: AnyService, words: list[str]) -> None:
    assert main([*words, "--reason", " "]) == 2
    assert services.called == []


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        (["--source", "night shift"], "dispatchctl drain off --source 'night shift'"),
        ([], "dispatchctl drain off"),
        (["--until-idle"], "nothing runs"),
    ],
)
def test_a_drain_says_what_ends_it(services: AnyService, capfd: pytest.CaptureFixture[str], words: list[str], ends: str) -> None:
    services._answers["SetDrain"] = [pb.SetDrainResponse(draining=True)]
    assert main(["drain", "on", "--reason", "r", *words]) == 0
    assert capfd.readouterr().err.endswith(f", until {ends}\n")


def test_logs_of_a_task_come_through_the_scheduler_and_a_runs_from_the_executor(
    services: AnyService, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    services._answers["StreamTaskLogs"] = [
        pb.StreamTaskLogsResponse(run_id=RUN, data=b"\x1b[31m"),
        pb.StreamTaskLogsResponse(run_id=RUN, offset=5, data=b"red\xff\n"),
    ]
    services._answers["StreamRunLogs"] = [executor_pb.StreamRunLogsResponse(data=b"of the run\n")]
    assert main(["logs", ID]) == 0
    assert capfdbinary.readouterr().out == b"\x1b[31mred\xff\n", "byte for byte where a program reads"
    assert main(["logs", ID, "-o", "name"]) == 0
    assert capfdbinary.readouterr().out == f"{RUN}\n".encode()
    assert main(["logs", RUN]) == 0
    assert capfdbinary.readouterr().out == b"of the run\n"


def test_output_that_was_not_kept_is_noted(services: AnyService, capfd: pytest.CaptureFixture[str]) -> None:
    pieces = [pb.StreamTaskLogsResponse(data=b"head\n"), pb.StreamTaskLogsResponse(offset=105, data=b"tail\n")]
    services._answers["StreamTaskLogs"] = pieces
    assert main(["logs", ID, "--tail", "200"]) == 0
    out, err = capfd.readouterr()
    assert out == "head\ntail\n"
    assert err == "100 bytes of the output, from byte 5 on, were not kept\n"
    assert services.requests[-1] == pb.StreamTaskLogsRequest(task_id=ID, tail_bytes=200)
