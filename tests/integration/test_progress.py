"""A long command shows how far it has come where somebody looks at it, and nothing where nobody does."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import grpc
import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.__main__ import main
from dispatchctl.progress import progress
from tests.fakes.fake_scheduler import FakeScheduler, serving

_STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal(StringIO):
    """Standard error as somebody's terminal, or as a file."""

    def __init__(self, *, looked_at: bool) -> None:
        super().__init__()
        self._looked_at = looked_at

    def isatty(self) -> bool:
        return self._looked_at

    @property
    def plain(self) -> str:
        return _STYLE.sub("", self.getvalue())


class Scheduler(FakeScheduler):
    """Cancels two of five tasks a page; what is waited for ends one by one."""

    cancelled = 0

    def CancelTasks(self, request: pb.CancelTasksRequest, context: grpc.ServicerContext) -> pb.CancelTasksResponse:
        if request.validate_only:
            return pb.CancelTasksResponse(matched=5)
        page = min(2, 5 - self.cancelled)
        self.cancelled += page
        return pb.CancelTasksResponse(matched=5, changed=page, next_page_token="more" if self.cancelled < 5 else "")

    def end_one(self) -> None:
        task = next((task for task in self.tasks.values() if task.status == pb.TASK_STATUS_QUEUED), None)
        if task is not None:
            task.status = pb.TASK_STATUS_COMPLETED


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    fake = Scheduler()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with serving(fake) as address:
        monkeypatch.setenv("DISPATCH_ADDRESS", address)
        yield fake


@pytest.fixture(params=[True, False], ids=["a terminal", "a file"])
def terminal(request: pytest.FixtureRequest) -> Terminal:
    """To be put in place by the test itself: pytest sets its own at the beginning of each."""
    return Terminal(looked_at=request.param)


def test_a_bar_is_for_people_and_lines_are_for_both(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("waiting", 10) as bar:
        bar.reached(4, "queued 6")
        bar.say("completed: [red]\x1b[2J")
    assert "completed: [red]" in terminal.plain
    if terminal.isatty():
        assert re.search(r"waiting .* 4/10 .* queued 6", terminal.plain)
    else:
        assert "4/10" not in terminal.plain


def test_a_page_after_page_change_shows_each_page(
    scheduler: Scheduler, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["cancel", "--all", "--yes", "--reason", "test", "-o", "json"]) == 0
    assert json.loads(capfd.readouterr().out)["changed"] == "5"
    assert ("5/5" in terminal.plain) is terminal.isatty()
    assert "cancel: 5 of 5 tasks" in terminal.plain


def test_a_batch_that_is_waited_for_shows_how_many_have_ended(
    scheduler: Scheduler, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("dispatchctl.waiting.LOOK_S", 0.01)
    scheduler.on_get = scheduler.end_one
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps([{"title": f"Tidy it {i}"} for i in range(3)]))
    assert main(["submit", "-f", str(file), "--wait", "-o", "name"]) == 0
    assert len(capfd.readouterr().out.split()) == 3
    assert ("3/3" in terminal.plain) is terminal.isatty()
    assert terminal.plain.count("completed: Tidy it") == 3
