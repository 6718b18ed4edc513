"""What a foreign executor may say, over a real socket: nothing of it stops the scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from cecelia.executor.v1 import executor_service_pb2 as pb
from cecelia.executor.v1 import executor_service_pb2_grpc as pb_grpc
from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import structs

from scheduler_service.core.limits import DISPATCH_MAX_BYTES, DISPATCH_MAX_RUNS
from scheduler_service.core.run import ExecutorReport, LeaderIdentity, ReplayEnd, RunOrder, RunReport, Stamp
from scheduler_service.errors import ExecutorUnreachable
from scheduler_service.rpc.executor_client import GrpcExecutorClient

IDENTITY = LeaderIdentity(uuid4(), 1)
STAMP = Stamp("boot", 1)


class Foreign(pb_grpc.ExecutorServiceServicer):
    """Says what it is told."""

    def __init__(self) -> None:
        self.says: list[pb.WatchRunsResponse] = []
        self.answers: list[pb.DispatchResult] | None = None
        self.batches: list[pb.DispatchTasksRequest] = []

    async def WatchRuns(self, request: pb.WatchRunsRequest, context: Any) -> AsyncIterator[pb.WatchRunsResponse]:
        for message in self.says:
            yield message

    async def DispatchTasks(self, request: pb.DispatchTasksRequest, context: Any) -> pb.DispatchTasksResponse:
        self.batches.append(request)
        if any(run.title == "refuse me" for run in request.runs):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "runs[1].skill has 200 characters")
        answers = self.answers
        if answers is None:
            answers = [pb.DispatchResult(run_id=run.run_id, accepted=True) for run in request.runs]
        return pb.DispatchTasksResponse(results=answers)

    async def RenewLeases(self, request: pb.RenewLeasesRequest, context: Any) -> pb.RenewLeasesResponse:
        return pb.RenewLeasesResponse(unknown=["no uuid"])


@pytest.fixture
async def foreign() -> AsyncIterator[tuple[Foreign, GrpcExecutorClient]]:
    server, servicer = grpc.aio.server(), Foreign()
    pb_grpc.add_ExecutorServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = GrpcExecutorClient(f"127.0.0.1:{port}")
    yield servicer, client
    await client.close()
    await server.stop(0)


def order(description: str = "") -> RunOrder:
    return RunOrder(uuid4(), uuid4(), 1, "h", "b", "t", description, "dev", {}, timedelta(hours=1), "", "", "", "")


async def test_nonsense_is_passed_over_and_sense_is_taken(foreign: tuple[Foreign, GrpcExecutorClient]) -> None:
    servicer, client = foreign
    run_id = str(uuid4())
    good = pb.Run(
        run_id=run_id, task_id=run_id, fence=1, state=pb.RUN_STATE_ENDED, outcome=pb.RUN_OUTCOME_COMPLETED, result="a\x00b"
    )
    good.usage.fields["tokens"].number_value = 7
    good.usage.fields["nan"].number_value = float("nan")
    good.usage.fields["list"].list_value.SetInParent()
    servicer.says = [
        pb.WatchRunsResponse(),
        pb.WatchRunsResponse(run=pb.Run(run_id="not a uuid", task_id="x", state=pb.RUN_STATE_RUNNING)),
        pb.WatchRunsResponse(
            run=pb.Run(run_id=run_id, task_id=run_id, state=pb.RUN_STATE_ENDED, retry_time=Timestamp(seconds=-5))
        ),
        pb.WatchRunsResponse(run=pb.Run(run_id=run_id, task_id=run_id, state=99)),  # type: ignore[arg-type]  # of a newer version
        pb.WatchRunsResponse(snapshot=pb.ExecutorSnapshot(executor_id="h")),
        pb.WatchRunsResponse(run=good),
        pb.WatchRunsResponse(replay_end=pb.ReplayEnd(runs=1)),
    ]
    heard: list[object] = []

    async def listen() -> None:
        async for messages in client.watch(IDENTITY):
            heard.extend(messages)

    with pytest.raises(ExecutorUnreachable):
        async with asyncio.timeout(10):
            await listen()
    kinds = [type(message) for message in heard]
    assert kinds[-3:] == [ExecutorReport, RunReport, ReplayEnd]
    final = heard[-2]
    assert isinstance(final, RunReport)
    assert (final.run_id, final.result, final.usage) == (UUID(run_id), "a\ufffdb", {"tokens": 7})


async def test_many_runs_in_a_message_are_as_many_reports_and_one_without_sense_spoils_no_other(
    foreign: tuple[Foreign, GrpcExecutorClient],
) -> None:
    servicer, client = foreign
    ids = [str(uuid4()) for _ in range(3)]
    runs = [pb.Run(run_id=id_, task_id=id_, state=pb.RUN_STATE_RUNNING) for id_ in ids]
    runs.insert(1, pb.Run(run_id="not a uuid", task_id="x", state=pb.RUN_STATE_RUNNING))
    runs.insert(2, pb.Run(run_id=ids[0], task_id=ids[0], state=pb.RUN_STATE_REFUSED))
    servicer.says = [pb.WatchRunsResponse(runs=pb.RunBatch(runs=runs)), pb.WatchRunsResponse(replay_end=pb.ReplayEnd(runs=3))]
    reports, end = [], []
    async for messages in client.watch(IDENTITY):
        if isinstance(messages[0], ReplayEnd):
            end = list(messages)
            break
        reports += messages
    assert [str(report.run_id) for report in reports if isinstance(report, RunReport)] == ids
    assert (len(reports), end) == (3, [ReplayEnd(3)])


async def test_an_unreadable_answer_is_no_answer(foreign: tuple[Foreign, GrpcExecutorClient]) -> None:
    servicer, client = foreign
    servicer.answers = [pb.DispatchResult(run_id="not a uuid", accepted=True)]
    with pytest.raises(ExecutorUnreachable):
        await client.dispatch(IDENTITY, [order()], STAMP, timedelta(minutes=10))


async def test_batches_stay_within_the_executors_bounds(foreign: tuple[Foreign, GrpcExecutorClient]) -> None:
    servicer, client = foreign
    orders = [order() for _ in range(DISPATCH_MAX_RUNS + 1)] + [order("x" * 250_000) for _ in range(12)]
    answers = await client.dispatch(IDENTITY, orders, STAMP, timedelta(minutes=10))
    assert [answer.run_id for answer in answers] == [o.run_id for o in orders]
    assert all(len(b.runs) <= DISPATCH_MAX_RUNS and b.ByteSize() <= DISPATCH_MAX_BYTES for b in servicer.batches)
    assert len(servicer.batches) == 3


async def test_nobody_there_is_unreachable() -> None:
    client = GrpcExecutorClient("127.0.0.1:9")
    with pytest.raises(ExecutorUnreachable):
        await client.acknowledge(IDENTITY, [uuid4()])
    await client.close()


async def test_a_batch_that_is_refused_as_a_whole_is_sent_run_by_run(foreign: tuple[Foreign, GrpcExecutorClient]) -> None:
    _servicer, client = foreign
    orders = [order(), structs.replace(order(), title="refuse me"), order()]
    answers = await client.dispatch(IDENTITY, orders, STAMP, timedelta(minutes=10))
    assert [(a.run_id, a.accepted, a.reason) for a in answers] == [
        (orders[0].run_id, True, ""),
        (orders[1].run_id, False, "config_error"),
        (orders[2].run_id, True, ""),
    ]


async def test_a_snapshot_that_cannot_be_stored_is_made_storable(foreign: tuple[Foreign, GrpcExecutorClient]) -> None:
    servicer, client = foreign
    snapshot = pb.ExecutorSnapshot(executor_id="h\0", version="\0", backends=[pb.BackendAvailability(backend="b\0", detail="\0")])
    snapshot.resources.max_pressure = float("nan")
    servicer.says = [pb.WatchRunsResponse(snapshot=snapshot)]
    async for (message,) in client.watch(IDENTITY):
        assert isinstance(message, ExecutorReport)
        assert "\0" not in repr(message).replace("\\x00", "\0")
        assert message.max_pressure == 1.0
        break


async def test_a_final_with_a_senseless_retry_time_is_a_final(foreign: tuple[Foreign, GrpcExecutorClient]) -> None:
    servicer, client = foreign
    id_ = str(uuid4())
    run = pb.Run(
        run_id=id_, task_id=id_, state=pb.RUN_STATE_ENDED, outcome=pb.RUN_OUTCOME_FAILED, retry_time=Timestamp(seconds=-5)
    )
    servicer.says = [pb.WatchRunsResponse(run=run)]
    async for (message,) in client.watch(IDENTITY):
        assert isinstance(message, RunReport)
        assert message.retry_time is None
        break


@pytest.mark.parametrize(
    ("start", "accept", "delay"),
    [
        (Timestamp(seconds=100, nanos=500_000_000), Timestamp(seconds=99), timedelta(seconds=1.5)),
        (Timestamp(seconds=99), Timestamp(seconds=100), timedelta(0)),
        (Timestamp(seconds=1_764_000_000_000), Timestamp(seconds=1_764_000_000), None),
        (Timestamp(seconds=2**62), Timestamp(seconds=-(2**62)), None),
        (None, Timestamp(seconds=100), None),
    ],
)
async def test_a_start_tells_how_long_it_took_unless_its_times_make_no_sense(
    foreign: tuple[Foreign, GrpcExecutorClient], start: Timestamp | None, accept: Timestamp, delay: timedelta | None
) -> None:
    servicer, client = foreign
    id_ = str(uuid4())
    run = pb.Run(run_id=id_, task_id=id_, state=pb.RUN_STATE_RUNNING, start_time=start, accept_time=accept)
    servicer.says = [pb.WatchRunsResponse(run=run)]
    async for (message,) in client.watch(IDENTITY):
        assert isinstance(message, RunReport)
        assert message.start_delay == delay
        break


async def test_a_renewal_answered_with_nonsense_is_no_answer(foreign: tuple[Foreign, GrpcExecutorClient]) -> None:
    _servicer, client = foreign
    with pytest.raises(ExecutorUnreachable, match="unreadable"):
        await client.renew(IDENTITY, [], [], STAMP, timedelta(minutes=10))
