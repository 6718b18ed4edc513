"""The pair at its work: a task goes through, breakers open and close, and whatever is killed comes back to the same truth."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from pathlib import Path
from uuid import UUID

import grpc
import psycopg
import pytest
from cecelia.executor.v1 import executor_service_pb2 as executor_pb
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.acceptance.programs import DESCRIPTION, Pair, eventually, guards_of


async def test_a_task_goes_through(pair: Pair) -> None:
    (id_,) = await pair.submit(title="Read this prompt")
    (task,) = await pair.until_ended([id_])
    assert task.status == pb.TASK_STATUS_COMPLETED
    assert task.outcome.exit_code == 0
    assert task.outcome.result.startswith("Read this prompt\n\nA description")
    assert (task.executor_id, task.backend) == ("host-a", "cecelia-run")
    assert pair.starts() == pair.ends() == [id_]
    assert UUID(task.run_id).version == UUID(id_).version == 7, "made in the order of time: service_runtime/ids.py"


async def test_the_window_in_sql_is_the_window_of_the_rpc(pair: Pair, database_url: str) -> None:
    await pair.until_ended([*await pair.submit(3), *await pair.submit(1, title="x")])
    async with pair.calls() as stub, await psycopg.AsyncConnection.connect(database_url) as connection:
        stats = await stub.GetDispatchStats(pb.GetDispatchStatsRequest(), timeout=10)
        cursor = await connection.execute("SELECT value_json FROM working_memory WHERE key = 'dispatch_stats'")
        row = await cursor.fetchone()
        assert row is not None
        shown = row[0]["window_1h"]
        window = stats.window_1h
        assert (shown["total"], shown["success"], shown["failed"]) == (window.total, window.success, window.failed)
        assert window.success == 3
        assert shown["rate"] == pytest.approx(window.rate)
        assert shown["failure_reasons"] == dict(window.failure_reasons)
        assert window.failure_reasons["pre_flight_check_failed"] == 1
        assert shown["last_updated"] == window.last_updated.ToDatetime().isoformat(timespec="milliseconds") + "Z"
        latest = await (
            await connection.execute("SELECT value_json->'events'->-1 FROM working_memory WHERE key = 'dispatch_stats'")
        ).fetchone()
        assert latest is not None
        assert set(latest[0]) >= {"ts", "success"}
        keys = await (await connection.execute("SELECT array_agg(key ORDER BY key) FROM working_memory")).fetchone()
        assert keys == (["billing_pause", "circuit_breaker", "dispatch_stats", "drain", "tick_last_dispatch"],)


async def test_a_missing_interpreter_opens_the_breaker_one_probe_runs_and_a_reset_closes_it(pair: Pair) -> None:
    pair.write_command(interpreter="/no/such/interpreter")
    await pair.submit(3)

    async def breaker(key: str = "cecelia-run") -> pb.Breaker:
        async with pair.calls() as stub:
            return (await stub.GetBreaker(pb.GetBreakerRequest(key=key), timeout=10)).breaker

    async def opened() -> pb.Breaker | None:
        found = await breaker()
        return found if found.state == pb.BREAKER_STATE_OPEN else None

    first = await eventually(opened)
    assert (first.failures, first.reason) == (3, "failure_threshold_reached")

    async def blocked() -> bool:
        async with pair.calls() as stub:
            request = pb.ListDispatchEventsRequest(reason="circuit_breaker_open")
            return bool((await stub.ListDispatchEvents(request, timeout=10)).events)

    assert await eventually(blocked)

    async def probed() -> pb.Breaker | None:
        found = await breaker("cecelia-run@host-a")
        return found if found.reason == "half_open_probe_failed" else None

    after_probe = await eventually(probed)
    assert after_probe.failures == 4, "one failure more: the probe's"
    async with pair.calls() as stub:
        attempts = (await stub.GetDispatchStats(pb.GetDispatchStatsRequest(), timeout=10)).attempts
        assert (attempts.success, attempts.failed) == (0, 4)
        pair.write_command()
        reset = await stub.ResetBreaker(pb.ResetBreakerRequest(key="cecelia-run", reason="mended"), timeout=10)
        assert (reset.before.state, reset.after.state) == (pb.BREAKER_STATE_OPEN, pb.BREAKER_STATE_CLOSED)
        async with pair.calls() as other:
            both = await asyncio.gather(
                stub.ListBreakers(pb.ListBreakersRequest(), timeout=10), other.ListBreakers(pb.ListBreakersRequest(), timeout=10)
            )
        assert both[0] == both[1]
        assert {b.key: b.state for b in both[0].breakers} == dict.fromkeys(
            ("cecelia-run", "cecelia-run@host-a", "hk-minimax"), pb.BREAKER_STATE_CLOSED
        )


async def test_killing_the_scheduler_loses_and_doubles_nothing(pair: Pair) -> None:
    pair.write_command(seconds=1.0)
    ids = await pair.submit(6)
    for _ in range(2):
        await eventually(lambda: _true(len(pair.starts()) >= 1))
        await pair.scheduler.kill()
        await pair.scheduler.start()
    tasks = await pair.until_ended(ids)
    assert {task.status for task in tasks} == {pb.TASK_STATUS_COMPLETED}
    assert Counter(pair.starts()) == Counter(pair.ends()) == Counter(ids)


async def test_killing_the_executor_starts_no_living_run_again(pair: Pair) -> None:
    pair.write_command(seconds=1.5)
    ids = await pair.submit(4)
    await eventually(lambda: _true(len(pair.starts()) >= 4))
    await pair.executor.kill()
    assert set(guards_of(pair.folder)), "the guards outlive the executor"
    await pair.executor.start()
    tasks = await pair.until_ended(ids)
    assert {task.status for task in tasks} == {pb.TASK_STATUS_COMPLETED}
    assert Counter(pair.starts()) == Counter(pair.ends()) == Counter(ids)


async def test_a_stopped_executor_keeps_its_runs_and_a_stopped_scheduler_gives_its_lease_back(pair: Pair) -> None:
    pair.write_command(seconds=6)
    ids = await pair.submit(2)
    await eventually(lambda: _true(len(pair.starts()) >= 2))
    assert await pair.executor.end() == 0
    assert await pair.scheduler.end() == 0
    assert len(set(guards_of(pair.folder))) == 2
    await pair.executor.start()
    await pair.scheduler.start()
    assert {task.status for task in await pair.until_ended(ids)} == {pb.TASK_STATUS_COMPLETED}
    assert Counter(pair.starts()) == Counter(ids)


async def test_a_cancelled_run_is_gone_with_everything_below_it(pair: Pair) -> None:
    pair.write_command(seconds=600)
    (id_,) = await pair.submit()
    await eventually(lambda: _true(len(pair.starts()) >= 1))
    (guard,) = guards_of(pair.folder)
    async with pair.calls() as stub:
        answer = await stub.CancelTask(pb.CancelTaskRequest(task_id=id_, reason="enough"), timeout=10)
        assert answer.task.hold_reason == "cancel_requested"
    (task,) = await pair.until_ended([id_])
    assert task.status == pb.TASK_STATUS_CANCELLED
    assert pair.ends() == []
    assert not os.path.exists(f"/proc/{guard}/environ") or _read(f"/proc/{guard}/cmdline") == b""


async def test_run_tick_dispatches_when_the_clock_does_not(tmp_path: Path, database_url: str) -> None:
    pair = Pair(tmp_path, database_url, TICK_ENABLED="false")
    await pair.start()
    try:
        ids = await pair.submit(2)
        async with pair.calls() as stub:
            decisions = []
            for _ in range(3):
                answer = await stub.RunTick(pb.RunTickRequest(), timeout=20)
                decisions += [d for d in answer.decisions if d.dispatched]
                await asyncio.sleep(1.05)  # the ramp of a new leader doubles once a second
            assert {d.task_id for d in decisions} == set(ids)
        await pair.until_ended(ids)
    finally:
        await pair.stop()


async def test_the_executor_alone_answers_and_is_idempotent(pair: Pair) -> None:
    run = executor_pb.RunRequest(
        run_id="123e4567-e89b-42d3-a456-426614174000",
        task_id="223e4567-e89b-42d3-a456-426614174000",
        fence=1,
        title="Sent by hand",
        description="Straight to the executor.",
        backend="cecelia-run",
    )
    second = executor_pb.RunRequest()
    second.CopyFrom(run)
    second.run_id = "323e4567-e89b-42d3-a456-426614174000"
    pair.write_command(seconds=0.6)
    async with pair.executor_calls() as stub:
        for _ in range(3):
            answer = await stub.DispatchTasks(executor_pb.DispatchTasksRequest(runs=[run]), timeout=10)
            assert answer.results[0].accepted
        answer = await stub.DispatchTasks(executor_pb.DispatchTasksRequest(runs=[second]), timeout=10)
        assert answer.results[0].reason == "already_running"

        async def ended() -> executor_pb.Run | None:
            found = (await stub.GetRun(executor_pb.GetRunRequest(run_id=run.run_id), timeout=10)).run
            return found if found.state == executor_pb.RUN_STATE_ENDED else None

        assert (await eventually(ended)).outcome == executor_pb.RUN_OUTCOME_COMPLETED
        unseen = await stub.CancelRun(executor_pb.CancelRunRequest(run_id=second.run_id), timeout=10)
        assert unseen.run.state == executor_pb.RUN_STATE_REFUSED
        answer = await stub.DispatchTasks(executor_pb.DispatchTasksRequest(runs=[second]), timeout=10)
        assert answer.results[0].reason == "refused"
    assert pair.starts() == [run.task_id]


async def test_the_embedded_database_may_be_killed(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "")
    await pair.start()
    try:
        pair.write_command(seconds=1.0)
        ids = await pair.submit(4)
        await eventually(lambda: _true(len(pair.starts()) >= 1))
        postmaster = int((tmp_path / "scheduler/postgres/postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGKILL)
        tasks = await pair.until_ended(ids)
        assert {task.status for task in tasks} == {pb.TASK_STATUS_COMPLETED}
        assert Counter(pair.starts()) == Counter(pair.ends()) == Counter(ids)
    finally:
        await pair.stop()


async def test_bad_calls_name_the_field_and_leak_nothing(pair: Pair) -> None:
    async with pair.calls() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SubmitTask(pb.SubmitTaskRequest(task=pb.TaskSpec(title="", max_tries=900)), timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetTask(pb.GetTaskRequest(task_id="not-a-uuid"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "task_id" in (caught.value.details() or "")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ResetBreaker(pb.ResetBreakerRequest(key="nobody"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListTasks(pb.ListTasksRequest(page_token="foreign"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def _true(value: bool) -> bool:
    return value


def _read(path: str) -> bytes:
    with contextlib.suppress(OSError):
        return Path(path).read_bytes()
    return b""


async def test_a_second_scheduler_answers_and_takes_over(pair: Pair, tmp_path: Path, database_url: str) -> None:
    (tmp_path / "second").mkdir()
    second = Pair(tmp_path / "second", database_url, EXECUTOR_TARGETS=f"127.0.0.1:{pair.executor.port}")
    await second.scheduler.start()
    try:
        async with pair.calls() as leader, second.calls() as follower:
            ids = await pair.submit()
            await pair.until_ended(ids)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await follower.RunTick(pb.RunTickRequest(), timeout=10)
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "the leader is 127.0.0.1:" in (caught.value.details() or "")
            answers = [await stub.GetDispatchStats(pb.GetDispatchStatsRequest(), timeout=10) for stub in (leader, follower)]
            assert answers[0] == answers[1]
            slots = [await stub.GetSlots(pb.GetSlotsRequest(), timeout=10) for stub in (leader, follower)]
            assert slots[0].task_pool.budget > 0
            assert [e.executor_id for e in slots[1].executors] == ["host-a"], "a follower knows executors from the leader"
            through_follower = await follower.SubmitTask(
                pb.SubmitTaskRequest(task=pb.TaskSpec(title="Sent to a follower", description=DESCRIPTION)), timeout=10
            )
            await pair.until_ended([through_follower.task.id])
            await pair.scheduler.kill()
            (task,) = await second.until_ended(await second.submit())
            assert task.status == pb.TASK_STATUS_COMPLETED
            status = await follower.GetStatus(pb.GetStatusRequest(), timeout=10)
            assert (status.leader, status.term) == (True, 2)
    finally:
        await second.stop()


async def test_a_caller_that_knows_only_reflection_can_do_everything(pair: Pair) -> None:
    """As grpcurl does: descriptors from the server, JSON to messages, no generated code."""

    def call(service: str, method: str, body: dict[str, object]) -> dict[str, object]:
        with grpc.insecure_channel(f"127.0.0.1:{pair.scheduler.port}") as channel:
            found = ProtoReflectionDescriptorDatabase(channel)
            assert service in set(found.get_services())
            descriptor = DescriptorPool(found).FindServiceByName(service).FindMethodByName(method)
            request = json_format.ParseDict(body, GetMessageClass(descriptor.input_type)())
            answer = GetMessageClass(descriptor.output_type)
            unary = channel.unary_unary(f"/{service}/{method}", lambda m: m.SerializeToString(), answer.FromString)
            return dict(json_format.MessageToDict(unary(request, timeout=10), preserving_proto_field_name=True))

    service = "cecelia.scheduler.v1.SchedulerService"
    stored = await asyncio.to_thread(
        call, service, "SubmitTask", {"task": {"title": "Count the words", "description": DESCRIPTION}}
    )
    task = stored["task"]
    assert isinstance(task, dict)
    await pair.until_ended([str(task["id"])])
    reset = await asyncio.to_thread(call, service, "ResetBreaker", {"key": "cecelia-run", "reason": "by hand"})
    after = reset["after"]
    assert isinstance(after, dict)
    assert after["state"] == "BREAKER_STATE_CLOSED"
