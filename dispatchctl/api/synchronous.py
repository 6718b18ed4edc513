"""Clients that block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self, TypeVar

import grpc
from cecelia.executor.v1.executor_service_pb2_grpc import ExecutorServiceStub
from cecelia.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from google.protobuf.message import Message

from dispatchctl.api.calls import limit_of, metadata_of, raised, this_caller, with_request_id
from dispatchctl.api.service_config import CHANNEL_OPTIONS

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class Client:
    """One channel to one service; a context manager, usable from many threads. `caller` is who the audit log names."""

    def __init__(self, address: str, *, caller: str = "") -> None:
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._metadata = metadata_of(caller or this_caller())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the channel and every call on it."""
        self._channel.close()

    def call(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, timeout_s: float | None = None
    ) -> Response:
        """One call, repeated while the service is unavailable if that does no harm. Raises errors.ServiceError.

        `timeout_s` is for all of it, in seconds; by default 10 (RunTick 30).
        """
        request = with_request_id(request)
        try:
            return method(request, timeout=limit_of(request, timeout_s), metadata=self._metadata)
        except grpc.RpcError as error:
            raise raised(error) from error

    def stream(
        self, method: grpc.UnaryStreamMultiCallable[Request, Response], request: Request, timeout_s: float | None = None
    ) -> Iterator[Response]:
        """The answers of a stream, until the service ends it or the caller stops reading. Raises errors.ServiceError.

        `timeout_s` is for the whole stream, in seconds; by default it lasts, and a peer that has gone without a word is found
        out within a minute.
        """
        call = method(request, timeout=limit_of(request, timeout_s), metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise raised(error) from error
        finally:
            call.cancel()  # type: ignore[no-untyped-call]  # its stub says nothing


class Scheduler(Client):
    """A scheduler; `rpcs` are its rpcs."""

    def __init__(self, address: str = "127.0.0.1:50051", *, caller: str = "") -> None:
        super().__init__(address, caller=caller)
        self.rpcs = SchedulerServiceStub(self._channel)


class Executor(Client):
    """An executor; `rpcs` are its rpcs."""

    def __init__(self, address: str = "127.0.0.1:50052", *, caller: str = "") -> None:
        super().__init__(address, caller=caller)
        self.rpcs = ExecutorServiceStub(self._channel)
