"""The scheduler over gRPC: a deadline on every call, and every error as a `Failure` that says its reason code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import grpc
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from cecelia.scheduler.v1 import scheduler_service_pb2_grpc as pb_grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from dispatchctl.failures import ExitStatus, Failure

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Finds out that the other side of a long stream has gone without a word.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    # A proxy variable of the machine must not stand between an operator and the scheduler.
    ("grpc.enable_http_proxy", 0),
)

_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitStatus.USAGE,
    grpc.StatusCode.OUT_OF_RANGE: ExitStatus.USAGE,
    grpc.StatusCode.NOT_FOUND: ExitStatus.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE: ExitStatus.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitStatus.UNREACHABLE,
    grpc.StatusCode.FAILED_PRECONDITION: ExitStatus.REFUSED,
    grpc.StatusCode.ALREADY_EXISTS: ExitStatus.REFUSED,
    grpc.StatusCode.ABORTED: ExitStatus.REFUSED,
    grpc.StatusCode.PERMISSION_DENIED: ExitStatus.REFUSED,
    grpc.StatusCode.UNAUTHENTICATED: ExitStatus.REFUSED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExitStatus.REFUSED,
}


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """The details of a `google.rpc.Status`: the reason code, the wrong fields as (path, description), seconds to wait."""

    reason: str = ""
    violations: tuple[tuple[str, str], ...] = ()
    retry_s: float | None = None


def decode_details(status: status_pb2.Status | None) -> ErrorDetails:
    """The details that we know of a status; unknown ones are passed over."""
    reason, violations, retry_s = "", [], None
    for packed in status.details if status is not None else ():
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(bad):
            violations += [(violation.field, violation.description) for violation in bad.field_violations]
        elif packed.Unpack(retry):
            retry_s = retry.retry_delay.ToTimedelta().total_seconds()
    return ErrorDetails(reason, tuple(violations), retry_s)


class SchedulerClient:
    """One channel to one scheduler; an asynchronous context manager. `stub` has the rpcs, `call` and `stream` make them."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self.stub = pb_grpc.SchedulerServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._channel.close(grace=0)

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        see: str = "dispatchctl status",
    ) -> Response:
        """One unary call. `see` is the command that lists what a NOT_FOUND or a refusal is about. Raises Failure."""
        try:
            return await method(request, timeout=self.timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self._failure(error, see) from error

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        see: str = "dispatchctl status",
    ) -> AsyncIterator[Response]:
        """A stream of answers, open until the scheduler ends it or the caller stops reading. Raises Failure."""
        call = method(request)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._failure(error, see) from error
        finally:
            call.cancel()

    async def newest_event_id(self) -> int:
        """The id of the newest event, as WatchEvents tells it when asked for what comes from now on; -1 when it does not."""
        call = self.stub.WatchEvents(pb.WatchEventsRequest(after_event_id=-1), timeout=self.timeout_s)
        try:
            told = dict(await call.initial_metadata()).get("next-event-id", "")
        except grpc.aio.AioRpcError as error:
            raise self._failure(error, "dispatchctl status") from error
        finally:
            call.cancel()
        return int(told) - 1 if str(told).isdecimal() else -1

    def _failure(self, error: grpc.aio.AioRpcError, see: str) -> Failure:
        try:
            details = decode_details(rpc_status.from_call(error))  # type: ignore[arg-type]  # has all that it reads
        except ValueError:
            details = ErrorDetails()
        code, said = error.code(), error.details() or "no text"
        reason = details.reason or code.name
        status = _STATUSES.get(code, ExitStatus.FAILED)
        if code is grpc.StatusCode.UNAVAILABLE and not details.reason:
            return Failure(
                f"the scheduler at {self.address} cannot be reached",
                f"{reason}: {said}",
                "start it with: dispatchctl up; or name another with DISPATCH_ADDRESS=host:port",
                status,
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Failure(
                f"the scheduler at {self.address} did not answer within {self.timeout_s:g} s",
                f"{reason}: {said}",
                "look at: dispatchctl status; or wait longer with: dispatchctl --timeout 60 ...",
                status,
            )
        fields = "; ".join(f"{field} {description}" for field, description in details.violations)
        return Failure(said, f"{reason}: {fields or said}", _remedy(code, details, see), status)


def _remedy(code: grpc.StatusCode, details: ErrorDetails, see: str) -> str:
    if details.violations:
        return f"correct {', '.join(dict.fromkeys(field for field, _ in details.violations))}"
    if details.retry_s is not None:
        return f"try again in {details.retry_s:g} s"
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return "correct the request; dispatchctl COMMAND -h shows what it takes"
    if code is grpc.StatusCode.UNAVAILABLE:
        return "try again in a few seconds"
    return f"look at: {see}"


async def is_serving(address: str, timeout_s: float) -> bool:
    """Whether the gRPC service at an address says SERVING within the time."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
