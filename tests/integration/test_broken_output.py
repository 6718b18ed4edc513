"""dispatchctl when nobody takes what it says, or Ctrl-C comes before it can say anything: no traceback, a fitting status."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from tests.fakes.fake_scheduler import FakeScheduler, serving

PROGRAM = [sys.executable, "-m", "dispatchctl"]

INTERRUPTED_WHILE_LOADING = """
import os, signal, sys
class Interrupts:
    def find_spec(self, name, *_):
        if name == "grpc":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
from dispatchctl.__main__ import main
sys.exit(main(["tasks"]))
"""


@pytest.mark.parametrize("words", [["stats"], ["tasks", "-o", "json"], ["-h"], ["--version"]])
def test_a_full_disk_is_an_error_in_three_lines(words: list[str]) -> None:
    with serving(FakeScheduler()) as address, open("/dev/full", "wb") as full:
        env = {**os.environ, "DISPATCH_ADDRESS": address}
        done = subprocess.run(
            [*PROGRAM, *words], stdout=full, stderr=subprocess.PIPE, text=True, env=env, timeout=30, check=False
        )
    assert done.returncode == 1
    assert [line[:7] for line in done.stderr.splitlines()] == ["error: ", "  why: ", "   do: "], done.stderr
    assert "No space left" in done.stderr


def test_a_reader_that_goes_is_not_told() -> None:
    fake = FakeScheduler()
    for number in range(2000):
        fake._store(pb.TaskSpec(title=f"Task {number}"))
    with serving(fake) as address:
        env = {**os.environ, "DISPATCH_ADDRESS": address}
        with subprocess.Popen(
            [*PROGRAM, "tasks", "-o", "jsonl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().startswith(b"{")
            process.stdout.close()
            said = process.stderr.read()
            assert (process.wait(30), said) == (1, b"")


def test_ctrl_c_while_modules_load_is_130_without_a_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_LOADING], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_at_a_prompt_ends_the_line() -> None:
    terminal, inside = os.openpty()
    with serving(FakeScheduler()) as address:
        words = [*PROGRAM, "--address", address, "cancel", "123e4567-e89b-12d3-a456-426614174000"]
        with subprocess.Popen(words, stdin=inside, stdout=inside, stderr=inside) as process:
            os.close(inside)
            said = b""
            while b"? [y/N]:" not in said:
                said += os.read(terminal, 1024)
            # One that comes between the question and the reading of its answer is lost.
            for _ in range(60):
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
                    break
            assert process.poll() == 130
            assert os.read(terminal, 1024).endswith(b"\n")
    os.close(terminal)
