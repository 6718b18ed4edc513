"""The services over gRPC: a deadline on every call, who calls on every call, and every error as a `Failure`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Self, TypeVar

import grpc
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dispatchctl.api.asynchronous import AsyncClient, AsyncExecutor, AsyncScheduler
from dispatchctl.api.calls import raised
from dispatchctl.api.service_config import CHANNEL_OPTIONS
from dispatchctl.call_failures import Callee, failure_of, no_answer
from service_runtime import errors

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class ServiceClient:
    """A client of one service whose errors are for people; an asynchronous context manager."""

    def __init__(self, client: AsyncClient, callee: Callee, timeout_s: float) -> None:
        self.address = callee.address
        self.timeout_s = timeout_s
        self._callee = callee
        self._client = client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.close()

    async def call(self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """One unary call. Raises Failure."""
        try:
            return await self._client.call(method, request, self.timeout_s)
        except errors.ServiceError as error:
            raise failure_of(error, request, self._callee, self.timeout_s) from error

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request, *, may_be_silent: bool = False
    ) -> AsyncIterator[Response]:
        """A stream of answers until the service ends it or the caller stops reading; see AsyncClient. Raises Failure."""
        answers = self._client.stream(method, request, open_s=self.timeout_s, may_be_silent=may_be_silent)
        try:
            async with contextlib.aclosing(answers):
                async for response in answers:
                    yield response
        except errors.ServiceError as error:
            raise failure_of(error, request, self._callee, self.timeout_s) from error


class SchedulerClient(ServiceClient):
    """A scheduler. `stub` has its rpcs."""

    def __init__(self, address: str, timeout_s: float) -> None:
        client = AsyncScheduler(address)
        super().__init__(client, Callee("scheduler", address, "--address or DISPATCH_ADDRESS=host:port"), timeout_s)
        self.stub = client.rpcs

    async def newest_event_id(self, *types: str) -> int:
        """The id of the newest event, as WatchEvents tells it when asked for what comes from now on; -1 when it does not.

        The scheduler checks the types. Raises Failure.
        """
        request = pb.WatchEventsRequest(after_event_id=-1, types=types)
        call = self.stub.WatchEvents(request, timeout=self.timeout_s, metadata=self._client.metadata)
        try:
            async with asyncio.timeout(self.timeout_s):
                told = dict(await call.initial_metadata() or ()).get("next-event-id", "")
                if not told:
                    # It has none where the call has ended already, or failed: reading says why.
                    await call.read()
        except grpc.aio.AioRpcError as error:
            raise failure_of(raised(error), request, self._callee, self.timeout_s) from error
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
        client = AsyncExecutor(address)
        super().__init__(client, Callee("executor", address, how_to_name), timeout_s)
        self.stub = client.rpcs


async def is_serving(address: str, timeout_s: float) -> bool:
    """Whether the gRPC service at an address says SERVING within the time."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
