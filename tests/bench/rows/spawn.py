"""Starting local processes: our executor beside its own guard started bare; and what a guard weighs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from uuid import uuid4

from cecelia.executor.v1 import executor_service_pb2 as pb
from cecelia.executor.v1 import executor_service_pb2_grpc as pb_grpc

from executor_service.backends.local_bridge import GRACE_S, LOG_MAX_BYTES, NAME
from executor_service.host.delegation import delegated_group
from executor_service.host.processes import SpawnedGuard
from tests.acceptance.programs import Program, channel_to, guards_of
from tests.bench.measuring.bench import Absent, Bench
from tests.bench.measuring.comparison import Comparison, Goal, Variant
from tests.bench.peers.programs import environment

RUNS, AT_ONCE, WARM_UPS = 240, 40, 40
WEIGHED = 8
LIMIT_MB = 12.0
DEADLINE_S = 120.0
TRUE = "/bin/true"
BARE, IN_GROUP, WITHOUT, LIMIT = "guard, bare", "executor, in a cgroup", "executor, no cgroup", "limit"


async def measure_bare(bench: Bench) -> Mapping[str, float]:
    """As the executor starts it, AT_ONCE at a time, from folders that are prepared."""
    with bench.scratch("guards") as folder:
        runs = [_prepared(folder / str(number)) for number in range(bench.size(RUNS, AT_ONCE))]

        async def see_through(run: Path) -> None:
            async for _ in SpawnedGuard(run, os.environ["PATH"]).phases():
                pass

        began = time.perf_counter()
        for first in range(0, len(runs), AT_ONCE):
            await asyncio.gather(*(see_through(run) for run in runs[first : first + AT_ONCE]))
        rate = len(runs) / (time.perf_counter() - began)
        for run in runs:
            if json.loads((run / "state.json").read_text(encoding="utf-8")).get("exit_code") != 0:
                raise RuntimeError(f"the guard of {run} did not run its command")
    return {"starts_s": rate}


def _prepared(run: Path) -> Path:
    (run / "work").mkdir(parents=True)
    orders = {
        "argv": [TRUE], "env": {}, "cwd": str(run / "work"), "timeout_s": 3_600.0, "grace_s": GRACE_S,
        "log_max_bytes": LOG_MAX_BYTES, "cgroup": "",
    }  # fmt: skip
    (run / "spec.json").write_text(json.dumps(orders), encoding="utf-8")
    (run / "lease").write_text("0 0", encoding="ascii")
    return run


async def measure_executor(bench: Bench, *, in_group: bool) -> Mapping[str, float]:
    """DispatchTasks of AT_ONCE runs, all seen through to their ends, and again; then guards of runs that last."""
    prefix = _no_cgroups() if not in_group else ()
    if in_group and delegated_group() is None:
        raise Absent("no cgroup (version 2) is delegated here")
    with bench.scratch("executor") as folder:
        command = folder / "command"
        command.write_text(f'#!/bin/sh\n[ "$CECELIA_TASK_TYPE" = long ] && exec sleep {DEADLINE_S:g}\nexit 0\n', encoding="ascii")
        command.chmod(0o755)
        async with _executor(folder, TRUE, prefix) as executor:
            await executor.see_through(WARM_UPS)
            runs = bench.size(RUNS, AT_ONCE)
            began = time.perf_counter()
            for _ in range(0, runs, AT_ONCE):
                await executor.see_through(AT_ONCE)
            rate = runs / (time.perf_counter() - began)
        async with _executor(folder, str(command), prefix) as executor:
            ids = await executor.dispatch(WEIGHED, task_type="long")
            await executor.until_started(ids)
            weights = [_weight(pid) for pid in guards_of(folder)]
            if len(weights) != WEIGHED:
                raise RuntimeError(f"{len(weights)} guards are there instead of {WEIGHED}")
            for orders in folder.glob("executor/runs/*/spec.json"):
                if bool(json.loads(orders.read_text(encoding="utf-8"))["cgroup"]) is not in_group:
                    raise RuntimeError(f"{orders} is about another cgroup than this variant is")
            await executor.cancel(ids)
    return {"starts_s": rate} | {name: median(weight[name] for weight in weights) for name in weights[0]}


def _no_cgroups() -> Sequence[str]:
    """A command that starts the one behind it where no cgroup (version 2) is to be seen. Raises Absent."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    trees = [fields[4] for fields in mounts if "cgroup2" in fields[fields.index("-") :]]
    if delegated_group() is None:
        return ()
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        raise Absent("hiding the cgroup tree needs root and unshare")
    return ("unshare", "-m", "sh", "-c", f'umount -l {" ".join(trees)} && exec "$@"', "sh")


def _weight(pid: int) -> Mapping[str, float]:
    """Memory of a process: all that it sees, and what is left when shared pages are divided among those who share them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    kib = {line.split()[0]: int(line.split()[1]) for line in lines}
    return {"guard_rss_mb": kib["Rss:"] / 1_024, "guard_pss_mb": kib["Pss:"] / 1_024}


class _Executor:
    """A running executor service and its stream of runs."""

    def __init__(self, stub: pb_grpc.ExecutorServiceAsyncStub) -> None:
        self._stub = stub
        self._started: set[str] = set()
        self._ended: dict[str, pb.Run] = {}
        self._news = asyncio.Event()

    async def watch(self) -> None:
        """Hears of runs until cancelled."""
        async for message in self._stub.WatchRuns(pb.WatchRunsRequest()):
            for run in (message.run,) if message.HasField("run") else message.runs.runs:
                if run.start_verdict == pb.START_VERDICT_SUCCESS:
                    self._started.add(run.run_id)
                if run.outcome:
                    self._ended[run.run_id] = run
                self._news.set()

    async def dispatch(self, count: int, task_type: str = "dev") -> list[str]:
        """Starts runs. Raises RuntimeError when one is refused."""
        runs = [
            pb.RunRequest(run_id=str(uuid4()), task_id=str(uuid4()), title="Short", backend=NAME, task_type=task_type)
            for _ in range(count)
        ]
        answer = await self._stub.DispatchTasks(pb.DispatchTasksRequest(runs=runs), timeout=30)
        refused = [result for result in answer.results if not result.accepted]
        if refused:
            raise RuntimeError(f"{len(refused)} of {count} runs are refused: {refused[0].reason} {refused[0].detail}")
        return [run.run_id for run in runs]

    async def see_through(self, count: int) -> None:
        """Starts runs and waits for their ends; the executor may forget them."""
        ids = await self.dispatch(count)
        await self._until(lambda: all(id_ in self._ended for id_ in ids))
        if wrong := [self._ended[id_] for id_ in ids if self._ended[id_].outcome != pb.RUN_OUTCOME_COMPLETED]:
            raise RuntimeError(f"{len(wrong)} of {count} runs did not complete: {wrong[0]}")
        await self._stub.AcknowledgeRuns(pb.AcknowledgeRunsRequest(run_ids=ids), timeout=30)

    async def until_started(self, ids: Sequence[str]) -> None:
        """Waits for their start verdicts."""
        await self._until(lambda: self._started.issuperset(ids))

    async def cancel(self, ids: Sequence[str]) -> None:
        """Ends runs."""
        for id_ in ids:
            await self._stub.CancelRun(pb.CancelRunRequest(run_id=id_), timeout=30)
        await self._until(lambda: all(id_ in self._ended for id_ in ids))

    async def _until(self, come_true: object) -> None:
        assert callable(come_true)
        async with asyncio.timeout(DEADLINE_S):
            while not come_true():
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def _executor(folder: Path, command: str, prefix: Sequence[str]) -> AsyncIterator[_Executor]:
    """As shipped but for its ports and folder, and a machine so wide that AT_ONCE runs fit."""
    env = environment(
        EXECUTOR_GRPC_ADDRESS="127.0.0.1:0", EXECUTOR_HTTP_ADDRESS="127.0.0.1:0", EXECUTOR_DATA_DIR=str(folder / "executor"),
        CECELIA_RUN_PATH=command, HK_MINIMAX_URL="http://127.0.0.1:9", SESSION_PROCESS_NAME="", MEM_PER_TASK_MB="1",
        CPU_PER_TASK="0.01", CPU_THRESHOLD_PCT="1000000",
    )  # fmt: skip
    program = Program("executor_service", env, folder / "executor", folder / "log", prefix)
    await program.start()
    try:
        async with channel_to(program.port) as channel, asyncio.TaskGroup() as group:
            stub: pb_grpc.ExecutorServiceAsyncStub = pb_grpc.ExecutorServiceStub(channel)
            made = _Executor(stub)
            watching = group.create_task(made.watch())
            yield made
            watching.cancel()
    finally:
        await program.end()


async def limit(_: Bench) -> Mapping[str, float]:
    """What a guard may weigh."""
    return {"guard_rss_mb": LIMIT_MB, "guard_pss_mb": LIMIT_MB}


COMPARISONS = (
    Comparison(
        "spawn",
        "How fast does the executor start local processes, and what does a guard weigh?",
        (
            Variant(IN_GROUP, partial(measure_executor, in_group=True)),
            Variant(WITHOUT, partial(measure_executor, in_group=False)),
            Variant(BARE, measure_bare),
            Variant(LIMIT, limit),
        ),
        (
            Goal("starts_s", IN_GROUP, BARE, at_least=0.7),
            Goal("starts_s", WITHOUT, BARE, at_least=0.7),
            Goal("guard_rss_mb", IN_GROUP, LIMIT, at_most=1.0),
            Goal("guard_rss_mb", WITHOUT, LIMIT, at_most=1.0),
        ),
        {"starts_s": "1/s", "guard_rss_mb": "MiB", "guard_pss_mb": "MiB"},
        f"`DispatchTasks` of {AT_ONCE} runs of `{TRUE}`, the next {AT_ONCE} when all have ended (`WatchRuns`), {RUNS} in all: admission, "
        f"journal with fsync, folder, guard, start, end and acknowledgement. Bare: the same guard on prepared folders, {AT_ONCE} at a "
        "time, with nothing around it. `guard_rss_mb`, `guard_pss_mb`: resident and proportional set size of a guard whose command runs, the median of "
        f"{WEIGHED}; {LIMIT_MB:g} MiB is the limit.",
    ),
)
