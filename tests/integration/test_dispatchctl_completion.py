"""Completion in real shells: what they offer for what has been typed, and that a scheduler which is away costs nothing but that."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl import completion
from dispatchctl.__main__ import main
from tests.fakes.fake_scheduler import FakeScheduler, serving

PROGRAM = Path(sys.executable).with_name("dispatchctl")
DEADLINE_S = 60
TASK = "123e4567-e89b-12d3-a456-426614174000"
OTHER = "223e4567-e89b-12d3-a456-426614174000"
Capture = pytest.CaptureFixture[str]


class Scheduler(FakeScheduler):
    """Filters by status, and has two settings."""

    def ListTasks(self, request: pb.ListTasksRequest, context: grpc.ServicerContext) -> pb.ListTasksResponse:
        found = [task for task in self.tasks.values() if not request.statuses or task.status in request.statuses]
        return pb.ListTasksResponse(tasks=found)

    def ListSettings(self, request: pb.ListSettingsRequest, context: grpc.ServicerContext) -> pb.ListSettingsResponse:
        return pb.ListSettingsResponse(settings=[pb.Setting(name=name, value="1") for name in ("WINDOW_MS", "TICK_INTERVAL_MS")])


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    fake = Scheduler()
    fake._store(pb.TaskSpec(task_id=TASK, title="Tidy\tit, \x1b[2J now\nand then"))
    fake._store(pb.TaskSpec(task_id=OTHER, title="Failed")).status = pb.TASK_STATUS_FAILED
    with serving(fake) as address:
        monkeypatch.setenv("DISPATCH_ADDRESS", address)
        yield fake


def offered(typed: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> list[str]:
    """What the program tells a shell for a line whose last word is being typed."""
    words = typed.split(" ")
    monkeypatch.setenv("_DISPATCHCTL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    assert main([]) == 0
    return [line.removeprefix("plain,") for line in capsys.readouterr().out.splitlines() if line]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("dispatchctl task ", [TASK, OTHER]),
        ("dispatchctl task 2", [OTHER]),
        ("dispatchctl explain ", [TASK, OTHER]),
        ("dispatchctl logs ", [TASK, OTHER]),
        ("dispatchctl cancel ", [TASK]),
        ("dispatchctl edit ", [TASK]),
        ("dispatchctl requeue ", [OTHER]),
        ("dispatchctl history --task ", [TASK, OTHER]),
        ("dispatchctl submit --depends-on 1", [TASK]),
        ("dispatchctl reset ", ["cecelia-run"]),
        ("dispatchctl trip c", ["cecelia-run"]),
        ("dispatchctl breakers ", ["cecelia-run"]),
        ("dispatchctl settings set ", ["WINDOW_MS", "TICK_INTERVAL_MS"]),
        ("dispatchctl settings get w", ["WINDOW_MS"]),
        ("dispatchctl settings reset T", ["TICK_INTERVAL_MS"]),
        ("dispatchctl comp", ["completion"]),
        ("dispatchctl completion ", ["bash", "zsh", "fish"]),
        ("dispatchctl tasks --status qu", ["queued", "quarantined"]),
    ],
)
def test_what_is_offered(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, capsys: Capture, typed: str, words: list[str]
) -> None:
    monkeypatch.setattr(completion, "ANSWER_S", 20.0)
    assert sorted(offered(typed, monkeypatch, capsys)) == sorted(words)


def test_an_address_that_was_typed_is_asked(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(completion, "ANSWER_S", 20.0)
    address = os.environ["DISPATCH_ADDRESS"]
    monkeypatch.setenv("DISPATCH_ADDRESS", "127.0.0.1:1")
    assert offered(f"dispatchctl --address {address} task 1", monkeypatch, capsys) == [TASK]


def test_a_scheduler_that_is_silent_or_away_offers_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in (f"127.0.0.1:{silent.getsockname()[1]}", "127.0.0.1:1"):
            monkeypatch.setenv("DISPATCH_ADDRESS", address)
            assert offered("dispatchctl task ", monkeypatch, capsys) == []
    assert capsys.readouterr().err == ""


def test_a_title_is_one_harmless_line(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(completion, "ANSWER_S", 20.0)
    monkeypatch.setenv("_DISPATCHCTL_COMPLETE", "fish_complete")
    monkeypatch.setenv("COMP_WORDS", "dispatchctl task 1")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "Tidy it" in out
    assert "\x1b" not in out


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


def ask_shell(words: list[str], script: str, tmp_path: Path) -> str:
    env = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run([*words, script], env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_bash_completes_commands_and_tells_apart_words(scheduler: Scheduler, tmp_path: Path) -> None:
    script = """
        eval "$(dispatchctl completion bash)"
        complete -p dispatchctl
        ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _dispatchctl_completion dispatchctl; echo "${COMPREPLY[@]}"; }
        ask dispatchctl tas
        ask dispatchctl tasks --stat
        ask dispatchctl settings res
    """
    said = ask_shell([shell("bash"), "--norc", "-c"], script, tmp_path).splitlines()
    assert "-F _dispatchctl_completion" in said[0]
    assert said[1:] == ["task tasks", "--status", "reset"]


def test_zsh_takes_the_script(tmp_path: Path) -> None:
    script = 'autoload -U compinit; compinit -D; eval "$(dispatchctl completion zsh)"; print -r -- ${_comps[dispatchctl]}'
    assert ask_shell([shell("zsh"), "-f", "-c"], script, tmp_path).strip() == "_dispatchctl_completion"


def test_fish_completes_commands(tmp_path: Path) -> None:
    script = 'dispatchctl completion fish | source; complete -C "dispatchctl tas"'
    words = [line.split("\t")[0] for line in ask_shell([shell("fish"), "--no-config", "-c"], script, tmp_path).splitlines()]
    assert words == ["task", "tasks"]
