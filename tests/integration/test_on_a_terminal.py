"""dispatchctl on a real terminal of some width: nothing wraps, numbers are whole, what an override says is there."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from rich.cells import cell_len

from tests.fakes.fake_scheduler import FakeScheduler, serving

_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def shown(address: str, words: list[str], columns: int) -> list[str]:
    """What a command shows on a terminal of so many columns, without its styles."""
    terminal, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"DISPATCH_ADDRESS": address}
    with subprocess.Popen([sys.executable, "-m", "dispatchctl", *words], stdout=inside, stdin=inside, env=env) as process:
        os.close(inside)
        said = b""
        try:
            while data := os.read(terminal, 65_536):
                said += data
        except OSError:  # how the end of a terminal reads
            pass
        assert process.wait(30) == 0
    os.close(terminal)
    return _STYLE.sub("", said.decode()).splitlines()


@pytest.fixture
def scheduler() -> FakeScheduler:
    fake = FakeScheduler()
    reasons = {"executor_failed": 30, "pre_flight_check_failed": 12, "draining": 4, "circuit_open": 2}
    window = pb.DispatchWindow(total=12345, success=12300, failed=45, rate=0.996, failure_reasons=reasons)
    fake.stats = pb.GetDispatchStatsResponse(window_1h=window, attempts=window, attempts_by_backend={"cecelia-run": window})
    fake.status.stats.CopyFrom(fake.stats)
    now = datetime.now(UTC)
    fake.status.overrides.add(
        kind="breaker_tripped",
        scope="hk",
        actor="ann",
        reason="maintenance " * 20,
        since_time=now - timedelta(minutes=5, seconds=30),
        until_time=now + timedelta(minutes=9, seconds=30),
    )
    fake._store(pb.TaskSpec(title="A title that is longer than most terminals are wide " * 3, task_type="initiative_plan"))
    event = pb.Event(id=12345, type="task_dispatched", time=now)
    event.payload.update({"title": "A title that is longer than most", "backend": "cecelia-run", "status": "running"})
    fake.events.append(event)
    return fake


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
@pytest.mark.parametrize("words", [["stats"], ["status"], ["tasks"], ["breakers"], ["events", "-n", "1"]])
def test_nothing_wraps(scheduler: FakeScheduler, words: list[str], columns: int) -> None:
    with serving(scheduler) as address:
        lines = shown(address, words, columns)
    assert max(cell_len(line) for line in lines) <= columns, "\n".join(lines)
    if words[0] in ("stats", "status"):
        assert sum("12345  12300    45      0.996" in line for line in lines) == 3


def test_an_override_keeps_who_since_and_until(scheduler: FakeScheduler) -> None:
    with serving(scheduler) as address:
        lines = shown(address, ["status"], 100)
        piped = subprocess.run(
            [sys.executable, "-m", "dispatchctl", "status"],
            env={**os.environ, "DISPATCH_ADDRESS": address}, capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
    line = next(line for line in lines if line.startswith("override"))
    assert line.startswith("override breaker_tripped hk: by ann, since 5m ago, until in 9m, maintenance")
    assert cell_len(line) == 100
    whole = next(line for line in piped.stdout.splitlines() if line.startswith("override"))
    assert whole.endswith("maintenance " * 19 + "maintenance")
    assert whole.count("+00:00") == 2
