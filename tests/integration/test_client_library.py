"""dispatchctl.api against a real socket: request ids, repeats, deadlines, errors; and the service configs of protos/."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cecelia.executor.v1 import executor_service_pb2 as executor_pb
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from dispatchctl.api import AsyncScheduler, Scheduler, errors
from dispatchctl.api.service_config import METHODS, files
from service_runtime.grpc_errors import STATUS_CODES, error_of, status_code, status_of
from tests.fakes.any_service import AnyService, serving_any
from tests.fakes.fake_scheduler import FakeScheduler

PROTOS = Path(__file__).resolve().parents[2] / "protos"
SERVICE = pb.DESCRIPTOR.services_by_name["SchedulerService"]
GET = pb.GetTaskRequest(task_id="0b7e0a52-94f1-4f6d-9d4f-0a4d3c2b1a00")


class Unwell(AnyService):
    """Is UNAVAILABLE for the first calls, as often as told."""

    def __init__(self, times: int) -> None:
        super().__init__(SERVICE)
        self.left = times

    def _answer(self, method: MethodDescriptor, request: Message, context: grpc.ServicerContext) -> Any:
        if self.left:
            self.left -= 1
            self.requests.append(request)
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return super()._answer(method, request, context)


@contextmanager
def serving_fake() -> Iterator[str]:
    """The fake scheduler on a free port of loopback."""
    from cecelia.scheduler.v1 import scheduler_service_pb2_grpc as pb_grpc

    server = grpc.server(ThreadPoolExecutor(2))
    pb_grpc.add_SchedulerServiceServicer_to_server(FakeScheduler(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=0).wait(5)


def call_async(address: str, rpc: str, request: Message) -> Any:
    """One call of the asynchronous client."""

    async def call() -> Any:
        async with AsyncScheduler(address) as scheduler:
            return await scheduler.call(getattr(scheduler.rpcs, rpc), request)

    return asyncio.run(call())


def call_sync(address: str, rpc: str, request: Message) -> Any:
    """One call of the blocking client."""
    with Scheduler(address) as scheduler:
        return scheduler.call(getattr(scheduler.rpcs, rpc), request)


CALLS = pytest.mark.parametrize("call", [call_sync, call_async])


@CALLS
def test_reading_is_repeated_while_the_service_is_unavailable(call: Any) -> None:
    unwell = Unwell(2)
    with serving_any(unwell) as address:
        call(address, "GetTask", GET)
    assert unwell.requests == [GET] * 3


@CALLS
def test_a_change_is_repeated_under_one_request_id(call: Any) -> None:
    unwell = Unwell(2)
    with serving_any(unwell) as address:
        call(address, "SubmitTask", pb.SubmitTaskRequest(task=pb.TaskSpec(title="Count")))
    ids = [request.request_id for request in unwell.requests]  # type: ignore[attr-defined]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert ids[0]


@CALLS
def test_a_request_id_of_the_caller_stays(call: Any) -> None:
    service = AnyService(SERVICE)
    with serving_any(service) as address:
        call(address, "SetDrain", pb.SetDrainRequest(enabled=True, request_id="mine"))
    assert service.requests == [pb.SetDrainRequest(enabled=True, request_id="mine")]


@CALLS
def test_a_tick_is_never_repeated(call: Any) -> None:
    unwell = Unwell(1)
    with serving_any(unwell) as address, pytest.raises(errors.Unavailable, match="not now"):
        call(address, "RunTick", pb.RunTickRequest())
    assert len(unwell.requests) == 1


@CALLS
def test_repeats_have_an_end(call: Any) -> None:
    unwell = Unwell(100)
    with serving_any(unwell) as address, pytest.raises(errors.Unavailable):
        call(address, "GetTask", GET)
    assert len(unwell.requests) == 4


@CALLS
def test_an_error_carries_reason_and_fields(call: Any) -> None:
    with serving_fake() as address:
        with pytest.raises(errors.InvalidArgument) as caught:
            call(address, "SubmitTask", pb.SubmitTaskRequest())
        with pytest.raises(errors.NotFound) as unknown:
            call(address, "GetTask", GET)
    assert caught.value.reason == "INVALID_ARGUMENT"
    assert caught.value.violations == (errors.FieldViolation("task.title", "is empty"),)
    assert unknown.value.reason == "task_not_found"


def test_every_call_has_the_deadline_of_the_service_config_and_names_its_caller() -> None:
    seen: list[float | None] = []

    class Looking(AnyService):
        def _answer(self, method: MethodDescriptor, request: Message, context: grpc.ServicerContext) -> Any:
            seen.append(context.time_remaining())
            return super()._answer(method, request, context)

    service = Looking(SERVICE)
    with serving_any(service) as address, Scheduler(address, caller="billing-bot") as scheduler:
        scheduler.call(scheduler.rpcs.GetTask, GET)
        scheduler.call(scheduler.rpcs.RunTick, pb.RunTickRequest())
        scheduler.call(scheduler.rpcs.GetTask, GET, timeout_s=300)
        assert len(list(scheduler.stream(scheduler.rpcs.WatchTask, pb.WatchTaskRequest()))) == 1
    usual, tick, longer, stream = seen
    assert usual is not None
    assert tick is not None
    assert longer is not None
    # A server counts from when it hears of the call, give or take its own rounding.
    assert usual < 11 < tick < 31 < longer < 301
    # gRPC tells of a call without a deadline that it has very much time.
    assert stream is None or stream > 86_400
    assert {metadata["cecelia-actor"] for metadata in service.metadata} == {"billing-bot"}


@pytest.mark.parametrize("kind", list(STATUS_CODES))
def test_an_error_comes_back_as_it_was_told(kind: type[errors.ServiceError]) -> None:
    from datetime import timedelta

    told = kind(
        "no",
        reason="WHY",
        violations=(errors.FieldViolation("task.title", "is empty"),),
        retry_after=timedelta(seconds=1.5),
        metadata={"id": "7"},
    )
    back = error_of(status_code(told), "no", status_of(told, "dispatch.cecelia"))
    assert type(back) is kind
    assert vars(back) == vars(told)


def test_a_code_that_is_none_of_ours_is_a_plain_error_named_by_it() -> None:
    back = error_of(grpc.StatusCode.PERMISSION_DENIED, "go away", None)
    assert type(back) is errors.ServiceError
    assert (back.reason, back.message) == ("PERMISSION_DENIED", "go away")


def test_the_service_configs_are_current() -> None:
    stale = [name for name, text in files().items() if (PROTOS / name).read_text(encoding="utf-8") != text]
    assert stale == [], "run `make protos`"


@pytest.mark.parametrize(("name", "with_ids"), [("service_config.json", False), ("service_config_with_request_ids.json", True)])
def test_a_service_config_repeats_what_may_be_repeated_and_has_deadlines(name: str, with_ids: bool) -> None:
    config = json.loads((PROTOS / name).read_text(encoding="utf-8"))
    by_rpc = {entry["name"][0]["method"]: entry for entry in config["methodConfig"]}
    assert set(by_rpc) == {method.name for method in METHODS}
    changing = {"RunTick", "DispatchTasks", "AcknowledgeRuns", "RenewLeases", "CancelRun"}
    identified = {m.name for m in METHODS if "request_id" in GetMessageClass(m.input_type).DESCRIPTOR.fields_by_name}
    assert {"SubmitTask", "SubmitTasks", "SetDrain", "CancelTask"} <= identified
    repeated = {rpc for rpc, entry in by_rpc.items() if "retryPolicy" in entry}
    assert repeated == set(by_rpc) - changing - (set() if with_ids else identified)
    streams = {m.name for m in METHODS if m.server_streaming}
    assert {rpc for rpc, entry in by_rpc.items() if "timeout" not in entry} == streams
    assert executor_pb.DESCRIPTOR.services_by_name["ExecutorService"].full_name in {
        entry["name"][0]["service"] for entry in config["methodConfig"]
    }
