"""dispatchctl against both services: what is on standard output in which format, exit statuses, and the form of errors."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cecelia.executor.v1 import executor_service_pb2 as executor_pb
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from dispatchctl.__main__ import main
from tests.acceptance.programs import DESCRIPTION, Pair

Capture = pytest.CaptureFixture[str]
NO_SUCH = "123e4567-e89b-12d3-a456-426614174000"
DEADLINE_S = 60
SAMPLES = Path(__file__).parents[2] / "deploy" / "examples" / "tasks.json"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both services on an embedded database of their own, for all tests of this file."""
    with asyncio.Runner() as runner:
        made = Pair(tmp_path_factory.mktemp("pair"), "", LEASE_TTL_MS="60000")
        runner.run(made.start())
        try:
            yield made
        finally:
            runner.run(made.stop())


@pytest.fixture(autouse=True)
def settings(running: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCH_ADDRESS", f"127.0.0.1:{running.scheduler.port}")
    monkeypatch.setenv("EXECUTOR_GRPC_ADDRESS", f"127.0.0.1:{running.executor.port}")
    monkeypatch.setenv("DISPATCH_DATA_DIR", str(running.folder / "scheduler"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(running.folder))
    monkeypatch.delenv("DATABASE_URL", raising=False)


@pytest.fixture(scope="module")
def finished(running: Pair) -> pb.Task:
    """A task that has run to its end."""
    done = cli(
        "submit",
        "--title",
        "Tidy the importer",
        "--description",
        DESCRIPTION,
        "--wait",
        "--max-hold",
        "60s",
        "-o",
        "json",
        pair=running,
    )
    return ParseDict(json.loads(done.stdout), pb.Task())


def cli(*words: str, pair: Pair | None = None, status: int = 0) -> subprocess.CompletedProcess[str]:
    """The program itself, as a shell calls it."""
    environ = dict(os.environ)
    if pair is not None:
        environ |= {
            "DISPATCH_ADDRESS": f"127.0.0.1:{pair.scheduler.port}",
            "EXECUTOR_GRPC_ADDRESS": f"127.0.0.1:{pair.executor.port}",
        }
    call = [sys.executable, "-m", "dispatchctl", *words]
    done = subprocess.run(call, capture_output=True, text=True, timeout=DEADLINE_S, env=environ, check=False)
    assert done.returncode == status, done.stderr
    return done


def queued(capsys: Capture, *words: str) -> str:
    """A task that waits; its id."""
    line = ["submit", "--title", "Tidy it later", "--description", DESCRIPTION, "--not-before", "+1h", "-o", "name", *words]
    assert main(line) == 0
    return capsys.readouterr().out.strip()


def assert_three_lines(err: str, code: str) -> None:
    """What, why with the reason code, what to do; the why says more than the what."""
    lines = err.splitlines()[-3:]
    assert [line[:7] for line in lines] == ["error: ", "  why: ", "   do: "], err
    what, why = lines[0][7:], lines[1][7:]
    assert why.startswith(f"{code}: "), err
    assert what.casefold() not in why.casefold(), err
    assert len(lines[2]) > len("   do: "), err


# --- formats

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
    ("logs {task}", executor_pb.StreamRunLogsResponse),
    ("tick", pb.RunTickResponse),
]
WRITING: list[tuple[str, type[Message]]] = [
    ("submit --title 'Tidy the importer' --not-before +1h", pb.Task),
    ("edit {queued} --priority p0", pb.Task),
    ("cancel {queued} --yes", pb.Task),
    ("requeue {cancelled}", pb.Task),
    ("reset cecelia-run --reason test", pb.ResetBreakerResponse),
    ("drain off", pb.SetDrainResponse),
    ("billing clear", pb.ClearBillingPauseResponse),
    ("billing pause --for 5s --backend hk-minimax", pb.SetBillingPauseResponse),
    ("cap 1000", pb.SetBudgetCapResponse),
    ("cap off", pb.SetBudgetCapResponse),
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


@pytest.mark.parametrize(("line", "kind"), READING)
def test_each_other_format_is_as_its_name_says(finished: pb.Task, capsys: Capture, line: str, kind: type[Message]) -> None:
    words = words_of(line, finished, capsys)
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


# --- exit statuses and errors


def test_0_done_and_7_for_a_task_that_failed_at_once(capsys: Capture) -> None:
    line = ["submit", "--title", "Tidy the importer", "--description", DESCRIPTION]
    assert main([*line, "--not-before", "+1h"]) == 0
    capsys.readouterr()
    assert main([*line, "--depends-on", NO_SUCH]) == 7
    out, err = capsys.readouterr()
    assert "dependency_failed" in out
    assert_three_lines(err, "dependency_failed")


def test_1_failed_where_a_question_is_answered_by_no(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatchctl.session.Session.may_ask", True)
    monkeypatch.setattr("click.confirm", lambda *_args, **_more: False)
    assert main(["cancel", NO_SUCH]) == 1
    assert_three_lines(capsys.readouterr().err, "declined")


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        ("stats --bogus", 2, "usage"),
        ("nonsense", 2, "usage"),
        ("stats --timeout 0", 2, "usage"),
        ("stats --timeout soon", 2, "usage"),
        ("stats --watch -o json", 2, "usage"),
        ("trip hk-minimax --for 99999999999999d", 2, "usage"),
        ("trip hk-minimax --for 0s", 2, "usage"),
        ("trip hk-minimax --for 1000d", 2, "INVALID_ARGUMENT"),
        ("billing pause --until 2020-01-01T00:00:00Z", 2, "INVALID_ARGUMENT"),
        ("billing pause --for 1h --backend nonsense", 2, "INVALID_ARGUMENT"),
        ("submit --title ''", 2, "INVALID_ARGUMENT"),
        ("submit --title 'Tidy it' --timeout 8d", 2, "INVALID_ARGUMENT"),
        ("submit --title 'Tidy it' --depends-on nonsense", 2, "INVALID_ARGUMENT"),
        ("submit -f /nonexistent", 2, "not_found"),
        ("tasks --page-token nonsense", 2, "INVALID_ARGUMENT"),
        ("task nonsense", 2, "INVALID_ARGUMENT"),
        (f"cancel {NO_SUCH}", 2, "confirmation_required"),
        (f"task {NO_SUCH}", 3, "TASK_NOT_FOUND"),
        (f"task {NO_SUCH} --watch", 3, "TASK_NOT_FOUND"),
        (f"explain {NO_SUCH}", 3, "TASK_NOT_FOUND"),
        (f"edit {NO_SUCH} --priority p0", 3, "TASK_NOT_FOUND"),
        (f"cancel {NO_SUCH} --yes", 3, "TASK_NOT_FOUND"),
        (f"logs {NO_SUCH}", 3, "RUN_NOT_FOUND"),
        (f"run {NO_SUCH}", 3, "RUN_NOT_FOUND"),
        ("reset nonsense", 3, "BREAKER_NOT_FOUND"),
        ("breakers nonsense", 3, "BREAKER_NOT_FOUND"),
        ("psql --data-dir /nonexistent", 3, "not_found"),
        ("stats --address 127.0.0.1:1", 4, "UNAVAILABLE"),
        ("events -f --address 127.0.0.1:1", 4, "UNAVAILABLE"),
        ("runs --executor 127.0.0.1:1", 4, "UNAVAILABLE"),
        ("stats --address {executor}", 4, "UNIMPLEMENTED"),
        ("events --address {executor}", 4, "UNIMPLEMENTED"),
        ("runs --executor {scheduler}", 4, "UNIMPLEMENTED"),
        ("requeue {task}", 5, "TASK_ENDED"),
        ("cancel {task} --yes", 5, "TASK_ENDED"),
        ("edit {task} --priority p0", 5, "TASK_NOT_QUEUED"),
    ],
)
def test_refusals_are_three_lines_and_a_status(
    finished: pb.Task, running: Pair, capsys: Capture, line: str, status: int, code: str
) -> None:
    executor, scheduler = (f"127.0.0.1:{program.port}" for program in (running.executor, running.scheduler))
    assert main(shlex.split(line.format(task=finished.id, executor=executor, scheduler=scheduler))) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert_three_lines(err, code)


def test_5_for_a_request_id_that_is_used_for_something_else(capsys: Capture) -> None:
    assert main(["submit", "--title", "Tidy the importer", "--not-before", "+1h", "--request-id", "one"]) == 0
    capsys.readouterr()
    assert main(["submit", "--title", "Tidy the exporter", "--request-id", "one"]) == 5
    err = capsys.readouterr().err
    assert_three_lines(err, "REQUEST_ID_REUSED")
    assert "--request-id" in err.splitlines()[2]


def test_6_held_only_while_something_waits(capsys: Capture) -> None:
    assert main(["drain", "on", "--reason", "test"]) == 0
    try:
        line = ["submit", "--title", "Tidy the importer", "--description", DESCRIPTION, "--wait", "--max-hold", "0s"]
        capsys.readouterr()
        assert main([*line, "-o", "name"]) == 6
        out, err = capsys.readouterr()
        assert_three_lines(err, "draining")
        assert main(["explain", out.strip()]) == 6
        assert main(["explain", "-o", "name"]) == 6
        capsys.readouterr()
    finally:
        assert main(["drain", "off"]) == 0
    assert main(["task", out.strip(), "--watch"]) == 0
    assert main(["explain", out.strip()]) == 0


def test_7_when_one_of_a_batch_fails(running: Pair, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "tasks.json"
    tasks: list[dict[str, Any]] = [{"task_id": name, "title": f"Task {name}", "description": DESCRIPTION} for name in "ab"]
    file.write_text(json.dumps(tasks), encoding="utf-8")
    waiting = ["submit", "-f", str(file), "--wait", "--max-hold", "60s", "-o", "json"]
    assert main(waiting) == 0
    stored = json.loads(capsys.readouterr().out)["tasks"]
    assert [task["status"] for task in stored] == ["TASK_STATUS_COMPLETED"] * 2
    tasks[0]["title"] = "TODO"
    tasks[1]["depends_on"] = ["a"]
    file.write_text(json.dumps(tasks), encoding="utf-8")
    assert main(waiting) == 7
    out, err = capsys.readouterr()
    statuses = [task["status"] for task in json.loads(out)["tasks"]]
    assert statuses == ["TASK_STATUS_QUARANTINED", "TASK_STATUS_QUEUED"]
    assert_three_lines(err, "pre_flight_check_failed")


@pytest.mark.parametrize(
    "line", ["events -f --after 0 -o jsonl", "stats --watch 100ms -o jsonl", "status --watch=100ms", "explain --watch 100ms"]
)
def test_130_for_ctrl_c_and_no_more_words(finished: pb.Task, line: str) -> None:
    call = [sys.executable, "-m", "dispatchctl", *line.split()]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err.strip()) == (130, "")


# --- bad input


def test_what_others_wrote_does_not_steer_the_terminal(capsys: Capture) -> None:
    title = "Tidy\x1b[31m the\u202e importer\x07"
    id_ = queued(capsys, "--title", title)
    for line in (
        ["tasks", "-n", "1"],
        ["task", id_, "-o", "wide"],
        ["cancel", id_, "--yes", "--reason", "\x1b[2J"],
        ["task", id_],
    ):
        assert main(line) == 0
        out, err = capsys.readouterr()
        assert not {"\x1b", "\x07", "\u202e"} & set(out), line
        assert not {"\x1b", "\x07", "\u202e"} & set(err), line
    assert main(["task", id_, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == title


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--title", "x" * 501], "INVALID_ARGUMENT"),
        (["--title", "Tidy it", "--skill", "x" * 65], "INVALID_ARGUMENT"),
        (["--title", "Tidy it", "--skill", "no blanks"], "INVALID_ARGUMENT"),
        (["--title", "Tidy it", "--request-id", "x" * 129], "INVALID_ARGUMENT"),
        (["--title", "Tidy it", "--payload", '{"a":' * 20 + "1" + "}" * 20], "INVALID_ARGUMENT"),
        (["--title", "Tidy it", "--payload", '{"a":' * 40 + "1" + "}" * 40], "usage"),
        (["--title", "Tidy it", "--payload", '{"a":' * 900 + "1" + "}" * 900], "usage"),
        (["--title", "Tidy it", "--payload", '{"a": "\\ud800"}'], "usage"),
        (["--title", "Tidy it", "--payload", "{"], "usage"),
        (["--title", "Tidy \udcff it"], "usage"),
        (["--title", "Tidy it", "--max-tries", "101"], "usage"),
        (["--title", "Tidy it", "--not-before", "tomorrow"], "usage"),
        (["--title", "Tidy it", "--not-before", "+1000000d"], "usage"),
        (["-f", str(SAMPLES), "--title", "Tidy it"], "usage"),
    ],
)
def test_bad_values_are_usage_errors(capsys: Capture, words: list[str], code: str) -> None:
    assert main(["submit", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert_three_lines(err, code)
    assert max(map(len, err.splitlines())) < 400, err


def test_a_file_that_is_no_utf_8_is_named(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "tasks.json").write_bytes(b'[{"title": "\xff"}]')
    for words in (["-f"], ["--title", "Tidy it", "--description-file"]):
        assert main(["submit", *words, str(tmp_path / "tasks.json")]) == 2
        err = capsys.readouterr().err
        assert_three_lines(err, "bad_text")
        assert "tasks.json" in err


# --- overrides say who, why, since and until


def test_cancelling_twice_says_that_nothing_has_changed(capsys: Capture) -> None:
    id_ = queued(capsys)
    assert main(["cancel", id_, "--yes", "--reason", "wrong branch"]) == 0
    assert "wrong branch" in capsys.readouterr().err
    assert main(["cancel", id_, "--yes", "--reason", "again"]) == 0
    err = capsys.readouterr().err
    assert err == "it was cancelled already: nothing has changed\n"


def test_what_is_in_force_says_who_why_since_and_until(capsys: Capture) -> None:
    assert main(["trip", "hk-minimax", "--for", "10m", "--reason", "maintenance"]) == 0
    assert main(["billing", "pause", "--backend", "hk-minimax", "--for", "1h", "--reason", "quota"]) == 0
    assert main(["billing", "pause", "--backend", "hk-minimax", "--for", "1m", "--reason", "quota"]) == 0
    assert "a longer pause is in force already" in capsys.readouterr().err
    assert main(["cap", "2", "--reason", "a demonstration"]) == 0
    assert main(["status"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("override ")]
    assert [line.split()[1] for line in lines] == ["billing_pause", "budget_cap", "breaker_tripped"]
    for line, reason in zip(lines, ("quota", "a demonstration", "maintenance"), strict=True):
        assert ", since 20" in line
        assert line.endswith(f", {reason}")
        assert "until ended by hand" in line if "budget_cap" in line else ", until 20" in line
    for words in (["reset", "hk-minimax"], ["billing", "clear", "--backend", "hk-minimax"], ["cap", "off"]):
        assert main(words) == 0
    capsys.readouterr()
    assert main(["status"]) == 0
    assert "override" not in capsys.readouterr().out


# --- psql


def test_psql_reads_and_the_database_refuses_to_write(finished: pb.Task) -> None:
    query = "SELECT value_json FROM working_memory WHERE key = 'dispatch_stats'"
    found = json.loads(cli("psql", "-c", query, "--", "--csv", "-At").stdout.strip().strip('"').replace('""', '"'))
    assert found["window_1h"]["success"] >= 1
    assert "read-only transaction" in cli("psql", "-c", "DELETE FROM tasks", status=1).stderr
    attempt = cli("psql", "-c", "SET default_transaction_read_only = off", "-c", "DELETE FROM tasks", status=1)
    assert "permission denied" in attempt.stderr


def test_psql_tells_other_programs_how_to_connect(finished: pb.Task, running: Pair) -> None:
    file = running.folder / "scheduler" / "pg_service.conf"
    assert file.stat().st_mode & 0o777 == 0o600
    exports = cli("psql", "--env").stdout
    assert exports == f"export PGSERVICEFILE={file}\nexport PGSERVICE=cecelia\n"
    program = "import psycopg; print(psycopg.connect('').execute('SELECT current_user').fetchone()[0])"
    call = ["sh", "-c", f"{exports}exec {sys.executable} -c {shlex.quote(program)}"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert done.stdout == "cecelia_reader\n"


def test_psql_says_when_nothing_answers(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "pg_service.conf").write_text("[cecelia]\nhost=127.0.0.1\nport=1\n", encoding="utf-8")
    assert main(["psql", "--data-dir", str(tmp_path)]) == 4
    assert_three_lines(capsys.readouterr().err, "unreachable")
    (tmp_path / "pg_service.conf").write_text("[cecelia\n", encoding="utf-8")
    assert main(["psql", "--data-dir", str(tmp_path)]) == 1
    assert_three_lines(capsys.readouterr().err, "unreadable")
