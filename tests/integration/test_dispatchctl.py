"""dispatchctl as its callers see it: exit statuses, what is on which stream, the form of errors, the shapes of JSON."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.__main__ import main
from dispatchctl.cli import cli
from tests.fakes.fake_scheduler import FakeScheduler, serving

ROOT = Path(__file__).parents[2]
TASK = "123e4567-e89b-12d3-a456-426614174000"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeScheduler]:
    fake = FakeScheduler()
    with serving(fake) as address:
        monkeypatch.setenv("DISPATCH_ADDRESS", address)
        yield fake


def unused_address() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


def assert_three_lines(text: str, code: str) -> None:
    lines = text.splitlines()
    assert [line[:7] for line in lines] == ["error: ", "  why: ", "   do: "], text
    assert code in lines[1]


def test_submit_sends_every_option(scheduler: FakeScheduler, capsys: Capture) -> None:
    words = ["submit", "--title", "Tidy the importer", "--description", "Split it by table.", "--type", "review"]
    words += ["--priority", "p0", "--skill", "review", "--payload", '{"branch": "main"}', "--depends-on", TASK]
    words += ["--dependency-policy", "wait"]
    words += ["--max-tries", "2", "--timeout", "5m", "--not-before", "2030-01-31T08:00:00Z", "--id", TASK]
    assert main([*words, "--request-id", "r1", "-o", "name"]) == 0
    request = scheduler.requests[0]
    assert request.request_id == "r1"
    spec = request.task
    assert (spec.task_id, spec.title, spec.task_type, spec.skill) == (TASK, "Tidy the importer", "review", "review")
    assert (spec.priority, spec.max_tries, list(spec.depends_on)) == (pb.PRIORITY_P0, 2, [TASK])
    assert spec.dependency_policy == pb.DEPENDENCY_POLICY_WAIT
    assert spec.payload["branch"] == "main"
    assert spec.timeout.seconds == 300
    assert spec.not_before_time.ToJsonString() == "2030-01-31T08:00:00Z"
    assert capsys.readouterr().out == f"{TASK}\n"


def test_each_submission_has_a_request_id_of_its_own(scheduler: FakeScheduler) -> None:
    for _ in range(2):
        assert main(["submit", "--title", "Tidy the importer"]) == 0
    first, second = scheduler.requests
    assert first.request_id
    assert first.request_id != second.request_id


def test_submit_reads_the_description_from_a_file(scheduler: FakeScheduler, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("Über alles\n", encoding="utf-8")
    assert main(["submit", "--title", "Tidy the importer", "--description-file", str(tmp_path / "prompt")]) == 0
    assert scheduler.requests[0].task.description == "Über alles\n"


def test_a_batch_maps_names_in_dependencies_too(scheduler: FakeScheduler, capsys: Capture) -> None:
    assert main(["submit", "--file", str(ROOT / "deploy/examples/tasks.json"), "-o", "name"]) == 0
    request = scheduler.requests[0]
    ids = {spec.task_id for spec in request.tasks}
    dependent = [spec for spec in request.tasks if spec.depends_on]
    assert len(dependent) == 1
    assert set(dependent[0].depends_on) < ids
    assert capsys.readouterr().out.split() == [spec.task_id for spec in request.tasks]


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (pb.TASK_STATUS_COMPLETED, 0),
        (pb.TASK_STATUS_FAILED, 7),
        (pb.TASK_STATUS_QUARANTINED, 7),
        (pb.TASK_STATUS_CANCELLED, 7),
    ],
)
def test_wait_tells_how_the_task_ended(
    scheduler: FakeScheduler, capsys: Capture, ends: pb.TaskStatus.ValueType, status: int
) -> None:
    scheduler.life = [pb.Task(status=pb.TASK_STATUS_RUNNING, executor_id="vm"), pb.Task(status=ends)]
    assert main(["submit", "--title", "Tidy the importer", "--wait", "-o", "json"]) == status
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == pb.TaskStatus.Name(ends)
    assert "running on vm" in err


def test_wait_ends_with_6_at_a_gate(scheduler: FakeScheduler, capsys: Capture) -> None:
    scheduler.hold_until.clear()
    scheduler.explanation = pb.ExplainDispatchResponse(task_reason="draining", sentence="Drained by operator.")
    assert main(["submit", "--title", "Tidy the importer", "--wait", "--max-hold", "0s", "-o", "name"]) == 6
    scheduler.hold_until.set()
    out, err = capsys.readouterr()
    assert out.strip() in scheduler.tasks
    assert "why: draining: Drained by operator." in err


def test_wait_does_not_take_a_tasks_own_hold_for_a_gate(scheduler: FakeScheduler) -> None:
    scheduler.hold_until.clear()
    scheduler.explanation = pb.ExplainDispatchResponse(task_reason="not_before", sentence="It waits for its time.")
    scheduler.life = [pb.Task(status=pb.TASK_STATUS_COMPLETED)]
    scheduler.on_explain = scheduler.hold_until.set
    assert main(["submit", "--title", "Tidy the importer", "--wait", "--max-hold", "10ms"]) == 0
    assert any(isinstance(request, pb.ExplainDispatchRequest) for request in scheduler.requests)


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["task", TASK], 3, "task_not_found"),
        (["reset", "nonsense"], 3, "breaker_not_found"),
        (["tick"], 5, "not_leader"),
        (["submit", "--title", ""], 2, "task.title is empty"),
        (["stats", "--bogus"], 2, "usage"),
        (["stat"], 2, "usage"),
        (["submit"], 2, "usage"),
        (["submit", "--title", "Tidy it", "--payload", "[1]"], 2, "usage"),
        (["submit", "--title", "Tidy it", "--timeout", "soon"], 2, "usage"),
        (["submit", "--file", "/nonexistent"], 2, "not_found"),
        (["drain", "off", "--until-idle"], 2, "usage"),
        (["up", "--within", "3s"], 2, "usage"),
        (["up", "--once"], 2, "usage"),
        (["cancel", TASK], 2, "confirmation_required"),
        (["stats", "--address", "nowhere"], 2, "usage"),
        (["stats", "--address", unused_address()], 4, "UNAVAILABLE"),
    ],
)
def test_errors_are_three_lines_on_standard_error(
    scheduler: FakeScheduler, capsys: Capture, words: list[str], status: int, code: str
) -> None:
    assert main(words) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert_three_lines(err, code)


def test_a_scheduler_that_does_not_answer_is_given_up(scheduler: FakeScheduler, capsys: Capture) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert main(["--timeout", "200ms", "--address", address, "stats"]) == 4
    assert_three_lines(capsys.readouterr().err, "DEADLINE_EXCEEDED")


def test_a_flag_wins_over_the_environment_wherever_it_stands(scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    address = os.environ["DISPATCH_ADDRESS"]
    monkeypatch.setenv("DISPATCH_ADDRESS", unused_address())
    assert main(["--address", address, "stats"]) == 0
    assert main(["stats", "--address", address]) == 0


def test_json_has_proto_names_empty_fields_and_nothing_else(scheduler: FakeScheduler, capsys: Capture) -> None:
    scheduler.stats = pb.GetDispatchStatsResponse(
        window_1h=pb.DispatchWindow(total=2, success=1, failed=1, rate=0.5, failure_reasons={"draining": 1})
    )
    assert main(["stats", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["window_1h"]["failure_reasons"] == {"draining": "1"}
    assert found["window_1h"]["rate"] == 0.5
    assert found["attempts_by_backend"] == {}


def test_jsonl_is_an_object_a_line(scheduler: FakeScheduler, capsys: Capture) -> None:
    for title in ("Tidy the importer", "Tidy\nthe exporter"):
        scheduler._store(pb.TaskSpec(title=title))
    assert main(["tasks", "-o", "jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["title"] for line in lines] == ["Tidy the importer", "Tidy\nthe exporter"]


def test_a_table_is_plain_and_whole_where_a_program_reads(scheduler: FakeScheduler, capsys: Capture) -> None:
    title = "A title that is far longer than a terminal is wide " * 4 + "\x1b[31mred\x1b[0m"
    scheduler._store(pb.TaskSpec(title=title))
    assert main(["tasks"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert title[:200] in out


def test_status_and_tick_and_breakers_print(scheduler: FakeScheduler, capsys: Capture) -> None:
    assert main(["status"]) == 0
    assert "idle: Nothing waits." in capsys.readouterr().out
    assert main(["breakers", "-o", "name"]) == 0
    assert capsys.readouterr().out == "cecelia-run\n"


def test_reset_says_what_changed_and_why(scheduler: FakeScheduler, capsys: Capture) -> None:
    assert main(["reset", "cecelia-run", "--reason", "mended", "-o", "json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["before"]["state"], found["after"]["state"]) == ("BREAKER_STATE_OPEN", "BREAKER_STATE_CLOSED")
    assert "mended" in err
    request = scheduler.requests[0]
    assert (request.key, request.reason) == ("cecelia-run", "mended")
    assert re.fullmatch(r"[0-9a-f-]{36}", request.request_id)


def test_an_override_without_a_reason_and_a_person_has_a_default(scheduler: FakeScheduler) -> None:
    assert main(["drain", "on", "--until-idle", "--source", "deploy"]) == 0
    request = scheduler.requests[0]
    assert (request.enabled, request.until_idle, request.source) == (True, True, "deploy")
    assert request.reason == "no reason given"


def test_cancel_and_requeue(scheduler: FakeScheduler, capsys: Capture) -> None:
    task = scheduler._store(pb.TaskSpec(title="Tidy the importer"))
    assert main(["requeue", task.id]) == 5
    assert_three_lines(capsys.readouterr().err, "task_not_ended")
    assert main(["cancel", task.id, "--yes", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "TASK_STATUS_CANCELLED"
    assert main(["requeue", task.id, "--reason", "again"]) == 0
    assert scheduler.requests[-1].reason == "again"


def test_explain_is_6_only_while_a_gate_holds_something(scheduler: FakeScheduler, capsys: Capture) -> None:
    guard = pb.GuardVerdict(name="draining", holds=True, reason="draining", detail="by operator")
    scheduler.explanation = pb.ExplainDispatchResponse(guards=[guard], sentence="Drained by operator.")
    assert main(["explain"]) == 0, "a gate that holds nothing"
    scheduler.status.queue.add(priority=pb.PRIORITY_P1, status=pb.TASK_STATUS_RUNNING, tasks=2)
    assert main(["explain"]) == 0
    scheduler.status.queue.add(priority=pb.PRIORITY_P1, status=pb.TASK_STATUS_QUEUED, tasks=1)
    capsys.readouterr()
    assert main(["explain"]) == 6
    assert capsys.readouterr().out.startswith("Drained by operator.\n")
    assert main(["explain", "-o", "name"]) == 6
    assert capsys.readouterr().out == "draining\n"
    scheduler.explanation = pb.ExplainDispatchResponse(guards=[pb.GuardVerdict(name="draining")], sentence="Nothing waits.")
    assert main(["explain"]) == 0
    scheduler.explanation = pb.ExplainDispatchResponse(guards=[guard], would_dispatch=True, sentence="hk-minimax may go.")
    assert main(["explain"]) == 0


def test_explain_says_of_a_task_what_it_waits_for_and_until_when(scheduler: FakeScheduler, capsys: Capture) -> None:
    said = pb.ExplainDispatchResponse(sentence="It waits.", task_reason="dependency", queue_position=3)
    said.task_clears_time.FromDatetime(datetime(2026, 3, 1, 12, tzinfo=UTC))
    said.open_prerequisites.add(task_id=TASK, status=pb.TASK_STATUS_RUNNING)
    said.open_prerequisites.add(task_id="another")
    scheduler.explanation = said
    assert main(["explain", TASK]) == 6
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["It waits.", "place in the queue: 3"]
    assert lines[2].startswith("ends by itself: 2026-03-01T12:00:00.000+00:00 (")
    assert lines[3:5] == [f"waits for: {TASK} (running)", "waits for: another (does not exist)"]


def test_a_task_shows_its_dependencies_in_both_directions(scheduler: FakeScheduler, capsys: Capture) -> None:
    spec = pb.TaskSpec(title="Tidy the importer", depends_on=[TASK], dependency_policy=pb.DEPENDENCY_POLICY_WAIT)
    task = scheduler._store(spec)
    task.dependency_policy = spec.dependency_policy
    task.dependents.extend(["one", "two"])
    task.dependents_total = 102
    assert main(["task", task.id]) == 0
    out = capsys.readouterr().out
    assert f"depends on     {TASK}\n" in out
    assert "if they fail   waits\n" in out
    assert "dependents     one, two and 100 more\n" in out


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_help_leads_with_an_example_and_fits(capsys: Capture, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command, "-h"]) == 0
    out = capsys.readouterr().out
    assert out.index(f"dispatchctl {command}", 20) < out.index("Options:"), out
    assert max(len(line) for line in out.splitlines()) <= 80, out


def test_ctrl_c_ends_a_wait_with_130(scheduler: FakeScheduler) -> None:
    scheduler.hold_until.clear()
    words = [sys.executable, "-m", "dispatchctl", "submit", "--title", "Tidy the importer", "--wait"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("submitted ")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    scheduler.hold_until.set()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_the_readmes_python_client_runs(scheduler: FakeScheduler) -> None:
    snippet = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(snippet) == 1
    program = snippet[0].replace("127.0.0.1:50051", os.environ["DISPATCH_ADDRESS"])
    assert program != snippet[0]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert "BREAKER_STATE_CLOSED" in done.stdout
    assert [type(request).__name__ for request in scheduler.requests] == ["GetDispatchStatsRequest", "ResetBreakerRequest"]
