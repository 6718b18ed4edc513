"""`tick.ports.ExecutorClient` over gRPC: one channel an executor, a deadline on every call, nothing retried here.

The executor answers the same run_id with the same answer, so the link's resending is the retry; a retry below it would only
hide how long an answer is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import structlog
from cecelia.executor.v1 import executor_service_pb2 as pb
from cecelia.executor.v1 import executor_service_pb2_grpc as pb_grpc

from scheduler_service.core.limits import DISPATCH_MAX_BYTES, DISPATCH_MAX_RUNS
from scheduler_service.core.routing import BACKEND_NAME, BackendKind
from scheduler_service.core.run import (
    BackendReport,
    CancelAnswer,
    DispatchAnswer,
    ExecutorReport,
    LeaderIdentity,
    RenewAnswer,
    ReplayEnd,
    RunOrder,
    RunReport,
    Stamp,
    WatchMessage,
)
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict
from scheduler_service.errors import ExecutorUnreachable, OutputGone
from service_runtime.ids import id_of, id_text
from service_runtime.proto_values import duration, moment_of, object_of, set_duration, set_struct

_log = structlog.get_logger(__name__)

DISPATCH_DEADLINE_S = 3.0
CALL_DEADLINE_S = 5.0
OUTPUT_DEADLINE_S = 120.0
ACKNOWLEDGE_MAX = 1_000
# Every one that is reported has a breaker, series of metrics and rows in answers.
BACKENDS_MAX = 100
FIGURE_MAX = 2**53
START_DELAY_MAX_S = 7 * 86_400.0
"""No run lasts longer; added to a time, a larger one could leave the years that there are."""

_OPTIONS = (
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    # One target, one connection: a proxy variable of the machine must not stand between the services.
    ("grpc.enable_http_proxy", 0),
)

_KINDS = {
    pb.BACKEND_KIND_SHARED: BackendKind.SHARED,
    pb.BACKEND_KIND_PER_EXECUTOR: BackendKind.PER_EXECUTOR,
}
_VERDICTS = {
    pb.START_VERDICT_SUCCESS: StartVerdict.SUCCESS,
    pb.START_VERDICT_FAILURE: StartVerdict.FAILURE,
    pb.START_VERDICT_NEUTRAL: StartVerdict.NEUTRAL,
}
_OUTCOMES = {
    pb.RUN_OUTCOME_COMPLETED: OutcomeClass.COMPLETED,
    pb.RUN_OUTCOME_FAILED: OutcomeClass.FAILED,
    pb.RUN_OUTCOME_TIMED_OUT: OutcomeClass.TIMED_OUT,
    pb.RUN_OUTCOME_CANCELLED: OutcomeClass.CANCELLED,
    pb.RUN_OUTCOME_LOST: OutcomeClass.LOST,
    pb.RUN_OUTCOME_NOT_STARTED: OutcomeClass.NOT_STARTED,
    pb.RUN_OUTCOME_FAILED_FOR_GOOD: OutcomeClass.FAILED_FOR_GOOD,
}
_OUTCOME_NUMBERS = {outcome: number for number, outcome in _OUTCOMES.items()}


class GrpcExecutorClient:
    """One executor."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._stub = pb_grpc.ExecutorServiceStub(self._channel)

    @property
    def target(self) -> str:
        return self._target

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close(grace=0)

    @contextlib.contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: grpc.aio.AioRpcError) -> ExecutorUnreachable:
        return ExecutorUnreachable(f"{self._target}: {error.code().name}: {error.details()}")

    @contextlib.contextmanager
    def _readable_answer(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise ExecutorUnreachable(f"{self._target}: its answer is unreadable: {error}") from error

    async def watch(self, identity: LeaderIdentity) -> AsyncIterator[Sequence[WatchMessage]]:
        request = pb.WatchRunsRequest(cluster_id=str(identity.cluster_id), term=identity.term)
        with self._answers():
            # Open for as long as the leadership lasts; silence is noticed by the link.
            call = self._stub.WatchRuns(request, wait_for_ready=False)
            try:
                async for message in call:
                    yield list(self._readable(message))
            finally:
                call.cancel()
        raise ExecutorUnreachable(f"{self._target}: the stream has ended")

    def _readable(self, message: pb.WatchRunsResponse) -> Iterator[WatchMessage]:
        """What a message says, as values. What makes no sense is left out, and must not stop the others."""
        for convert, part in _parts(message):
            try:
                converted = convert(part)
            except ValueError as error:
                _log.error("executor_message_unreadable", target=self._target, error=str(error))
                continue
            if converted is not None:
                yield converted

    async def dispatch(
        self, identity: LeaderIdentity, orders: Sequence[RunOrder], stamp: Stamp, lease_ttl: timedelta
    ) -> list[DispatchAnswer]:
        answers: list[DispatchAnswer] = []
        for request in _requests(identity, orders, stamp, lease_ttl):
            answers += await self._dispatch_batch(request)
        return answers

    async def _dispatch_batch(self, request: pb.DispatchTasksRequest) -> list[DispatchAnswer]:
        """One call. A batch that is refused as a whole is sent run by run: one bad run must not hold up the others."""
        try:
            response = await self._stub.DispatchTasks(request, timeout=DISPATCH_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise self._unreachable(error) from error
            if len(request.runs) == 1:
                return [DispatchAnswer(id_of(request.runs[0].run_id), False, "config_error", _text(error.details() or ""))]
            found = []
            for run in request.runs:
                alone = _copy(request)
                del alone.runs[:]
                alone.runs.append(run)
                found += await self._dispatch_batch(alone)
            return found
        with self._readable_answer():
            return [DispatchAnswer(id_of(r.run_id), r.accepted, r.reason, _text(r.detail)) for r in response.results]

    async def acknowledge(self, identity: LeaderIdentity, run_ids: Sequence[UUID]) -> None:
        for start in range(0, len(run_ids), ACKNOWLEDGE_MAX):
            request = pb.AcknowledgeRunsRequest(
                run_ids=[id_text(run_id) for run_id in run_ids[start : start + ACKNOWLEDGE_MAX]],
                cluster_id=str(identity.cluster_id),
                term=identity.term,
            )
            with self._answers():
                await self._stub.AcknowledgeRuns(request, timeout=CALL_DEADLINE_S)

    async def renew(
        self,
        identity: LeaderIdentity,
        run_ids: Sequence[UUID],
        end_runs: Sequence[UUID],
        stamp: Stamp,
        lease_ttl: timedelta,
    ) -> RenewAnswer:
        request = pb.RenewLeasesRequest(
            run_ids=[str(run_id) for run_id in run_ids],
            end_runs=[str(run_id) for run_id in end_runs],
            lease_ttl=duration(lease_ttl),
            boot_id=stamp.boot_id,
            stamp=stamp.stamp,
            cluster_id=str(identity.cluster_id),
            term=identity.term,
        )
        with self._answers():
            response = await self._stub.RenewLeases(request, timeout=CALL_DEADLINE_S)
        with self._readable_answer():
            return RenewAnswer(
                tuple(id_of(run_id) for run_id in response.unknown), tuple(id_of(run_id) for run_id in response.unnamed)
            )

    async def cancel_run(
        self, identity: LeaderIdentity, run_id: UUID, reason: str, recorded: OutcomeClass | None = None
    ) -> CancelAnswer:
        request = pb.CancelRunRequest(
            run_id=str(run_id),
            reason=reason,
            cluster_id=str(identity.cluster_id),
            term=identity.term,
            recorded_outcome=pb.RUN_OUTCOME_UNSPECIFIED if recorded is None else _OUTCOME_NUMBERS[recorded],
        )
        with self._answers():
            response = await self._stub.CancelRun(request, timeout=CALL_DEADLINE_S)
        refused = response.run.state == pb.RUN_STATE_REFUSED
        return CancelAnswer.REFUSED if refused else CancelAnswer.ENDING


class GrpcOutputs:
    """`rpc.output_calls.Outputs`: a connection a stream, so that a large output holds up nothing else."""

    async def read(
        self, target: str, run_id: UUID, offset: int, tail_bytes: int, *, follow: bool
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        request = pb.StreamRunLogsRequest(run_id=str(run_id), offset=offset, tail_bytes=tail_bytes, follow=follow)
        async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
            # One that follows lasts as long as the run; a dead connection is noticed by its keepalive.
            call = pb_grpc.ExecutorServiceStub(channel).StreamRunLogs(request, timeout=None if follow else OUTPUT_DEADLINE_S)
            try:
                async for piece in call:
                    yield piece.offset, piece.data
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    raise OutputGone(f"{target}: {error.details()}") from error
                raise ExecutorUnreachable(f"{target}: {error.code().name}: {error.details()}") from error
            finally:
                call.cancel()


def _requests(
    identity: LeaderIdentity, orders: Iterable[RunOrder], stamp: Stamp, lease_ttl: timedelta
) -> Iterator[pb.DispatchTasksRequest]:
    """Orders within the executor's bounds, with room for the envelope; one always fits."""
    envelope = pb.DispatchTasksRequest(
        cluster_id=str(identity.cluster_id), term=identity.term, boot_id=stamp.boot_id, stamp=stamp.stamp
    )
    request, size = _copy(envelope), 0
    for order in orders:
        # Filled where it is to be: one made apart would be copied into the list.
        run = request.runs.add()
        _set_run(run, order, lease_ttl)
        own = run.ByteSize() + 16
        if len(request.runs) > 1 and (len(request.runs) > DISPATCH_MAX_RUNS or size + own > DISPATCH_MAX_BYTES - 4096):
            del request.runs[-1]
            yield request
            request, size = _copy(envelope), 0
            _set_run(request.runs.add(), order, lease_ttl)
        size += own
    if request.runs:
        yield request


def _copy(envelope: pb.DispatchTasksRequest) -> pb.DispatchTasksRequest:
    request = pb.DispatchTasksRequest()
    request.CopyFrom(envelope)
    return request


def _set_run(run: pb.RunRequest, order: RunOrder, lease_ttl: timedelta) -> None:
    run.run_id = id_text(order.run_id)
    run.task_id = id_text(order.task_id)
    run.fence = order.fence
    run.title = order.title
    run.description = order.description
    run.task_type = order.task_type
    run.backend = order.backend
    run.skill = order.skill
    run.permission_mode = order.permission_mode
    run.model = order.model
    run.provider = order.provider
    set_duration(run.timeout, order.timeout)
    set_duration(run.lease_ttl, lease_ttl)
    if order.payload:
        set_struct(run.payload, order.payload)


def _parts(message: pb.WatchRunsResponse) -> Iterator[tuple[Callable[[Any], WatchMessage | None], Any]]:
    """What a message carries, each with what makes a value of it."""
    kind = message.WhichOneof("update")
    if kind == "snapshot":
        yield _executor_report, message.snapshot
    elif kind == "replay_end":
        yield (lambda end: ReplayEnd(end.runs)), message.replay_end
    elif kind == "run":
        yield _run_report, message.run
    elif kind == "runs":
        for run in message.runs.runs:
            yield _run_report, run


def _executor_report(snapshot: pb.ExecutorSnapshot) -> ExecutorReport:
    resources = snapshot.resources
    return ExecutorReport(
        executor_id=_text(snapshot.executor_id),
        boot_id=_text(snapshot.boot_id),
        stamp=snapshot.stamp,
        draining=snapshot.draining,
        version=_text(snapshot.version),
        resources_ok=resources.ok,
        resources_reason=_text(resources.reason),
        max_seats=resources.max_seats,
        physical_capacity=resources.physical_capacity,
        effective_slots=resources.effective_slots,
        # Not a number is no pressure that leaves room.
        max_pressure=resources.max_pressure if math.isfinite(resources.max_pressure) else 1.0,
        headed_sessions=resources.headed_sessions,
        admission_slots=resources.admission_slots if resources.HasField("admission_slots") else None,
        admission_reason=_text(resources.admission_reason),
        backends=tuple(
            BackendReport(
                _text(b.backend),
                b.local,
                b.configured,
                b.available,
                _text(b.reason),
                _text(b.detail),
                b.max_runs,
                b.running,
                b.ends_by_callback,
                _KINDS.get(b.kind),
            )
            for b in list(snapshot.backends)[:BACKENDS_MAX]
            if BACKEND_NAME.fullmatch(b.backend)
        ),
    )


def _run_report(run: pb.Run) -> RunReport | None:
    if run.state in (pb.RUN_STATE_REFUSED, pb.RUN_STATE_UNSPECIFIED):
        return None
    return RunReport(
        run_id=id_of(run.run_id),
        task_id=id_of(run.task_id),
        fence=run.fence,
        live=run.state != pb.RUN_STATE_ENDED,
        verdict=_VERDICTS.get(run.start_verdict),
        verdict_reason=_text(run.start_reason),
        verdict_detail=_text(run.start_detail),
        outcome=_OUTCOMES.get(run.outcome),
        exit_code=run.exit_code if run.HasField("exit_code") else None,
        signal=run.signal if run.HasField("signal") else None,
        result=_text(run.result),
        error=_text(run.error),
        error_class=_text(run.error_class),
        retry_time=_retry_time(run),
        usage=_figures(object_of(run.usage)) if run.HasField("usage") else {},
        start_delay=_start_delay(run),
    )


def _start_delay(run: pb.Run) -> timedelta | None:
    """How long after its acceptance it started; None while it has not, and for times that make no sense.

    An executor whose clock was set back in between gives a negative time: zero is told then.
    """
    if not run.HasField("start_time") or not run.HasField("accept_time"):
        return None
    start, accept = run.start_time, run.accept_time
    seconds = start.seconds - accept.seconds + (start.nanos - accept.nanos) / 1e9
    return timedelta(seconds=max(0.0, seconds)) if seconds <= START_DELAY_MAX_S else None


def _retry_time(run: pb.Run) -> datetime | None:
    """When another try makes sense; None for a time that makes none: the end of a run must not be lost for it."""
    try:
        return moment_of(run.retry_time) if run.HasField("retry_time") else None
    except ValueError:
        return None


def _text(text: str) -> str:
    """Text as it can be stored."""
    return text.replace("\x00", "\ufffd")


def _figures(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Usage figures as they can be stored and summed: plain numbers and texts; JSON knows no NaN."""
    return {
        _text(key): _text(value) if isinstance(value, str) else value
        for key, value in usage.items()
        if isinstance(value, str) or (isinstance(value, int | float) and abs(value) <= FIGURE_MAX)
    }


async def close_all(clients: Sequence[GrpcExecutorClient]) -> None:
    """Closes the channels."""
    await asyncio.gather(*(client.close() for client in clients))
