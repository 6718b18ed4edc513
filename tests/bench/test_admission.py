"""Admission in a real cgroup under real load: it never over-commits, and refuses nothing that the formula offers.

An executor runs in a group with limits of memory and CPU; its runs take memory and burn CPU up to their share. The long form:
`make bench-admission` (10,000 decisions each, some minutes); the suite runs a short one. The figures are printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from cecelia.executor.v1 import executor_service_pb2 as pb
from cecelia.executor.v1 import executor_service_pb2_grpc as pb_grpc

from executor_service.core.admission import CPU_WINDOW_S, USABLE_SHARE, slots_at
from executor_service.host.run_use import RunUses
from executor_service.runs.regular_files import read_regular
from tests.acceptance.programs import Program, channel_to
from tests.bench.limited_group import LimitedGroup, NoGroup, limited_group

DECISIONS = int(os.environ.get("BENCH_DECISIONS", "200"))
PACE_S = 0.02
MEMORY_MB, SHARE_MB, HOG_MB = 640, 64, 150
CORES = 0.75 * len(os.sched_getaffinity(0))
SHARE_CORES = CORES / 15
BACKEND = "cecelia-run"
# What a guard and two interpreters take of a run's share.
OVERHEAD_MB = 12
ENTER = ("/bin/sh", "-c", 'for file in $ENTER; do echo $$ > "$file"; done; exec "$@"', "sh")

# Takes its memory after a while, and burns its CPU in bursts that fill the whole quota when a few of them meet.
COMMAND = """#!{python} -IS
import random, sys, time
chance = random.Random(sys.argv[2])
time.sleep(chance.uniform(0, {delay}))
data = b"x" * ({mb} << 20)
end = time.monotonic() + chance.uniform({life} / 2, {life})
while time.monotonic() < end:
    began, used = time.monotonic(), time.process_time()
    while time.process_time() - used < {burst}:
        pass
    time.sleep(max(0.0, began + {burst} / {cores} - time.monotonic()))
"""


@dataclass
class Figures:
    """What was seen."""

    decisions: int = 0
    admitted: int = 0
    refused: int = 0
    false_refusals: list[str] = field(default_factory=list)
    at_once: int = 0
    used_mb: float = 0.0
    run_mb: float = 0.0
    pressures: dict[str, float] = field(default_factory=lambda: {"cpu": 0.0, "mem": 0.0, "max": 0.0})
    cpu_stall_pct: float = 0.0
    dirs: dict[str, Path] = field(default_factory=dict)

    def told(self, what: str, group: LimitedGroup, seconds: float) -> str:
        """The figures in a line."""
        cores = group.cpu_used_s() / seconds
        highest = ", ".join(f"{name} {value:.2f}" for name, value in self.pressures.items())
        return (
            f"{what}: {self.decisions} decisions in {seconds:.0f} s, {self.admitted} runs let in, {self.refused} refused, "
            f"{len(self.false_refusals)} of them falsely; at most {self.at_once} at once; memory at most {self.used_mb:.0f} of "
            f"{MEMORY_MB} MiB (a run {self.run_mb:.0f} of {SHARE_MB}), {group.oom_kills()} killed; {cores:.2f} of {CORES:g} cores; "
            f"highest pressures {highest}; CPU stall at most {self.cpu_stall_pct:.0f} %"
        )


@pytest.fixture
def group() -> Iterator[LimitedGroup]:
    try:
        with limited_group(MEMORY_MB, CORES) as made:
            yield made
    except NoGroup as reason:
        pytest.skip(str(reason))


class Bench:
    """An executor in the group."""

    def __init__(self, folder: Path, group: LimitedGroup, *, life: float, delay: float) -> None:
        self.group = group
        self.figures = Figures()
        self._uses = RunUses(read_regular)
        self._runs = folder / "executor" / "runs"
        command = folder / "command"
        burst = {"burst": 0.25, "cores": SHARE_CORES}
        command.write_text(
            COMMAND.format(python=sys.executable, mb=SHARE_MB - OVERHEAD_MB, life=life, delay=delay, **burst), encoding="ascii"
        )
        command.chmod(0o755)
        env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
            "ENTER": " ".join(map(str, group.enter)),
            "EXECUTOR_GRPC_ADDRESS": "127.0.0.1:0",
            "EXECUTOR_HTTP_ADDRESS": "127.0.0.1:0",
            "EXECUTOR_DATA_DIR": str(folder / "executor"),
            "CECELIA_RUN_PATH": str(command),
            "HK_MINIMAX_URL": "http://127.0.0.1:9",
            "SESSION_PROCESS_NAME": "",
            "MEM_PER_TASK_MB": str(SHARE_MB),
            "CPU_PER_TASK": str(SHARE_CORES),
        }
        self._program = Program("executor_service", env, folder / "executor", folder / "log", ENTER)
        self.stub: pb_grpc.ExecutorServiceAsyncStub

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self._program.start()
        async with channel_to(self._program.port) as channel:
            self.stub = pb_grpc.ExecutorServiceStub(channel)
            try:
                yield
            finally:
                await self._program.end()

    async def look(self) -> pb.CheckResourcesResponse:
        """Notes what is used now."""
        found, figures = await self.stub.CheckResources(pb.CheckResourcesRequest(), timeout=10), self.figures
        now = {"cpu": found.cpu_pressure, "mem": found.mem_pressure, "max": found.max_pressure}
        figures.pressures = {name: max(value, now[name]) for name, value in figures.pressures.items()}
        figures.cpu_stall_pct = max(figures.cpu_stall_pct, found.cpu_stall_pct)
        figures.at_once = max(figures.at_once, found.running)
        figures.used_mb = max(figures.used_mb, self.group.used_mb())
        uses = await asyncio.to_thread(self._uses.look, figures.dirs)
        figures.run_mb = max([figures.run_mb, *(use.memory_mb for use in uses.values())])
        return found

    async def dispatch(self, n: int) -> list[pb.DispatchResult]:
        """Asks for so many runs at once."""
        runs = [pb.RunRequest(run_id=str(uuid4()), task_id=str(uuid4()), title="Load", backend=BACKEND) for _ in range(n)]
        answer = await self.stub.DispatchTasks(pb.DispatchTasksRequest(runs=runs), timeout=30)
        self.figures.decisions += n
        admitted = [result.run_id for result in answer.results if result.accepted]
        self.figures.admitted += len(admitted)
        self.figures.refused += n - len(admitted)
        self.figures.dirs |= {run_id: self._runs / run_id for run_id in admitted}
        return list(answer.results)

    async def start_one(self) -> None:
        """Lets a run in, however often that is refused, and waits until it has its memory."""
        async with asyncio.timeout(60):
            while not (result := (await self.dispatch(1))[0]).accepted:
                await asyncio.sleep(PACE_S)
            only = {result.run_id: self._runs / result.run_id}
            while all(
                use.memory_mb < SHARE_MB - OVERHEAD_MB for use in (await asyncio.to_thread(self._uses.look, only)).values()
            ):
                await asyncio.sleep(PACE_S)

    async def all_ended(self) -> set[pb.RunOutcome.ValueType]:
        """Waits until nothing runs; the outcomes."""
        async with asyncio.timeout(60):
            while (await self.look()).running:
                await asyncio.sleep(PACE_S)
        answer = await self.stub.ListRuns(pb.ListRunsRequest(), timeout=30)
        return {run.outcome for run in answer.runs}


def slots_of_nominal_load(idle: pb.CheckResourcesResponse) -> int:
    """How many runs that take their whole share the formula lets be under way: the first number at which it offers no more.

    A pressure of 0.1 is left for what the figures waver by: the steps of the formula are no place to stand on.
    """
    for runs in range(idle.max_seats):
        pressure = 1 - (idle.free_mem_mb - runs * SHARE_MB) / (USABLE_SHARE * idle.total_mem_mb)
        if slots_at(pressure + 0.1, idle.max_seats) <= runs:
            return runs
    return idle.max_seats


# Other work on the machine is load too: that it refuses then is right.
@pytest.mark.long
async def test_nothing_is_refused_at_nominal_load(tmp_path: Path, group: LimitedGroup) -> None:
    bench = Bench(tmp_path, group, life=20.0, delay=0.0)
    chance, loop = random.Random(7), asyncio.get_running_loop()
    async with bench.running():
        began = loop.time()
        idle = await bench.look()
        assert (idle.total_mem_mb, idle.cpu_cores) == (MEMORY_MB, CORES), "the limits are those of the group"
        full = slots_of_nominal_load(idle)
        assert 3 <= full <= idle.max_seats
        figures = bench.figures
        for _ in range(full - 1):
            await bench.start_one()
        # Interpreters that start together burn more than their shares, which the mean holds until then. Later ones come one by one.
        steady_time = loop.time() + CPU_WINDOW_S
        while loop.time() < steady_time:
            if (await bench.look()).running < full - 1:
                await bench.start_one()
            await asyncio.sleep(PACE_S)
        figures.decisions = figures.refused = 0
        while figures.decisions < DECISIONS:
            answer = await bench.stub.CheckAvailability(pb.CheckAvailabilityRequest(), timeout=10)
            local = next(one for one in answer.backends if one.backend == BACKEND)
            figures.decisions += 1
            if local.running < full and not local.available:
                figures.false_refusals.append(f"{local.running} of {full}: {local.detail}")
            figures.refused += not local.available
            # One below the nominal load is where refusals would be false: it stays there for a while.
            if local.running < full - 1 or (local.running < full and chance.random() < 0.02):
                figures.false_refusals += [result.detail for result in await bench.dispatch(1) if not result.accepted]
            if figures.decisions % 5 == 0:
                await bench.look()
            await asyncio.sleep(PACE_S)
        outcomes = await bench.all_ended()
        print(figures.told(f"nominal load of {full} runs", group, loop.time() - began))
    assert figures.false_refusals == []
    assert outcomes == {pb.RUN_OUTCOME_COMPLETED}
    assert group.oom_kills() == 0


async def test_greed_does_not_over_commit(tmp_path: Path, group: LimitedGroup) -> None:
    bench = Bench(tmp_path, group, life=4.0, delay=3.0)
    chance, loop = random.Random(7), asyncio.get_running_loop()
    hold = f"import sys; data = b'x' * ({HOG_MB} << 20); print(flush=True); sys.stdin.read()"
    hog = subprocess.Popen(
        [*ENTER, sys.executable, "-IS", "-c", hold],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"ENTER": " ".join(map(str, group.enter))},
    )
    try:
        assert hog.stdout is not None
        await asyncio.to_thread(hog.stdout.readline)
        async with bench.running():
            began = loop.time()
            idle = await bench.look()
            offered = idle.effective_slots * SHARE_MB
            assert offered > idle.free_mem_mb, "the formula alone offers more than there is"
            figures = bench.figures
            while figures.decisions < DECISIONS or loop.time() < began + 8:
                await bench.dispatch(chance.randint(1, 8))
                await bench.look()
                await asyncio.sleep(PACE_S)
            outcomes = await bench.all_ended()
            print(figures.told("greed", group, loop.time() - began))
        assert hog.poll() is None
    finally:
        hog.communicate(timeout=10)
    assert figures.run_mb <= SHARE_MB, "no run takes more than its share"
    assert figures.used_mb < MEMORY_MB
    assert group.oom_kills() == 0
    assert outcomes == {pb.RUN_OUTCOME_COMPLETED}
    assert figures.at_once >= idle.free_mem_mb // SHARE_MB - 1, "and what there is, is used"
