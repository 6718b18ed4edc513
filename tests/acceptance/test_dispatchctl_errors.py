"""dispatchctl against both services: exit statuses, the form of errors, bad input, and what is said of overrides."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.__main__ import main
from tests.acceptance.command_line import DEADLINE_S, NO_SUCH, Capture, assert_three_lines, queued
from tests.acceptance.programs import DESCRIPTION, Pair

pytestmark = pytest.mark.usefixtures("at_the_pair")
SAMPLES = Path(__file__).parents[2] / "deploy" / "examples" / "tasks.json"


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
        ("events --type nosuch -n 1 --timeout 2s", 2, "INVALID_ARGUMENT"),
        ("events -f --type nosuch -n 1 --timeout 2s", 2, "INVALID_ARGUMENT"),
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


def test_5_for_the_output_of_a_task_without_a_run(capsys: Capture) -> None:
    assert main(["submit", "--title", "Tidy the importer", "--not-before", "+1h", "-o", "name"]) == 0
    task_id = capsys.readouterr().out.strip()
    assert main(["logs", task_id]) == 5
    err = capsys.readouterr().err
    assert_three_lines(err, "TASK_NOT_STARTED")
    assert f"dispatchctl logs -f {task_id}" in err.splitlines()[2]


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
        try:
            _out, err = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
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
