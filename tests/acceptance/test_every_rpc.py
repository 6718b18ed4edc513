"""Every rpc of both services: there, bounded, and with an error in the caller's words for each way to call it wrongly."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from cecelia.executor.v1 import executor_service_pb2 as ex
from cecelia.executor.v1 import executor_service_pb2_grpc as ex_grpc
from cecelia.scheduler.v1 import scheduler_service_pb2 as sc
from cecelia.scheduler.v1 import scheduler_service_pb2_grpc as sc_grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings

from executor_service.rpc.executor_servicer import ExecutorServicer
from scheduler_service.rpc.scheduler_servicer import SchedulerServicer
from tests.acceptance.programs import DESCRIPTION, Pair, eventually
from tests.acceptance.rpc_table import ENDED_TASK, EXECUTOR, NOBODY, SCHEDULER, TASK, USED_REQUEST_ID, Rpc, Wrong, spec
from tests.strategies.messages import messages

ROOT = Path(__file__).resolve().parents[2]
PROTOS = {
    "scheduler": ROOT / "protos/cecelia/scheduler/v1/scheduler_service.proto",
    "executor": ROOT / "protos/cecelia/executor/v1/executor_service.proto",
}
SERVICES = {
    "scheduler": sc.DESCRIPTOR.services_by_name["SchedulerService"],
    "executor": ex.DESCRIPTOR.services_by_name["ExecutorService"],
}
TABLES: dict[str, dict[str, Rpc]] = {"scheduler": SCHEDULER, "executor": EXECUTOR}
RPCS = [(service, method.name) for service, descriptor in SERVICES.items() for method in descriptor.methods]
CALL_S = 10.0
# A stream with nothing to tell is given up after that.
STREAM_S = 0.5
# What a caller may be told; anything else is a hole in our border.
ALLOWED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
OUR_WORDS = re.compile(r"Traceback|psycopg|asyncio|\.py\b|Exception|/work/|/tmp/|postgresql://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended."""

    code: grpc.StatusCode
    text: str = ""
    reason: str = ""
    fields: tuple[str, ...] = ()


class Caller:
    """Calls rpcs of a running pair by name, with messages or with raw bytes."""

    def __init__(self, scheduler_port: int, executor_port: int) -> None:
        self._channels = {
            "scheduler": grpc.insecure_channel(f"127.0.0.1:{scheduler_port}", options=OPTIONS),
            "executor": grpc.insecure_channel(f"127.0.0.1:{executor_port}", options=OPTIONS),
        }

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def call(self, service: str, name: str, request: Message | bytes, stream_s: float = CALL_S) -> Answer:
        """One call; of a stream, what comes of its first answer, or OK if none comes within a time."""
        method: MethodDescriptor = SERVICES[service].methods_by_name[name]
        path = f"/{SERVICES[service].full_name}/{name}"
        data = request if isinstance(request, bytes) else request.SerializeToString()
        channel = self._channels[service]
        try:
            if method.server_streaming:
                stream = channel.unary_stream(path, _same, _same)(data, timeout=stream_s)
                next(stream, None)
                stream.cancel()
            else:
                channel.unary_unary(path, _same, _same)(data, timeout=CALL_S)
        except grpc.RpcError as error:
            if method.server_streaming and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return Answer(grpc.StatusCode.OK, "nothing to tell yet")
            return answer_of(error)
        return Answer(grpc.StatusCode.OK)


OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1))


def _same(data: bytes) -> bytes:
    return data


def answer_of(error: Any) -> Answer:
    status = rpc_status.from_call(error)
    reason, fields = "", []
    for packed in status.details if status is not None else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if packed.Unpack(info):
            assert info.domain == "dispatch.cecelia"
            reason = info.reason
        elif packed.Unpack(bad):
            fields += [violation.field for violation in bad.field_violations]
            assert all(violation.description for violation in bad.field_violations)
    return Answer(error.code(), error.details() or "", reason, tuple(fields))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Caller]:
    """One running pair for all of these tests, with the things that the table's wrong calls need."""
    pair = Pair(
        tmp_path_factory.mktemp("pair"), "", TICK_ENABLED="false", RETRY_BACKOFF_MS="3600000", RETRY_BACKOFF_MAX_MS="3600000"
    )
    await pair.start()
    await _prepare(pair)
    caller = Caller(pair.scheduler.port, pair.executor.port)
    try:
        yield caller
    finally:
        caller.close()
        await pair.stop()


async def _prepare(pair: Pair) -> None:
    async with pair.calls() as stub, pair.executor_calls() as executor:
        submitted = sc.SubmitTaskRequest(task=spec(task_id=ENDED_TASK, description=DESCRIPTION), request_id=USED_REQUEST_ID)
        await stub.SubmitTask(submitted, timeout=CALL_S)

        async def dispatched() -> bool:
            # A busy machine may leave no slot for a while.
            ticked = await stub.RunTick(sc.RunTickRequest(), timeout=20)
            return any(decision.dispatched for decision in ticked.decisions)

        await eventually(dispatched)
        await pair.until_ended([ENDED_TASK])
        queued = sc.SubmitTasksRequest(
            tasks=[spec(task_id=TASK, not_before_time=Timestamp(seconds=4_000_000_000))], request_id=USED_REQUEST_ID
        )
        await stub.SubmitTasks(queued, timeout=CALL_S)
        used = {"request_id": USED_REQUEST_ID, "reason": "the first body"}
        for key in ("ResetBreaker", "TripBreaker"):
            await getattr(stub, key)(getattr(sc, f"{key}Request")(key="hk-minimax", **used), timeout=CALL_S)
        await stub.ResetBreaker(sc.ResetBreakerRequest(key="hk-minimax"), timeout=CALL_S)
        await stub.SetDrain(sc.SetDrainRequest(**used), timeout=CALL_S)
        now = Timestamp()
        now.GetCurrentTime()
        until = Timestamp(seconds=now.seconds + 3600)
        await stub.SetBillingPause(sc.SetBillingPauseRequest(until_time=until, **used), timeout=CALL_S)
        await stub.ClearBillingPause(sc.ClearBillingPauseRequest(**used), timeout=CALL_S)
        await stub.SetBudgetCap(sc.SetBudgetCapRequest(**used), timeout=CALL_S)
        setting = {"name": "DISPATCH_MIN_SAMPLE"}
        await stub.SetSetting(sc.SetSettingRequest(value="30", **setting, **used), timeout=CALL_S)
        await stub.ResetSetting(sc.ResetSettingRequest(**setting, **used), timeout=CALL_S)
        await stub.UpdateTask(
            sc.UpdateTaskRequest(task_id=TASK, task=spec(), update_mask={"paths": ["skill"]}, request_id=USED_REQUEST_ID),
            timeout=CALL_S,
        )
        await stub.CancelTask(sc.CancelTaskRequest(task_id=TASK, **used), timeout=CALL_S)
        await stub.RequeueTask(sc.RequeueTaskRequest(task_id=TASK, **used), timeout=CALL_S)
        none = {"task_types": ["nosuch"], **used}
        await stub.CancelTasks(sc.CancelTasksRequest(statuses=[sc.TASK_STATUS_QUEUED], **none), timeout=CALL_S)
        await stub.RequeueTasks(sc.RequeueTasksRequest(statuses=[sc.TASK_STATUS_FAILED], **none), timeout=CALL_S)
        # The highest term of a cluster of our own, and a run that is known.
        await executor.RenewLeases(ex.RenewLeasesRequest(cluster_id="the tests", term=5), timeout=CALL_S)
        run = ex.RunRequest(run_id=NOBODY, task_id=NOBODY, title="t", backend="cecelia-run", timeout=Duration(seconds=60))
        await executor.DispatchTasks(ex.DispatchTasksRequest(runs=[run]), timeout=CALL_S)


def wrong_calls() -> Iterator[Any]:
    for service, table in TABLES.items():
        for name, rpc in table.items():
            for number, wrong in enumerate(rpc.wrong):
                yield pytest.param(service, name, wrong, id=f"{name}-{wrong.field or wrong.code.name}-{number}")


def documented_errors(service: str, name: str) -> set[str]:
    """The status codes in the comment of an rpc."""
    comment = re.search(rf"// Errors: ([^\n]*)\n  rpc {name}\(", PROTOS[service].read_text())
    assert comment, f"{name} says nothing of its errors"
    return set(re.findall(r"[A-Z_]+", comment[1])) & {code.name for code in grpc.StatusCode}


@pytest.mark.parametrize(("service", "name"), RPCS)
def test_every_rpc_has_an_owner_and_is_in_the_table(service: str, name: str) -> None:
    servicer, base = {
        "scheduler": (SchedulerServicer, sc_grpc.SchedulerServiceServicer),
        "executor": (ExecutorServicer, ex_grpc.ExecutorServiceServicer),
    }[service]
    assert getattr(servicer, name) is not getattr(base, name), "not carried out"
    assert name in TABLES[service], "a new rpc must join the table"


@pytest.mark.parametrize(("service", "name"), RPCS)
def test_every_documented_error_is_brought_about_and_every_one_brought_about_is_documented(service: str, name: str) -> None:
    rpc = TABLES[service][name]
    elsewhere = dict(rpc.elsewhere or {})
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for test in elsewhere.values():
        assert f"def {test}(" in tests, f"there is no test {test}"
    assert {wrong.code.name for wrong in rpc.wrong} | set(elsewhere) == documented_errors(service, name)


@pytest.mark.parametrize(("service", "name"), RPCS)
def test_a_right_call_is_answered_within_its_deadline(served: Caller, service: str, name: str) -> None:
    answer = served.call(service, name, TABLES[service][name].right, STREAM_S)
    # The prepared task may be in another state by now: an answer in words is an answer.
    assert answer.code in ALLOWED - {grpc.StatusCode.RESOURCE_EXHAUSTED}, answer


@pytest.mark.parametrize(("service", "name", "wrong"), list(wrong_calls()))
def test_a_wrong_call_names_what_is_wrong(served: Caller, service: str, name: str, wrong: Wrong) -> None:
    answer = served.call(service, name, wrong.request)
    assert answer.code is wrong.code, answer
    assert answer.reason
    assert not OUR_WORDS.search(answer.text), answer
    if wrong.field:
        assert wrong.field in answer.fields, answer
    assert bool(answer.fields) == bool(wrong.field)


GARBAGE = {
    "no protobuf": b"\xff\xff\xff",
    "cut short": b"\x0a\x05ab",
    "a length beyond the end": b"\x0a\xff\xff\xff\xff\x0f",
    "half a character": b"\x0a\x02\xc3\x28",
}


@pytest.mark.parametrize(("service", "name"), RPCS)
def test_bytes_that_do_not_decode_are_refused_without_a_word_of_ours(served: Caller, service: str, name: str) -> None:
    for what, data in GARBAGE.items():
        answer = served.call(service, name, data, STREAM_S if what == "half a character" else CALL_S)
        # An unknown field is none of our business: whoever has no field 1 passes over what is well formed.
        assert answer.code is grpc.StatusCode.INVALID_ARGUMENT or (what == "half a character" and answer.code in ALLOWED), (
            what,
            answer,
        )
        assert not OUR_WORDS.search(answer.text), answer


@pytest.mark.parametrize(("service", "name"), RPCS)
def test_a_message_that_is_too_large_is_resource_exhausted(served: Caller, service: str, name: str) -> None:
    answer = served.call(service, name, b"\xfa\x3f" + (5 * 1024 * 1024).to_bytes(4, "little") + b"x")
    too_large = b"\xfa\x7d" + _varint(5 * 1024 * 1024) + bytes(5 * 1024 * 1024)
    assert served.call(service, name, too_large).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answer.code in ALLOWED


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def test_a_payload_too_deep_to_decode_is_an_invalid_argument(served: Caller) -> None:
    """A Struct decodes some thirty levels; what is deeper never reaches a handler."""
    value = b"\x1a\x01a"
    for _ in range(200):
        field = b"\x0a\x01a\x12" + _varint(len(value)) + value
        entry = b"\x0a" + _varint(len(field)) + field
        value = b"\x2a" + _varint(len(entry)) + entry
    payload = b"\x3a" + _varint(len(entry)) + entry
    answer = served.call("scheduler", "SubmitTask", b"\x0a" + _varint(len(payload)) + payload)
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ())


@pytest.mark.parametrize(("service", "name"), RPCS)
def test_whatever_is_sent_the_answer_is_in_the_callers_words(served: Caller, service: str, name: str) -> None:
    method = SERVICES[service].methods_by_name[name]

    @settings(max_examples=12, suppress_health_check=list(HealthCheck))
    @given(messages(method.input_type))
    def ask(request: Message) -> None:
        answer = served.call(service, name, request, STREAM_S)
        assert answer.code in ALLOWED, (answer, request)
        assert not OUR_WORDS.search(answer.text), answer
        if answer.code is not grpc.StatusCode.OK:
            assert answer.reason, answer
        if answer.code is grpc.StatusCode.INVALID_ARGUMENT:
            assert answer.fields, answer

    ask()


def test_after_all_that_the_pair_still_works(served: Caller) -> None:
    for service, table in TABLES.items():
        for name, rpc in table.items():
            answer = served.call(service, name, rpc.right, STREAM_S)
            assert answer.code in ALLOWED - {grpc.StatusCode.RESOURCE_EXHAUSTED}, (name, answer)
