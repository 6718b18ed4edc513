"""Clients for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Self, TypeVar

import grpc
from cecelia.executor.v1.executor_service_pb2_grpc import ExecutorServiceStub
from cecelia.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from google.protobuf.message import Message

from dispatchctl.api.calls import limit_of, metadata_of, raised, this_caller, with_request_id
from dispatchctl.api.service_config import CHANNEL_OPTIONS
from service_runtime import errors

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
OPEN_S = 10.0


class AsyncClient:
    """One channel to one service; an asynchronous context manager. `caller` is who the audit log names."""

    def __init__(self, address: str, *, caller: str = "") -> None:
        self.channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self.metadata = metadata_of(caller or this_caller())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the channel and every call on it."""
        await self.channel.close(grace=0)

    async def call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, timeout_s: float | None = None
    ) -> Response:
        """One call, repeated while the service is unavailable if that does no harm. Raises errors.ServiceError.

        `timeout_s` is for all of it, in seconds; by default 10 (RunTick 30).
        """
        request = with_request_id(request)
        try:
            return await method(request, timeout=limit_of(request, timeout_s), metadata=self.metadata)
        except grpc.aio.AioRpcError as error:
            raise raised(error) from error

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        open_s: float = OPEN_S,
        may_be_silent: bool = False,
    ) -> AsyncGenerator[Response, None]:
        """The answers of a stream, until the service ends it or the caller stops reading. Raises errors.ServiceError.

        It must open within `open_s` seconds, unless nothing may come for long (`may_be_silent`): some streams open with their
        first message only.
        """
        call = method(request, metadata=self.metadata)
        try:
            if not may_be_silent:
                async with asyncio.timeout(open_s):
                    await call.initial_metadata()
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise raised(error) from error
        except TimeoutError as error:
            raise errors.DeadlineExceeded("the stream did not open", reason="DEADLINE_EXCEEDED") from error
        finally:
            call.cancel()


class AsyncScheduler(AsyncClient):
    """A scheduler; `rpcs` are its rpcs."""

    def __init__(self, address: str = "127.0.0.1:50051", *, caller: str = "") -> None:
        super().__init__(address, caller=caller)
        self.rpcs = SchedulerServiceStub(self.channel)


class AsyncExecutor(AsyncClient):
    """An executor; `rpcs` are its rpcs."""

    def __init__(self, address: str = "127.0.0.1:50052", *, caller: str = "") -> None:
        super().__init__(address, caller=caller)
        self.rpcs = ExecutorServiceStub(self.channel)
