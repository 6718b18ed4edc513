"""Commands that follow, wait or draw again: what they show, and when they end."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import grpc
import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.rpc import code_pb2

from dispatchctl.__main__ import main
from dispatchctl.client import SchedulerClient
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.log_command import harmless
from dispatchctl.redrawing import show_or_watch
from dispatchctl.session import Session
from dispatchctl.waiting import wait_for_all
from tests.fakes.fake_scheduler import FakeScheduler, refuse, serving

Capture = pytest.CaptureFixture[str]
KNOWN = "drain_started"


class Scheduler(FakeScheduler):
    """Has three events, and knows one type of them. `opens`: its streams do."""

    opens = True

    def WatchEvents(self, request: pb.WatchEventsRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchEventsResponse]:
        self.requests.append(request)
        if set(request.types) - {KNOWN}:
            words = f"has 'nosuch'; must be one of {KNOWN}"
            refuse(context, code_pb2.INVALID_ARGUMENT, "INVALID_ARGUMENT", f"types {words}", types=words)
        if not self.opens:
            self.hold_until.wait(20)
            return
        newest = 3
        after = newest if request.after_event_id < 0 else request.after_event_id
        context.send_initial_metadata((("next-event-id", str(after + 1)),))
        for id_ in range(after + 1, newest + 1):
            yield pb.WatchEventsResponse(event=pb.Event(id=id_, type=KNOWN if id_ != 2 else "drain_ended"))
        while context.is_active():
            if self.hold_until.wait(0.05):
                return


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    fake = Scheduler()
    fake.hold_until.clear()
    with serving(fake) as address:
        monkeypatch.setenv("DISPATCH_ADDRESS", address)
        try:
            yield fake
        finally:
            fake.hold_until.set()


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ([], ["1", "2", "3"]),
        (["-n", "2"], ["2", "3"]),
        (["--after", "0", "-n", "2"], ["1", "2"]),
        (["--after", "3"], []),
        (["--type", KNOWN, "-n", "1"], ["3"]),
        (["--type", KNOWN], ["1", "3"]),
        (["-f", "--after", "1", "-n", "2"], ["2", "3"]),
    ],
)
def test_events_end_where_they_have_caught_up(scheduler: Scheduler, capsys: Capture, words: list[str], ids: list[str]) -> None:
    assert main(["events", "-o", "name", *words]) == 0
    assert capsys.readouterr().out.split() == ids


@pytest.mark.parametrize("follow", [[], ["-f"]])
def test_an_unknown_type_of_event_is_a_usage_error_at_once(scheduler: Scheduler, capsys: Capture, follow: list[str]) -> None:
    assert main(["events", "--type", "nosuch", "-n", "1", "--timeout", "20s", *follow]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: cannot show the events"
    assert KNOWN in lines[1]
    assert lines[2] == "   do: correct --type"


@pytest.mark.parametrize("follow", [[], ["-f"]])
def test_a_stream_that_does_not_open_is_given_up(scheduler: Scheduler, capsys: Capture, follow: list[str]) -> None:
    scheduler.opens = False
    assert main(["events", "--timeout", "200ms", *follow]) == 4
    assert "DEADLINE_EXCEEDED" in capsys.readouterr().err


def test_a_task_is_followed_to_its_end(scheduler: Scheduler, capsys: Capture) -> None:
    scheduler.hold_until.set()
    task = scheduler._store(pb.TaskSpec(title="Tidy the importer"))
    scheduler.life = [pb.Task(status=pb.TASK_STATUS_RUNNING), pb.Task(status=pb.TASK_STATUS_FAILED)]
    assert main(["task", task.id, "--watch", "-o", "json"]) == 7
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "TASK_STATUS_FAILED"
    assert err.split() == ["queued", "running", "failed"]


def test_a_batch_does_not_wait_for_those_behind_a_quarantined_one(scheduler: Scheduler) -> None:
    first, second, third = (scheduler._store(pb.TaskSpec(title=title)) for title in "abc")
    first.status = pb.TASK_STATUS_QUARANTINED
    second.depends_on.append(first.id)
    third.depends_on.append(second.id)
    for task in (second, third):
        task.hold_reason = "dependency"

    async def wait() -> tuple[list[pb.Task], Failure | None]:
        async with SchedulerClient(os.environ["DISPATCH_ADDRESS"], 5.0) as client:
            async with asyncio.timeout(10):
                return await wait_for_all(client, [third, second, first], 60.0, print)

    tasks, held = asyncio.run(wait())
    assert held is None
    assert [task.id for task in tasks] == [third.id, second.id, first.id]


def test_a_batch_is_held_by_a_gate_of_one_backend_while_another_gets_on(scheduler: Scheduler) -> None:
    held_one, runs = (scheduler._store(pb.TaskSpec(title=title)) for title in "ab")
    held_one.backend, runs.backend, runs.status = "hk-minimax", "cecelia-run", pb.TASK_STATUS_RUNNING
    scheduler.explanation = pb.ExplainDispatchResponse(task_reason="billing_pause", sentence="Paused.")

    async def wait() -> tuple[list[pb.Task], Failure | None]:
        async with SchedulerClient(os.environ["DISPATCH_ADDRESS"], 5.0) as client:
            return await wait_for_all(client, [held_one, runs], 0.1, print)

    _tasks, held = asyncio.run(wait())
    assert held is not None
    assert held.status is ExitStatus.HELD
    asked = [request.task_id for request in scheduler.requests if isinstance(request, pb.ExplainDispatchRequest)]
    assert set(asked) == {held_one.id}


def test_output_keeps_its_blanks_and_loses_what_steers_a_terminal() -> None:
    assert harmless("\ta  b\x1b[31m\r") == "\ta  b\N{REPLACEMENT CHARACTER}[31m"


def test_watch_draws_over_the_last_picture_and_is_cut_to_the_terminal(scheduler: Scheduler) -> None:
    for number in range(40):
        scheduler._store(pb.TaskSpec(title=f"Task {number}"))
    ours, theirs = pty.openpty()
    call = [sys.executable, "-m", "dispatchctl", "tasks", "--watch", "100ms"]
    environ = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "LINES": "10", "COLUMNS": "100"}
    with ended_for_certain(call, theirs, environ) as process:
        seen = read_until(ours, rb"(\x1b\[H\x1b\[2J.*){3}")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    os.close(ours)
    picture = seen.split("\x1b[H\x1b[2J")[1]
    assert picture.splitlines()[-1].strip() == "… and 33 lines more"
    assert len(picture.splitlines()) == 9


def test_watch_outlasts_a_scheduler_that_is_started_again_but_no_other_error(capsys: Capture) -> None:
    told = ["first", Failure("away", "UNAVAILABLE: gone", "wait", ExitStatus.UNREACHABLE), "second"]
    told.append(Failure("no such task", "TASK_NOT_FOUND: gone", "look", ExitStatus.NOT_FOUND))

    async def fetch(_client: SchedulerClient) -> str:
        found = told.pop(0)
        if isinstance(found, Failure):
            raise found
        return found

    with pytest.raises(Failure, match="no such task"):
        show_or_watch(Session(), 0.001, fetch, lambda found: print(found) or 0)
    blocks = capsys.readouterr().out.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == ["first", "error: away", "second"]


def test_watch_says_at_once_that_there_is_no_scheduler(capsys: Capture) -> None:
    assert main(["stats", "--watch", "--address", "127.0.0.1:1"]) == 4
    assert capsys.readouterr().out == ""


def test_ctrl_c_at_a_question_leaves_the_next_prompt_a_line_of_its_own(scheduler: Scheduler) -> None:
    ours, theirs = pty.openpty()
    call = [sys.executable, "-m", "dispatchctl", "cancel", "123e4567-e89b-12d3-a456-426614174000"]
    # The terminal has to be its own for Ctrl-C to reach it.
    own_terminal = ["setsid", "--ctty", "--wait", *call]
    with ended_for_certain(own_terminal, theirs, dict(os.environ)) as process:
        seen = read_until(ours, rb"\[y/N\]")
        assert pressed_until_ended(process, lambda: os.write(ours, b"\x03")) == 130
        seen += read_until(ours, rb"\n")
    os.close(ours)
    assert "Traceback" not in seen
    assert scheduler.requests == []


def pressed_until_ended(process: subprocess.Popen[bytes], press: Callable[[], object]) -> int:
    """The exit status after Ctrl-C. One that comes between a question and the reading of its answer is lost, so it is repeated."""
    for _ in range(100):
        press()
        with suppress(subprocess.TimeoutExpired):
            return process.wait(0.5)
    raise AssertionError("it does not end")


@contextmanager
def ended_for_certain(call: list[str], terminal: int, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program on a terminal; a test that fails does not wait for its end."""
    with subprocess.Popen(call, stdin=terminal, stdout=terminal, stderr=terminal, env=environ, start_new_session=True) as process:
        os.close(terminal)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def read_until(handle: int, pattern: bytes, seconds: float = 20.0) -> str:
    seen, until = b"", time.monotonic() + seconds
    while not re.search(pattern, seen, re.DOTALL):
        assert time.monotonic() < until, seen
        if select.select([handle], [], [], 0.2)[0]:
            seen += os.read(handle, 65536)
    return seen.decode()
