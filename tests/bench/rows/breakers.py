"""A circuit breaker in process, while it stays closed: ours and those of four libraries."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.bench.measuring.bench import ROOT, Absent, Bench
from tests.bench.measuring.comparison import Comparison, Goal, Variant
from tests.bench.peers import breakers

OURS = "core/breaker.py"
PEERS = ("circuitbreaker", "pybreaker", "purgatory", "aiobreaker")
CALLS = 50_000
DEADLINE_S = 120.0
_VERSION = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"


async def measure(bench: Bench, library: str) -> Mapping[str, float]:
    """Each in a process of its own, by the interpreter that has the library."""
    if library == "ours":
        python = Path(sys.executable)
    else:
        python = bench.state / "venv" / "bin" / "python"
        if not python.exists():
            raise Absent(f"{library} is not installed: make bench sets up .bench/venv")
        try:
            bench.versions[library] = await _run(python, "-c", _VERSION, library)
        except RuntimeError as error:
            raise Absent(f"{library} is not installed in .bench/venv") from error
    return dict(json.loads(await _run(python, breakers.__file__, library, str(bench.size(CALLS, 500)))))


async def _run(python: Path, *words: str) -> str:
    """What it prints. Raises RuntimeError with its words when it fails."""
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    env = {"PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(python, *words, cwd=ROOT, env=env, **pipes)
    async with asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{python} {' '.join(words)}: {err.decode(errors='replace')[-1_000:]}")
    return out.decode().strip()


COMPARISONS = (
    Comparison(
        "breakers",
        "What does a circuit breaker add to a call in process?",
        (Variant(OURS, partial(measure, library="ours")), *(Variant(name, partial(measure, library=name)) for name in PEERS)),
        tuple(Goal(figure, OURS, peer, at_most=1.0) for figure in ("succeed_ns", "fail_ns") for peer in PEERS),
        {"succeed_ns": "ns", "fail_ns": "ns"},
        f"Nanoseconds of CPU that the breaker adds to a call of a Python function that returns at once, or raises at once, {CALLS:,} calls in a "
        "row, the bare call measured beside it; the threshold is never reached. Ours: the time is read, `admit`, the call, "
        "`record_success` or `record_failure`. The libraries keep their state in the object, ours makes a new value a change.",
    ),
)
