"""The edge of our gRPC servers over real sockets: nothing leaks, nothing is UNKNOWN, bursts are served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry

from service_runtime.errors import FieldViolation, InvalidArgument, ResourceExhausted
from service_runtime.grpc_server import GrpcServer, OfferedService
from service_runtime.lifecycle import StartupError
from service_runtime.metrics import MetricSet

SECRET = "hunter2"
NAME = "test.v1.EchoService"


class Echo:
    """Answers, refuses and breaks as the request says."""

    def __init__(self) -> None:
        self.finished = 0
        self.sent = 0

    async def unary(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckRequest:
        if request.service == "break":
            raise RuntimeError(f"dsn password={SECRET}")
        if request.service == "refuse":
            raise InvalidArgument("the field is wrong", reason="WRONG", violations=(FieldViolation("field", "is 1; must be 2"),))
        if request.service == "later":
            raise ResourceExhausted("full", reason="FULL", retry_after=timedelta(seconds=3))
        if request.service == "slow":
            try:
                await asyncio.sleep(0.3)
            finally:
                self.finished += 1
        return request

    async def stream(self, request: health_pb2.HealthCheckRequest, context: Any) -> AsyncIterator[health_pb2.HealthCheckRequest]:
        yield request
        if request.service == "break":
            raise RuntimeError(SECRET)
        if request.service == "flood":
            try:
                while True:
                    yield health_pb2.HealthCheckRequest(service="x" * 10_000)
                    self.sent += 10_000
            finally:
                self.finished += 1


def add(servicer: Echo, server: Any) -> None:
    message = health_pb2.HealthCheckRequest
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(servicer.unary, message.FromString, message.SerializeToString),
        "Stream": grpc.unary_stream_rpc_method_handler(servicer.stream, message.FromString, message.SerializeToString),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))


class Running:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.echo = Echo()
        durations = MetricSet(self.registry, "test").rpc_durations()
        self.server = GrpcServer("127.0.0.1:0", "TEST_ADDRESS", domain="test.domain", durations=durations, slow_reader_s=1.0)
        self.server.offer(OfferedService(add, self.echo, NAME))
        self.port = 0


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    made = Running()
    made.port = made.server.bind()
    await made.server.start()
    yield made
    await made.server.stop(1.0)


@pytest.fixture
async def channel(running: Running) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as made:
        yield made


def unary(channel: grpc.aio.Channel, raw: bool = False) -> Any:
    serialize = None if raw else health_pb2.HealthCheckRequest.SerializeToString
    return channel.unary_unary(f"/{NAME}/Unary", serialize, health_pb2.HealthCheckRequest.FromString)


def say(word: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=word)


async def test_an_unexpected_exception_tells_only_an_id(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel)(say("break"), timeout=5)
    error = caught.value
    assert error.code() is grpc.StatusCode.INTERNAL
    assert (error.details() or "").startswith("internal error, id ")
    assert SECRET not in repr(error) + repr(error.trailing_metadata())


async def test_a_broken_stream_tells_only_an_id(channel: grpc.aio.Channel) -> None:
    method = channel.unary_stream(
        f"/{NAME}/Stream", health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckRequest.FromString
    )
    call = method(say("break"), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
async def test_bytes_that_do_not_decode_are_an_invalid_argument(channel: grpc.aio.Channel, data: bytes) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel, raw=True)(data, timeout=5)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "the request does not decode")


async def test_too_large_a_message_is_resource_exhausted(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel)(say("x" * (4 * 1024 * 1024 + 1)), timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stream_that_nobody_reads_is_cut_off_and_holds_little(running: Running, channel: grpc.aio.Channel) -> None:
    message = health_pb2.HealthCheckRequest
    method = channel.unary_stream(
        f"/{NAME}/Stream", request_serializer=message.SerializeToString, response_deserializer=message.FromString
    )
    stream = method(message(service="flood"))
    assert (await stream.read()).service == "flood"
    async with asyncio.timeout(30):
        while not running.echo.finished:
            await asyncio.sleep(0.02)
    assert running.echo.sent < 16 * 1024 * 1024, "the transport takes a window's worth and no more"

    async def read_on() -> None:
        while await stream.read() is not grpc.aio.EOF:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as cut:
        await read_on()
    assert cut.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status: Any = rpc_status.from_call(cut.value)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "TOO_SLOW"
    counted = {
        (sample.labels["method"], sample.labels["code"]): sample.value
        for metric in running.registry.collect()
        for sample in metric.samples
        if sample.name.endswith("_count")
    }
    assert {key: n for key, n in counted.items() if key[0].endswith("/Stream")} == {(f"/{NAME}/Stream", "RESOURCE_EXHAUSTED"): 1}
    # The server is none the worse for it.
    assert (await channel.unary_unary(f"/{NAME}/Unary")(b"")) == b""


async def test_an_unknown_method_is_unimplemented(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(f"/{NAME}/Nothing")(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_errors_carry_reason_violations_and_retry(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel)(say("refuse"), timeout=5)
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # has all that it reads
    assert status is not None
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.reason, info.domain) == ("WRONG", "test.domain")
    assert bad.field_violations[0].field == "field"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel)(say("later"), timeout=5)
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # has all that it reads
    retry = error_details_pb2.RetryInfo()
    assert status is not None
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 3


async def test_a_burst_of_three_thousand_is_served(channel: grpc.aio.Channel) -> None:
    method = unary(channel)
    answers = await asyncio.gather(*(method(say("x"), timeout=60) for _ in range(3_000)), return_exceptions=True)
    assert [a for a in answers if isinstance(a, BaseException)] == []


async def test_calls_are_counted_by_method_and_code(running: Running, channel: grpc.aio.Channel) -> None:
    await unary(channel)(say("x"), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError):
        await unary(channel)(say("refuse"), timeout=5)

    def count(code: str) -> float | None:
        labels = {"method": f"/{NAME}/Unary", "code": code}
        return running.registry.get_sample_value("test_rpc_server_duration_seconds_count", labels)

    assert (count("OK"), count("INVALID_ARGUMENT")) == (1, 1)


async def test_health_follows_what_is_said_and_reflection_lists_the_services(running: Running, channel: grpc.aio.Channel) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    for serving, expected in ((False, 2), (True, 1)):
        await running.server.set_serving(serving)
        for name in ("", NAME):
            assert (await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status == expected
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")

    async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield request

    async for answer in reflection.ServerReflectionInfo(requests(), timeout=5):
        listed = {service.name for service in answer.list_services_response.service}
        assert {NAME, "grpc.health.v1.Health"} <= listed
        break


async def test_stopping_waits_for_handlers(running: Running, channel: grpc.aio.Channel) -> None:
    calls = [asyncio.ensure_future(unary(channel)(say("slow"), timeout=5)) for _ in range(3)]
    while len(list(running.server._interceptor.running)) < 3:
        await asyncio.sleep(0.01)
    await running.server.stop(5.0)
    assert running.echo.finished == 3
    assert [a for a in await asyncio.gather(*calls, return_exceptions=True) if isinstance(a, BaseException)] == []


async def test_a_taken_port_is_named_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = GrpcServer(f"127.0.0.1:{port}", "TEST_ADDRESS", domain="d")
        with pytest.raises(StartupError, match=f"TEST_ADDRESS=127.0.0.1:{port}"):
            server.bind()
        await server.stop(0)
