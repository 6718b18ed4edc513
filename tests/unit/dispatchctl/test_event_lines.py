"""Lines for people: one line each, whatever the event holds."""

from __future__ import annotations

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from rich.cells import cell_len

from dispatchctl.event_lines import decision_line, ends_task, event_line


def event(type_: str, **fields: str | int) -> pb.Event:
    made = pb.Event(id=1, type=type_)
    made.payload.update(fields)
    return made


def test_a_failed_try_that_goes_back_is_no_end() -> None:
    again = event("task_failed", title="Rebuild", status="queued", hold_reason="backoff", error="exit status 3")
    assert not ends_task(again)
    assert event_line(again).startswith("try failed")
    assert event_line(again).endswith("backoff: exit status 3")
    assert ends_task(event("task_failed", status="failed"))
    assert not ends_task(event("task_dispatched", status="running"))


def test_a_start_says_where() -> None:
    line = event_line(event("task_dispatched", title="Rebuild", backend="cecelia-run", executor_id="vm", status="running"))
    assert line.endswith("cecelia-run on vm")


def test_other_events_show_their_figures_and_unknown_types_are_no_error() -> None:
    assert event_line(event("circuit_open", key="cecelia-run@vm", failures=3)) == "circuit_open failures 3, key cecelia-run@vm"
    assert event_line(event("something_new")) == "something_new"


def test_what_others_wrote_stays_on_its_line() -> None:
    line = event_line(event("task_completed", title="a\n\x1b[2Jb", status="completed"), "two\nlines\x07")
    assert line.isprintable()


@pytest.mark.parametrize("width", [50, 70, 90, 150])
def test_a_line_fits_its_terminal_and_keeps_what_happened_to_whom(width: int) -> None:
    started = event("task_dispatched", title="Fix the login page", priority="P1", task_type="dev", backend="cecelia-run" * 20)
    line = event_line(started, width=width)
    assert cell_len(line) == width
    assert line.startswith("started      P1 dev")
    assert "Fix the log" in line
    other = event_line(event("circuit_open", reason="x" * 300), width=width)
    assert cell_len(other) == width


def test_nothing_is_cut_in_a_pipe() -> None:
    ended = event("task_completed", title="t" * 200, priority="P1", task_type="y" * 40, status="completed")
    line = event_line(ended, "r" * 500)
    assert "t" * 200 in line
    assert "y" * 40 in line
    assert "r" * 500 in line
    assert "d" * 500 in decision_line(pb.DispatchEvent(reason="draining", detail="d" * 500))


def test_signs_of_two_columns_are_counted_as_such() -> None:
    wide, narrow = (event_line(event("task_completed", title=title, status="completed"), "end") for title in ("修复登录", "fix"))
    assert cell_len(wide) == cell_len(narrow)


def test_a_decision_without_a_task_names_its_backend_once() -> None:
    line = decision_line(pb.DispatchEvent(reason="draining"))
    assert "all backends" in line
    assert line.endswith("draining")
    assert decision_line(pb.DispatchEvent(reason="no_slots", backend="cecelia-run")).count("cecelia-run") == 1
    failed = pb.DispatchEvent(reason="executor_failed", attempt=True, backend="cecelia-run")
    assert decision_line(failed).startswith("failed start")
