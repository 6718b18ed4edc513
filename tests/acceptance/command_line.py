"""dispatchctl as a shell calls it, and the form that its errors have."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dispatchctl.__main__ import main
from tests.acceptance.programs import DESCRIPTION, Pair

Capture = pytest.CaptureFixture[str]
NO_SUCH = "123e4567-e89b-12d3-a456-426614174000"
DEADLINE_S = 60


def cli(*words: str, pair: Pair | None = None, status: int = 0) -> subprocess.CompletedProcess[str]:
    """The program itself, as a shell calls it."""
    environ = dict(os.environ)
    if pair is not None:
        environ |= {
            "DISPATCH_ADDRESS": f"127.0.0.1:{pair.scheduler.port}",
            "EXECUTOR_GRPC_ADDRESS": f"127.0.0.1:{pair.executor.port}",
        }
    call = [sys.executable, "-m", "dispatchctl", *words]
    done = subprocess.run(call, capture_output=True, text=True, timeout=DEADLINE_S, env=environ, check=False)
    assert done.returncode == status, done.stderr
    return done


def queued(capsys: Capture, *words: str) -> str:
    """A task that waits; its id."""
    line = ["submit", "--title", "Tidy it later", "--description", DESCRIPTION, "--not-before", "+1h", "-o", "name", *words]
    assert main(line) == 0
    return capsys.readouterr().out.strip()


def assert_three_lines(err: str, code: str) -> None:
    """What, why with the reason code, what to do; the why says more than the what."""
    lines = err.splitlines()[-3:]
    assert [line[:7] for line in lines] == ["error: ", "  why: ", "   do: "], err
    what, why = lines[0][7:], lines[1][7:]
    assert why.startswith(f"{code}: "), err
    assert what.casefold() not in why.casefold(), err
    assert len(lines[2]) > len("   do: "), err
