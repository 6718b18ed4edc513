"""`cecelia.executor.v1.ExecutorService`: check, call, convert."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import grpc
from cecelia.executor.v1 import executor_service_pb2 as pb
from cecelia.executor.v1 import executor_service_pb2_grpc as pb_grpc

from executor_service.core.admission import ResourceReport
from executor_service.core.reservation import Room
from executor_service.core.run import RunOutcome, RunRecord, RunSpec
from executor_service.rpc.conversions import (
    BACKEND_KINDS,
    BATCH_MAX_BYTES,
    LEASE_MAX,
    RUNS_MAX,
    Checker,
    changes,
    resources_message,
    run_message,
)
from executor_service.runs.ports import BackendState
from service_runtime.errors import NotFound, ResourceExhausted
from service_runtime.proto_values import timestamp

Context = grpc.aio.ServicerContext[Any, Any]

CLUSTER_ID_MAX_CHARS = 64
REASON_MAX_CHARS = 500
RENEW_MAX = 10_000
ACKNOWLEDGE_MAX = 1_000
SNAPSHOT_EVERY_S = 2.5
LOG_STREAMS_MAX = 200


class ExecutorPart(Protocol):
    """What the rpcs do, in core values; callers' errors are raised as service errors."""

    executor_id: str
    version: str

    def now(self) -> datetime: ...
    def resources(self) -> ResourceReport: ...
    def running_local(self) -> int: ...
    def room(self) -> Room: ...
    def backends(self) -> list[BackendState]: ...

    @property
    def draining(self) -> bool: ...
    def stamp(self) -> tuple[str, int]:
        """The boot and CLOCK_BOOTTIME in nanoseconds."""
        ...

    async def dispatch(
        self, specs: Sequence[RunSpec], cluster_id: str, term: int, boot_id: str, stamp: int
    ) -> list[tuple[str, bool, str, str]]: ...
    def record(self, run_id: str) -> RunRecord | None: ...
    def is_refused(self, run_id: str) -> bool: ...
    def records(self, *, live_only: bool) -> list[RunRecord]: ...
    async def cancel(
        self, run_id: str, reason: str, cluster_id: str, term: int, recorded: RunOutcome | None
    ) -> RunRecord | None: ...
    def watch(self, cluster_id: str, term: int) -> AsyncIterator[Sequence[RunRecord] | int | None]:
        """Open runs, their number as the end of the replay, then runs as they change; None asks for a snapshot."""
        ...

    def output(self, run_id: str, offset: int, *, tail_bytes: int, follow: bool) -> AsyncGenerator[tuple[int, bytes], None]:
        """Pieces of a known run's output with the offset of their first byte."""
        ...

    async def acknowledge(self, run_ids: Sequence[str], cluster_id: str, term: int) -> int: ...
    async def renew(
        self,
        run_ids: Sequence[str],
        end_runs: Sequence[str],
        lease_ttl: timedelta,
        cluster_id: str,
        term: int,
        boot_id: str,
        stamp: int,
    ) -> tuple[list[str], list[str], list[str]]: ...


class ExecutorServicer(pb_grpc.ExecutorServiceServicer):
    """Every rpc of the executor."""

    def __init__(self, executor: ExecutorPart) -> None:
        self._executor = executor
        self._log_streams = 0

    async def CheckResources(self, request: pb.CheckResourcesRequest, context: Context) -> pb.CheckResourcesResponse:
        return self._resources()

    def _resources(self) -> pb.CheckResourcesResponse:
        return resources_message(self._executor.resources(), self._executor.running_local(), self._executor.room())

    def _backends(self) -> Iterator[pb.BackendAvailability]:
        for state in self._executor.backends():
            yield pb.BackendAvailability(
                backend=state.name,
                available=not state.reason,
                reason=state.reason,
                detail=state.detail,
                local=state.local,
                max_runs=state.max_runs,
                running=state.running,
                configured=state.configured,
                ends_by_callback=state.ends_by_callback,
                kind=BACKEND_KINDS[state.kind],
            )

    async def CheckAvailability(self, request: pb.CheckAvailabilityRequest, context: Context) -> pb.CheckAvailabilityResponse:
        return pb.CheckAvailabilityResponse(
            backends=self._backends(),
            draining=self._executor.draining,
            version=self._executor.version,
            executor_time=timestamp(self._executor.now()),
        )

    async def DispatchTasks(self, request: pb.DispatchTasksRequest, context: Context) -> pb.DispatchTasksResponse:
        check = Checker()
        if request.ByteSize() > BATCH_MAX_BYTES:
            check.wrong("runs", f"have {request.ByteSize()} bytes; at most {BATCH_MAX_BYTES} are allowed")
            check.done()
        if not 1 <= len(request.runs) <= RUNS_MAX:
            check.wrong("runs", f"has {len(request.runs)} runs; must have 1 to {RUNS_MAX}")
            check.done()
        cluster_id = check.text("cluster_id", request.cluster_id, CLUSTER_ID_MAX_CHARS)
        specs = [check.spec(run, f"runs[{i}]", cluster_id) for i, run in enumerate(request.runs)]
        check.done()
        answers = await self._executor.dispatch(specs, cluster_id, request.term, request.boot_id, request.stamp)
        response = pb.DispatchTasksResponse()
        for run_id, accepted, reason, detail in answers:
            response.results.add(run_id=run_id, accepted=accepted, reason=reason, detail=detail)
        return response

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        check = Checker()
        run_id = check.run_id("run_id", request.run_id)
        check.done()
        record = self._executor.record(run_id)
        if record is not None:
            return pb.GetRunResponse(run=run_message(record))
        if self._executor.is_refused(run_id):
            return pb.GetRunResponse(run=_refused(run_id))
        raise NotFound(f"no run has the id {run_id} here", reason="RUN_NOT_FOUND")

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        records = self._executor.records(live_only=request.live_only)
        return pb.ListRunsResponse(runs=[run_message(record, brief=True) for record in records])

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.CancelRunResponse:
        check = Checker()
        run_id = check.run_id("run_id", request.run_id)
        reason = check.text("reason", request.reason, REASON_MAX_CHARS)
        cluster_id = check.text("cluster_id", request.cluster_id, CLUSTER_ID_MAX_CHARS)
        recorded = check.outcome("recorded_outcome", request.recorded_outcome)
        check.done()
        record = await self._executor.cancel(run_id, reason, cluster_id, request.term, recorded)
        return pb.CancelRunResponse(run=_refused(run_id) if record is None else run_message(record))

    async def WatchRuns(self, request: pb.WatchRunsRequest, context: Context) -> AsyncIterator[pb.WatchRunsResponse]:
        check = Checker()
        cluster_id = check.text("cluster_id", request.cluster_id, CLUSTER_ID_MAX_CHARS)
        check.done()
        watching = self._executor.watch(cluster_id, request.term)
        async with contextlib.aclosing(watching):  # type: ignore[type-var]  # an async generator behind the Protocol
            async for item in watching:
                if item is None:
                    yield self._snapshot()
                elif isinstance(item, int):
                    yield pb.WatchRunsResponse(replay_end=pb.ReplayEnd(runs=item))
                else:
                    for response in changes(item):
                        yield response

    def _snapshot(self) -> pb.WatchRunsResponse:
        boot_id, stamp = self._executor.stamp()
        return pb.WatchRunsResponse(
            snapshot=pb.ExecutorSnapshot(
                executor_id=self._executor.executor_id,
                boot_id=boot_id,
                stamp=stamp,
                resources=self._resources(),
                backends=self._backends(),
                draining=self._executor.draining,
                version=self._executor.version,
            )
        )

    async def AcknowledgeRuns(self, request: pb.AcknowledgeRunsRequest, context: Context) -> pb.AcknowledgeRunsResponse:
        check = Checker()
        run_ids = check.uuids("run_ids", request.run_ids, ACKNOWLEDGE_MAX)
        cluster_id = check.text("cluster_id", request.cluster_id, CLUSTER_ID_MAX_CHARS)
        check.done()
        done = await self._executor.acknowledge(run_ids, cluster_id, request.term)
        return pb.AcknowledgeRunsResponse(acknowledged=done)

    async def RenewLeases(self, request: pb.RenewLeasesRequest, context: Context) -> pb.RenewLeasesResponse:
        check = Checker()
        run_ids = check.uuids("run_ids", request.run_ids, RENEW_MAX)
        end_runs = check.uuids("end_runs", request.end_runs, RENEW_MAX)
        cluster_id = check.text("cluster_id", request.cluster_id, CLUSTER_ID_MAX_CHARS)
        lease_ttl = check.span("lease_ttl", request.lease_ttl, LEASE_MAX)
        check.done()
        renewed, unknown, unnamed = await self._executor.renew(
            run_ids, end_runs, lease_ttl, cluster_id, request.term, request.boot_id, request.stamp
        )
        return pb.RenewLeasesResponse(renewed=renewed, unknown=unknown, unnamed=unnamed)

    async def StreamRunLogs(self, request: pb.StreamRunLogsRequest, context: Context) -> AsyncIterator[pb.StreamRunLogsResponse]:
        check = Checker()
        run_id = check.run_id("run_id", request.run_id)
        for name, value in (("offset", request.offset), ("tail_bytes", request.tail_bytes)):
            if value < 0:
                check.wrong(name, f"is {value}; must be 0 or more")
        check.done()
        if self._executor.record(run_id) is None:
            raise NotFound(f"no run has the id {run_id} here", reason="RUN_NOT_FOUND")
        if self._log_streams >= LOG_STREAMS_MAX:
            raise ResourceExhausted(
                f"{LOG_STREAMS_MAX} outputs are being read already", reason="TOO_MANY_STREAMS", retry_after=timedelta(seconds=5)
            )
        self._log_streams += 1
        try:
            # A silent run tells nothing for long: the reader knows by this that it is being followed.
            await context.send_initial_metadata(())
            output = self._executor.output(run_id, request.offset, tail_bytes=request.tail_bytes, follow=request.follow)
            async with contextlib.aclosing(output) as pieces:
                async for offset, data in pieces:
                    yield pb.StreamRunLogsResponse(offset=offset, data=data)
        finally:
            self._log_streams -= 1


def _refused(run_id: str) -> pb.Run:
    return pb.Run(run_id=run_id, state=pb.RUN_STATE_REFUSED)
