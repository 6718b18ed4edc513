"""What `top` draws of a snapshot, in how much room."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from rich.cells import cell_len

from dispatchctl.top_view import Snapshot, oldest_first, shortened, top_lines
from service_runtime.proto_values import timestamp

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def crowded(n: int = 30) -> Snapshot:
    """So many of everything, with texts that are longer than any terminal is wide."""
    long = "A text that is longer than most terminals are wide " * 5
    status = pb.GetStatusResponse(mode="held", sentence=f"Nothing starts: {long}", leader=True, term=7)
    status.tick.CopyFrom(pb.TickStatus(enabled=True, last_success_time=timestamp(NOW - timedelta(seconds=3))))
    status.slots.task_pool.CopyFrom(pb.TaskPool(budget=9, used=4))
    status.slots.max_pressure = 0.756
    status.stats.attempts.CopyFrom(pb.DispatchWindow(total=12, success=9, failed=3, rate=0.75))
    running, decisions = [], []
    for i in range(n):
        name = f"executor-{i:02}"
        status.overrides.add(kind="drain", scope=f"source-{i:02}", actor="ann", reason=long)
        status.executors.add(executor_id=name, live=i % 2 == 0)
        status.slots.executors.add(
            executor_id=name, task_pool=pb.TaskPool(budget=3, used=1), max_pressure=0.5, reason="pool_exhausted" if i else ""
        )
        status.breakers.add(
            key=f"cecelia-run@{name}", state=pb.BREAKER_STATE_OPEN, failures=3, retry_time=timestamp(NOW + MINUTE)
        )
        task = pb.Task(
            id=f"01a2235b-3195-7431-b6c3-94a5{i:08}",
            title=long,
            start_time=timestamp(NOW - i * MINUTE),
            backend="cecelia-run",
            executor_id=name,
        )
        running.append(task)
        decisions.append(pb.DispatchEvent(id=i, time=timestamp(NOW), reason="circuit_breaker_open", detail=f"{i}: {long}"))
    status.breakers.add(key="hk-minimax", state=pb.BREAKER_STATE_CLOSED)
    for status_, tasks in ((pb.TASK_STATUS_RUNNING, 30), (pb.TASK_STATUS_QUEUED, 5)):
        for priority in (pb.PRIORITY_P0, pb.PRIORITY_P1):
            status.queue.add(priority=priority, status=status_, tasks=tasks)
    return Snapshot(status, oldest_first(running), tuple(decisions))


def drawn(found: Snapshot, width: int | None, height: int | None) -> list[str]:
    return [_STYLE.sub("", line) for line in top_lines(found, NOW, width, height)]


@pytest.mark.parametrize(("width", "height"), [(80, 22), (80, 30), (100, 48), (200, 60)])
def test_however_much_there_is_each_part_is_seen_and_nothing_is_too_large(width: int, height: int) -> None:
    lines = drawn(crowded(), width, height)
    assert len(lines) <= height
    assert max(cell_len(line) for line in lines) <= width
    text = "\n".join(lines)
    for part in ("held: Nothing starts", "slots 4 of 9 used, pressure 0.76; last hour 75% of 12 starts", "EXECUTOR", "BREAKER"):
        assert part in text
    assert "queue: queued 10 (P0 5, P1 5); running 60 (P0 30, P1 30)" in text
    for header in ("RUNNING", "DECIDED"):
        at = next(i for i, line in enumerate(lines) if line.startswith(header))
        assert lines[at + 1].strip(), f"{header} has a row"
    assert sum(line.startswith("… and ") for line in lines) >= 4, "what is left out is counted"


def test_a_larger_terminal_shows_more() -> None:
    rows = [sum("circuit_breaker_open" in line for line in drawn(crowded(), 100, height)) for height in (22, 40, 80)]
    assert rows == sorted(set(rows))


def test_the_oldest_run_is_first_with_its_age() -> None:
    lines = drawn(crowded(), 120, 60)
    first = lines[next(i for i, line in enumerate(lines) if line.startswith("RUNNING")) + 1]
    assert first.split()[:2] == ["00000029", "29m"]
    waiting = pb.Task(id="x", status=pb.TASK_STATUS_DISPATCHING)
    assert oldest_first([waiting, pb.Task(id="y", start_time=timestamp(NOW))])[1].id == "x"


def test_a_program_gets_all_of_it() -> None:
    lines = drawn(crowded(), None, None)
    assert sum(line.startswith("override drain source-") for line in lines) == 30
    assert sum("cecelia-run@" in line for line in lines) == 30
    assert not any("…" in line for line in lines)


def test_decisions_that_repeat_are_told_once_with_their_number_and_latest_time() -> None:
    def hold(seconds: int, detail: str) -> pb.DispatchEvent:
        return pb.DispatchEvent(time=timestamp(NOW - timedelta(seconds=seconds)), reason="draining", detail=detail)

    decisions = (hold(1, "by ci"), hold(2, "by ci"), hold(3, "by ops"), hold(4, "by ci"))
    lines = drawn(Snapshot(pb.GetStatusResponse(), (), decisions), 80, None)
    table = [line.split()[:4] for line in lines[lines.index(next(one for one in lines if one.startswith("DECIDED"))) + 1 :]]
    assert table == [["1.0s", "ago", "2", "draining"], ["3.0s", "ago", "1", "draining"], ["4.0s", "ago", "1", "draining"]]


def test_an_idle_scheduler_is_short() -> None:
    lines = drawn(Snapshot(pb.GetStatusResponse(mode="idle", sentence="Nothing waits."), (), ()), 80, 22)
    assert lines[0] == "idle: Nothing waits."
    assert {"breakers: none", "queue: empty", "running: none", "decisions: none"} <= set(lines)
    assert lines[1] == "leader nobody, term 0; tick off, last never"


def test_what_is_cut_off_is_counted() -> None:
    assert shortened(["a", "b"], 2) == ["a", "b"]
    assert shortened(["a", "b", "c"], 2) == ["a", "… and 2 more"]
    assert shortened(["a", "b"], 0) == []


def test_what_others_wrote_does_not_steer_the_terminal() -> None:
    status = pb.GetStatusResponse(mode="held", sentence="no\x1b[2J")
    status.overrides.add(kind="drain", reason="\x1b]0;x\x07")
    found = Snapshot(status, (pb.Task(title="\x1b[31m"),), (pb.DispatchEvent(detail="\x1b[32m"),))
    assert "\x1b" not in "".join(top_lines(found, NOW, 80, 22))
