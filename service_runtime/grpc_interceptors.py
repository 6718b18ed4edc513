"""The one interceptor of our servers: errors in the callers' words, calls counted and timed, bytes that do not decode refused."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from prometheus_client import Histogram

from service_runtime.errors import InvalidArgument, ResourceExhausted
from service_runtime.grpc_errors import grpc_status

_log = structlog.get_logger(__name__)

Handler = Any
ABORT_S = 1.0
_CODES = {code.value[0]: code for code in grpc.StatusCode}
Context = grpc.aio.ServicerContext[Any, Any]


class _Undecodable:
    """Stands for a request whose bytes do not decode."""


_UNDECODABLE = _Undecodable()


def _tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """A deserializer that never raises: grpc would answer UNKNOWN with the exception's text."""
    if deserialize is None:
        return None

    def decode(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception:  # noqa: BLE001 - whatever protobuf raises, the bytes are at fault
            return _UNDECODABLE

    return decode


if TYPE_CHECKING:
    _Base = grpc.aio.ServerInterceptor[Any, Any]
else:
    # Generic in its stubs only.
    _Base = grpc.aio.ServerInterceptor


class ServiceInterceptor(_Base):
    """Translates errors, times calls by method and code, and knows the handlers that are under way."""

    def __init__(self, domain: str, durations: Histogram | None, slow_reader_s: float) -> None:
        self._domain = domain
        self._slow_reader_s = slow_reader_s
        self._durations = durations
        self._running: set[asyncio.Task[Any]] = set()
        self._handlers: dict[str, Handler] = {}

    @property
    def running(self) -> frozenset[asyncio.Task[Any]]:
        """Handlers under way."""
        return frozenset(self._running)

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        method = str(details.method)
        # Asked for each call; a service's methods stay what they are.
        if (known := self._handlers.get(method)) is not None:
            return known
        handler = await continuation(details)
        if handler is not None:
            handler = self._handlers[method] = self._translating(method, handler)
        return handler

    def _translating(self, method: str, handler: Handler) -> Handler:
        decode = _tolerant(handler.request_deserializer)
        encode = handler.response_serializer
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._single(method, handler.unary_unary), decode, encode)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._stream(method, handler.unary_stream), decode, encode)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(
                self._single(method, handler.stream_unary, streaming=True), decode, encode
            )
        return grpc.stream_stream_rpc_method_handler(self._stream(method, handler.stream_stream, streaming=True), decode, encode)

    def _single(self, method: str, behaviour: Any, *, streaming: bool = False) -> Any:
        async def call(request: Any, context: Context) -> Any:
            async with _Call(self, method, context):
                result = behaviour(_checked(request, streaming=streaming), context)
                return await result if asyncio.iscoroutine(result) else result

        return call

    def _stream(self, method: str, behaviour: Any, *, streaming: bool = False) -> Any:
        async def call(request: Any, context: Context) -> None:
            async with _Call(self, method, context):
                result = behaviour(_checked(request, streaming=streaming), context)
                if asyncio.iscoroutine(result):
                    # A handler that writes through the context instead of yielding.
                    await result
                    return
                async with contextlib.aclosing(result):
                    async for response in result:
                        await self._write(context, response)

        return call

    async def _write(self, context: Context, response: Any) -> None:
        """Hands a message to the transport, which takes only so many bytes ahead of the reader. Raises ResourceExhausted."""
        try:
            async with asyncio.timeout(self._slow_reader_s):
                await context.write(response)
        except TimeoutError:
            raise ResourceExhausted(
                f"nothing was read for {self._slow_reader_s:g} s; open the stream anew",
                reason="TOO_SLOW",
                retry_after=timedelta(seconds=1),
            ) from None

    def _done(self, method: str, code: grpc.StatusCode, seconds: float) -> None:
        if self._durations is not None:
            self._durations.labels(method=method, code=code.name).observe(seconds)
        _log.debug("rpc", method=method, code=code.name, seconds=round(seconds, 4))


def _checked(request: Any, *, streaming: bool) -> Any:
    if streaming:
        return _checked_each(request)
    if request is _UNDECODABLE:
        raise InvalidArgument("the request does not decode", reason="UNDECODABLE")
    return request


async def _checked_each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request, streaming=False)


class _Call:
    """One call: how it ended, how long it took."""

    def __init__(self, interceptor: ServiceInterceptor, method: str, context: Context) -> None:
        self._interceptor = interceptor
        self._method = method
        self._context = context
        self._started = time.perf_counter()

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._interceptor._running.add(task)

    async def __aexit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._interceptor._running.discard(task)
        code = self._code(error)
        seconds = time.perf_counter() - self._started
        if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            status = grpc_status(error, self._interceptor._domain, self._method)
            self._interceptor._done(self._method, status.code, seconds)
            # Behind what was written before: somebody who reads nothing must not keep the handler waiting for that.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ABORT_S):
                    await self._context.abort_with_status(status)  # type: ignore[attr-defined]  # missing in types-grpcio
            return
        self._interceptor._done(self._method, code, seconds)

    def _code(self, error: BaseException | None) -> grpc.StatusCode:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            return grpc.StatusCode.CANCELLED
        told = self._context.code()
        if isinstance(told, grpc.StatusCode):
            return told
        return _CODES.get(told or 0, grpc.StatusCode.UNKNOWN)
