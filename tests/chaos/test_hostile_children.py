"""Commands that do all they can to stay alive: when their run has ended, nothing of them is left.

The long form: `make chaos` (CHAOS_CHILDREN=2000); the suite runs a short one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from datetime import timedelta
from itertools import cycle, islice
from pathlib import Path
from uuid import uuid4

from executor_service.backends.local_bridge import LocalBridge
from executor_service.core.run import RunOutcome, RunSpec, StartReport
from executor_service.host.delegation import delegated_group
from executor_service.host.processes import RUN_ID_VARIABLE

CHILDREN = int(os.environ.get("CHAOS_CHILDREN", "18"))
AT_ONCE = 20
# The guard's time-out and grace, and what a loaded machine may take beyond them.
TIMEOUT_S, GRACE_S, PATIENCE_S = 1.0, 0.3, 15.0

HOSTILE = {
    "ignores TERM": "trap '' TERM HUP INT; while :; do sleep 1; done",
    "a session of its own": "trap '' TERM; setsid sh -c \"trap '' TERM; while :; do sleep 1; done\" & wait",
    "forks twice": "(setsid sh -c \"trap '' TERM; while :; do sleep 1; done\" &) ; sleep 100",
    "leaves a pipe holder": 'setsid sleep 1000 & echo "the parent is done"; exit 0',
    "floods its log": "trap '' TERM; yes",
    # Always two of each kind alive, each of which has just been born: who counts and then kills comes too late.
    "is born again and again": (
        'cat > "$PWD/again" <<\'END\'\ntrap "" TERM\nwhile :; do sh "$1" "$1" & exit 0; done\nEND\n'
        'sh "$PWD/again" "$PWD/again" & sh "$PWD/again" "$PWD/again" & wait; sleep 100'
    ),
}


class Reports:
    """Takes in start verdicts."""

    def started(self, report: StartReport) -> None:
        pass


async def one(folder: Path, script: str, cgroup: Path | None) -> tuple[str, float, RunOutcome]:
    """Runs one; its run_id, how long it took in seconds, and its outcome."""
    run_id = str(uuid4())
    command, run_dir = folder / f"command-{run_id}", folder / run_id
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    bridge = LocalBridge(str(command), (), {"PATH": os.environ["PATH"]}, grace_s=GRACE_S, cgroup=cgroup)
    spec = RunSpec(run_id, str(uuid4()), 1, "Hostile", "", "dev", "cecelia-run", {}, timedelta(seconds=TIMEOUT_S), timedelta(0))
    run_dir.mkdir(mode=0o700)
    bridge.prepare(spec, run_dir)
    began = time.monotonic()
    async with asyncio.timeout(TIMEOUT_S + GRACE_S + 4 * PATIENCE_S):
        end = await bridge.execute(spec, run_dir, time.clock_gettime_ns(time.CLOCK_BOOTTIME), Reports())
    return run_id, time.monotonic() - began, end.outcome


def survivors(kinds: dict[str, str]) -> Counter[str]:
    """How many processes of these runs are left, by the kind of their command."""
    found: Counter[str] = Counter()
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        found.update(kind for run_id, kind in kinds.items() if RUN_ID_VARIABLE + run_id.encode() in environment)
    return found


def zombies() -> set[int]:
    """Dead children of ours that nobody has reaped."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] == b"Z" and int(fields[1]) == os.getpid():
                found.add(int(entry))
    return found


async def test_nothing_of_a_hostile_command_outlives_its_run(tmp_path: Path) -> None:
    room, before = asyncio.Semaphore(AT_ONCE), zombies()

    async def within(kind: str, cgroup: Path | None) -> tuple[str, str, float, RunOutcome]:
        async with room:
            return kind, *await one(tmp_path, HOSTILE[kind], cgroup)

    # Where cgroups are ours to divide: half of each kind in one, half with process groups only.
    controls = [None, delegated_group()]
    mixed = islice(cycle([(kind, cgroup) for cgroup in controls for kind in HOSTILE]), CHILDREN)
    ended = await asyncio.gather(*(within(kind, cgroup) for kind, cgroup in mixed))
    assert survivors({run_id: kind for kind, run_id, _, _ in ended}) == Counter()
    assert zombies() <= before
    outcomes = Counter((kind, outcome) for kind, _, _, outcome in ended)
    assert {kind for kind, outcome in outcomes if outcome is RunOutcome.COMPLETED} == {"leaves a pipe holder"}
    assert {outcome for kind, outcome in outcomes if kind != "leaves a pipe holder"} == {RunOutcome.TIMED_OUT}
    slowest = max(seconds for _, _, seconds, _ in ended)
    print(f"{CHILDREN} hostile commands, {AT_ONCE} at once: slowest {slowest:.1f} s, 0 survivors, 0 zombies")
