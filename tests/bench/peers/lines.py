"""How the bench speaks to a peer: a line asks, a line answers. Standard library only.

`fill N` puts N jobs into the queue. `drain` has them done: `begun` as the clock starts, `done` after the last durable completion.
`start` starts a worker; `submit` enqueues one job that tells of its start, and answers the moment before (CLOCK_MONOTONIC, ns).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

POLL_S = 0.005


def serve(answers: Mapping[str, Callable[..., str]]) -> None:
    """Answers lines until there are none. A call may print lines of its own before."""
    for line in sys.stdin:
        word, *arguments = line.split()
        print(answers[word](*arguments), flush=True)


def begun() -> None:
    """The clock starts now."""
    print("begun", flush=True)


def submitted(submit: Callable[[], object]) -> str:
    """Enqueues; when that began."""
    begin = time.monotonic_ns()
    submit()
    return str(begin)


@contextlib.contextmanager
def workers():  # type: ignore[no-untyped-def]  # run by another Python, whose versions of typing are its own affair
    """Gives a function that starts a worker process; all of them end with the block."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str, **env: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **env},
            cwd=Path(__file__).parent,
        )
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
