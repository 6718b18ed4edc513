"""`dispatchctl top` on a real terminal: it draws, draws again at events, survives a break, and leaves the terminal as it was."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator

import grpc
import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.rpc import code_pb2

from dispatchctl.__main__ import main
from tests.fakes.fake_scheduler import FakeScheduler, refuse, serving

DEADLINE_S = 60
COLUMNS, LINES = 80, 24
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
Capture = pytest.CaptureFixture[str]


class Scheduler(FakeScheduler):
    """Can be away, and counts how often it was asked."""

    away = False
    asked = 0

    def GetStatus(self, request: pb.GetStatusRequest, context: grpc.ServicerContext) -> pb.GetStatusResponse:
        self.asked += 1
        if self.away:
            refuse(context, code_pb2.UNAVAILABLE, "STORAGE_UNAVAILABLE", "the database does not answer")
        answer = pb.GetStatusResponse()
        answer.CopyFrom(self.status)
        answer.sentence = f"Asked {self.asked} times."
        return answer


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    fake = Scheduler()
    fake._store(pb.TaskSpec(title="A title that is longer than most terminals are wide " * 3))
    with serving(fake) as address:
        monkeypatch.setenv("DISPATCH_ADDRESS", address)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("COLUMNS", raising=False)
        yield fake


class Terminal:
    """A terminal of 80 by 24 with `dispatchctl top` in it."""

    def __init__(self) -> None:
        self.outside, self.inside = os.openpty()
        fcntl.ioctl(self.inside, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.before = termios.tcgetattr(self.inside)
        self.said = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dispatchctl", "top"],
            stdin=self.inside,
            stdout=self.inside,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def until(self, seen: Callable[[bytes], bool]) -> bytes:
        """Reads until what was said is as wanted."""
        while not seen(self.said):
            ready, _, _ = select.select([self.outside], [], [], DEADLINE_S)
            assert ready, self.said
            self.said += os.read(self.outside, 65_536)
        return self.said

    def end(self) -> int:
        """The exit status; the terminal is as it was."""
        self.until(lambda said: LEAVE in said)
        status = self.process.wait(DEADLINE_S)
        assert self.process.stderr is not None
        assert self.process.stderr.read().strip() == b""
        assert termios.tcgetattr(self.inside) == self.before
        return status


@pytest.fixture
def terminal(scheduler: Scheduler) -> Iterator[Terminal]:
    made = Terminal()
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        if made.process.stderr is not None:
            made.process.stderr.close()
        os.close(made.outside)
        os.close(made.inside)


def asked(n: int) -> Callable[[bytes], bool]:
    return lambda said: f"Asked {n} times.".encode() in said


def test_it_draws_again_and_q_ends_it(terminal: Terminal) -> None:
    said = terminal.until(asked(3))
    assert said.count(ENTER) == 1
    os.write(terminal.outside, b"xq")
    assert terminal.end() == 0


def test_a_page_fits_the_terminal(terminal: Terminal) -> None:
    said = terminal.until(asked(2)).decode()
    page = re.split(r"\x1b\[H", said)[-2 if said.count("Asked") > 1 else -1]
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", page).split("\r\n")
    assert len(lines) <= LINES
    assert all(len(line.rstrip()) <= COLUMNS for line in lines), lines
    assert any("q ends it" in line for line in lines)


def test_ctrl_c_ends_it_with_130(terminal: Terminal) -> None:
    terminal.until(asked(1))
    os.write(terminal.outside, b"\x03")
    assert terminal.end() == 130


def test_a_signal_from_elsewhere_ends_it_too(terminal: Terminal) -> None:
    terminal.until(asked(1))
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130


def test_a_break_is_told_and_survived(scheduler: Scheduler, terminal: Terminal) -> None:
    terminal.until(asked(1))
    scheduler.away = True
    terminal.until(lambda said: b"the last answer is of" in said)
    scheduler.away = False
    last = len(terminal.said)
    terminal.until(lambda said: b"q ends it" in said[last:])
    os.write(terminal.outside, b"q")
    assert terminal.end() == 0


def test_without_a_terminal_it_is_one_snapshot(scheduler: Scheduler, capsys: Capture) -> None:
    scheduler.status.overrides.add(kind="drain", scope="deploy", actor="ann", reason="because " * 40)
    assert main(["top"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("idle: Asked 1 times.\n")
    assert "\x1b" not in out
    assert "because " * 39 in out
    assert scheduler.asked == 1


def test_programs_get_the_messages(scheduler: Scheduler, capsys: Capture) -> None:
    (task,) = scheduler.tasks
    assert main(["top", "-o", "json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["status"]["mode"], body["running"]["tasks"][0]["id"], body["decisions"]["events"]) == ("idle", task, [])
    assert main(["top", "-o", "jsonl"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["status", "running", "decisions"]
    assert main(["top", "-o", "name"]) == 0
    assert capsys.readouterr().out == f"{task}\n"


def test_a_scheduler_that_was_never_there_is_an_error(scheduler: Scheduler, capsys: Capture) -> None:
    scheduler.away = True
    assert main(["top"]) == 4
    assert "STORAGE_UNAVAILABLE" in capsys.readouterr().err
