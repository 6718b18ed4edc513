"""Simulated executors: real gRPC servers in one process, whose runs start at once, last for a while, and complete.

    python -m tests.bench.peers.fleet EXECUTORS RUNS_EACH RUN_S

Prints its targets, comma-separated. For each line it reads: `begin` forgets what was seen; `figures` prints as JSON what was seen
since: `acknowledge_s` how long each end waited for its acknowledgement (those that still wait included), `renewal_gap_s` the times
between two renewals of one executor (the one still open included), `running` runs that live, `completed` ends acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from random import Random

import grpc
from cecelia.executor.v1 import executor_service_pb2 as pb
from cecelia.executor.v1 import executor_service_pb2_grpc as pb_grpc

from service_runtime.grpc_server import GrpcServer, OfferedService
from service_runtime.structured_logging import configure_logging

SERVICE = "cecelia.executor.v1.ExecutorService"
BACKEND = "hk-minimax"
SNAPSHOT_S = 5.0
Context = grpc.aio.ServicerContext


class SimulatedExecutor(pb_grpc.ExecutorServiceServicer):
    """One executor with room for `max_runs`; a run lasts up to twice `run_s`, and `run_s` in the mean: some end at once."""

    def __init__(self, name: str, max_runs: int, run_s: float) -> None:
        self._name = name
        self._max_runs = max_runs
        self._run_s = run_s
        self._chance = Random(name)
        self._runs: dict[str, pb.Run] = {}
        self._streams: set[asyncio.Queue[pb.WatchRunsResponse]] = set()
        self._ended_at: dict[str, float] = {}
        self._renewed_at: float | None = None
        self.acknowledge_s: list[float] = []
        self.renewal_gap_s: list[float] = []

    # --- what was seen

    def begin(self) -> None:
        """Forgets what was seen."""
        self.acknowledge_s.clear()
        self.renewal_gap_s.clear()

    def seen(self) -> tuple[list[float], list[float]]:
        """Waits for acknowledgements and gaps between renewals, those that are still open included."""
        now = time.monotonic()
        gaps = [*self.renewal_gap_s, now - self._renewed_at] if self._renewed_at is not None else []
        return [*self.acknowledge_s, *(now - at for at in self._ended_at.values())], gaps

    @property
    def running(self) -> int:
        """Runs that live."""
        return sum(run.state == pb.RUN_STATE_RUNNING for run in self._runs.values())

    # --- rpcs

    async def DispatchTasks(self, request: pb.DispatchTasksRequest, context: Context) -> pb.DispatchTasksResponse:
        loop = asyncio.get_running_loop()
        # The first lease counts from here.
        self._renewed_at = self._renewed_at or time.monotonic()
        for asked in request.runs:
            if asked.run_id not in self._runs:
                run = pb.Run(
                    run_id=asked.run_id, task_id=asked.task_id, fence=asked.fence, backend=asked.backend,
                    state=pb.RUN_STATE_RUNNING, start_verdict=pb.START_VERDICT_SUCCESS,
                )  # fmt: skip
                run.accept_time.GetCurrentTime()
                run.start_time.GetCurrentTime()
                self._runs[asked.run_id] = run
                self._tell(pb.WatchRunsResponse(run=run))
                loop.call_later(self._run_s * self._chance.uniform(0.0, 2.0), self._complete, asked.run_id)
        return pb.DispatchTasksResponse(results=[pb.DispatchResult(run_id=asked.run_id, accepted=True) for asked in request.runs])

    def _complete(self, run_id: str) -> None:
        run = self._runs[run_id]
        run.state, run.outcome, run.exit_code, run.result = pb.RUN_STATE_ENDED, pb.RUN_OUTCOME_COMPLETED, 0, "done"
        run.end_time.GetCurrentTime()
        self._ended_at[run_id] = time.monotonic()
        self._tell(pb.WatchRunsResponse(run=run))

    async def WatchRuns(self, request: pb.WatchRunsRequest, context: Context) -> AsyncIterator[pb.WatchRunsResponse]:
        news: asyncio.Queue[pb.WatchRunsResponse] = asyncio.Queue()
        self._streams.add(news)
        try:
            yield self._snapshot()
            for run in list(self._runs.values()):
                yield pb.WatchRunsResponse(run=run)
            yield pb.WatchRunsResponse(replay_end=pb.ReplayEnd(runs=len(self._runs)))
            while True:
                message = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SNAPSHOT_S):
                        message = await news.get()
                yield message if message is not None else self._snapshot()
        finally:
            self._streams.discard(news)

    async def snapshots(self) -> None:
        """A snapshot each SNAPSHOT_S, however much other news there is."""
        while True:
            await asyncio.sleep(SNAPSHOT_S * self._chance.uniform(0.8, 1.0))
            self._tell(self._snapshot())

    async def AcknowledgeRuns(self, request: pb.AcknowledgeRunsRequest, context: Context) -> pb.AcknowledgeRunsResponse:
        now, known = time.monotonic(), 0
        for run_id in request.run_ids:
            if run_id in self._ended_at:
                self.acknowledge_s.append(now - self._ended_at.pop(run_id))
                del self._runs[run_id]
                known += 1
        return pb.AcknowledgeRunsResponse(acknowledged=known)

    async def RenewLeases(self, request: pb.RenewLeasesRequest, context: Context) -> pb.RenewLeasesResponse:
        now = time.monotonic()
        if self._renewed_at is not None:
            self.renewal_gap_s.append(now - self._renewed_at)
        self._renewed_at = now
        named = set(request.run_ids)
        live = {run_id for run_id, run in self._runs.items() if run.state == pb.RUN_STATE_RUNNING}
        return pb.RenewLeasesResponse(
            renewed=sorted(named & live), unknown=sorted(named - set(self._runs)), unnamed=sorted(live - named)
        )

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.CancelRunResponse:
        run = self._runs.get(request.run_id)
        return pb.CancelRunResponse(run=run or pb.Run(run_id=request.run_id, state=pb.RUN_STATE_REFUSED))

    def _tell(self, message: pb.WatchRunsResponse) -> None:
        told = pb.WatchRunsResponse()
        told.CopyFrom(message)
        for stream in self._streams:
            stream.put_nowait(told)

    def _snapshot(self) -> pb.WatchRunsResponse:
        resources = pb.CheckResourcesResponse(ok=True, effective_slots=1, max_seats=3, physical_capacity=3, running=self.running)
        offered = pb.BackendAvailability(
            backend=BACKEND, available=True, configured=True, kind=pb.BACKEND_KIND_SHARED, max_runs=self._max_runs
        )
        return pb.WatchRunsResponse(
            snapshot=pb.ExecutorSnapshot(
                executor_id=self._name, boot_id="boot", stamp=time.clock_gettime_ns(time.CLOCK_BOOTTIME), version="1",
                resources=resources, backends=[offered],
            )
        )  # fmt: skip


async def serve(count: int, runs_each: int, run_s: float) -> None:
    """Until its input ends."""
    executors = [SimulatedExecutor(f"executor-{number}", runs_each, run_s) for number in range(count)]
    # Kept: a server that nobody holds any more stops.
    servers = [GrpcServer("127.0.0.1:0", "address", domain="bench") for _ in executors]
    ports = [server.bind() for server in servers]
    telling = []
    async with asyncio.TaskGroup() as group:
        for executor, server in zip(executors, servers, strict=True):
            server.offer(OfferedService(pb_grpc.add_ExecutorServiceServicer_to_server, executor, SERVICE))
            await server.start()
            telling.append(group.create_task(executor.snapshots()))
        print(",".join(f"127.0.0.1:{port}" for port in ports), flush=True)
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            if line == "begin":
                for executor in executors:
                    executor.begin()
                continue
            seen = [executor.seen() for executor in executors]
            figures = {
                "acknowledge_s": [wait for waits, _ in seen for wait in waits],
                "renewal_gap_s": [gap for _, gaps in seen for gap in gaps],
                "running": sum(executor.running for executor in executors),
                "completed": sum(len(executor.acknowledge_s) for executor in executors),
            }
            print(json.dumps(figures), flush=True)
        for task in telling:
            task.cancel()


if __name__ == "__main__":
    configure_logging("console", "info")
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
