"""The services over gRPC: a deadline on every call, who calls on every call, and every error as a `Failure`."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from collections.abc import AsyncIterator
from typing import Any, Self, TypeVar

import grpc
from cecelia.executor.v1 import executor_service_pb2_grpc as executor_grpc
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from cecelia.scheduler.v1 import scheduler_service_pb2_grpc as pb_grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dispatchctl.call_failures import Callee, failure_of, no_answer
from service_runtime.identity import ACTOR_METADATA

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


def caller() -> str:
    """Who calls, as far as this machine knows: user@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


class ServiceClient:
    """One channel to one service; an asynchronous context manager. `call` and `stream` make the calls of its stub."""

    def __init__(self, callee: Callee, timeout_s: float) -> None:
        self.address = callee.address
        self.timeout_s = timeout_s
        self._callee = callee
        self._channel = grpc.aio.insecure_channel(callee.address, options=CHANNEL_OPTIONS)
        # gRPC takes nothing but ASCII here.
        self._metadata = ((ACTOR_METADATA, caller().encode("ascii", "replace").decode("ascii")),)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._channel.close(grace=0)

    async def call(self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """One unary call. Raises Failure."""
        try:
            return await method(request, timeout=self.timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise failure_of(error, request, self._callee, self.timeout_s) from error

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request, *, may_be_silent: bool = False
    ) -> AsyncIterator[Response]:
        """A stream of answers until the service ends it or the caller stops reading. Raises Failure.

        It must open within the deadline, unless nothing may come for long (`may_be_silent`): some streams open with their first
        message only.
        """
        call = method(request, metadata=self._metadata)
        try:
            if not may_be_silent:
                async with asyncio.timeout(self.timeout_s):
                    await call.initial_metadata()
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise failure_of(error, request, self._callee, self.timeout_s) from error
        except TimeoutError as error:
            raise no_answer(self._callee, self.timeout_s, "the stream did not open") from error
        finally:
            call.cancel()


class SchedulerClient(ServiceClient):
    """A scheduler. `stub` has its rpcs."""

    def __init__(self, address: str, timeout_s: float) -> None:
        super().__init__(Callee("scheduler", address, "--address or DISPATCH_ADDRESS=host:port"), timeout_s)
        self.stub = pb_grpc.SchedulerServiceStub(self._channel)

    async def newest_event_id(self, *types: str) -> int:
        """The id of the newest event, as WatchEvents tells it when asked for what comes from now on; -1 when it does not.

        The scheduler checks the types. Raises Failure.
        """
        request = pb.WatchEventsRequest(after_event_id=-1, types=types)
        call = self.stub.WatchEvents(request, timeout=self.timeout_s, metadata=self._metadata)
        try:
            async with asyncio.timeout(self.timeout_s):
                told = dict(await call.initial_metadata() or ()).get("next-event-id", "")
                if not told:
                    # It has none where the call has ended already, or failed: reading says why.
                    await call.read()
        except grpc.aio.AioRpcError as error:
            raise failure_of(error, request, self._callee, self.timeout_s) from error
        except TimeoutError as error:
            raise no_answer(self._callee, self.timeout_s, "the stream did not open") from error
        finally:
            call.cancel()
        return int(told) - 1 if str(told).isdecimal() else -1


class ExecutorClient(ServiceClient):
    """An executor. `stub` has its rpcs."""

    def __init__(
        self, address: str, timeout_s: float, how_to_name: str = "--executor or EXECUTOR_GRPC_ADDRESS=host:port"
    ) -> None:
        super().__init__(Callee("executor", address, how_to_name), timeout_s)
        self.stub = executor_grpc.ExecutorServiceStub(self._channel)


async def is_serving(address: str, timeout_s: float) -> bool:
    """Whether the gRPC service at an address says SERVING within the time."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
