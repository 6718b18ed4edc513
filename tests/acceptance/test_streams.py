"""The long-lived streams over real sockets: what they tell, and how many there may be."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import grpc
import pytest
from cecelia.executor.v1 import executor_service_pb2 as ex
from cecelia.scheduler.v1 import scheduler_service_pb2 as sc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from executor_service.rpc.executor_servicer import LOG_STREAMS_MAX
from scheduler_service.rpc.calls import STREAMS_MAX
from tests.acceptance.programs import DESCRIPTION, Pair, eventually

TITLE = "Grows a log"


async def accepted(stub: Any) -> str:
    """A run that the executor has accepted; a busy machine may refuse for a while, and a refused run_id stays refused."""

    async def tried() -> str | None:
        run = ex.RunRequest(
            run_id=str(uuid4()), task_id=str(uuid4()), title=TITLE, description=DESCRIPTION, backend="cecelia-run"
        )
        answer = await stub.DispatchTasks(ex.DispatchTasksRequest(runs=[run]), timeout=10)
        return run.run_id if answer.results[0].accepted else None

    return await eventually(tried)


async def refused_after(most: int, open_one: Callable[[], Any]) -> None:
    """Opens streams until one is refused: the one after `most`. Frees one, and another one fits."""
    streams = [open_one() for _ in range(most)]
    await asyncio.gather(*(stream.initial_metadata() for stream in streams))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await open_one().read()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status: Any = rpc_status.from_call(refused.value)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, retry.retry_delay.seconds) == ("TOO_MANY_STREAMS", 5)
    streams.pop().cancel()

    async def another() -> bool:
        stream = open_one()
        try:
            await stream.initial_metadata()
            code = await asyncio.wait_for(stream.code(), 0.05)
        except TimeoutError:
            streams.append(stream)
            return True
        return code is not grpc.StatusCode.RESOURCE_EXHAUSTED

    assert await eventually(another)
    for stream in streams:
        stream.cancel()


async def test_too_many_streams_are_refused(pair: Pair) -> None:
    (task_id,) = await pair.submit()
    await pair.until_ended([task_id])
    async with pair.calls() as stub:
        await refused_after(STREAMS_MAX, lambda: stub.WatchEvents(sc.WatchEventsRequest(after_event_id=-1), timeout=30))


async def test_too_many_readers_of_outputs_are_refused(pair: Pair) -> None:
    pair.write_command(seconds=60)
    async with pair.executor_calls() as stub:
        run_id = await accepted(stub)
        await refused_after(
            LOG_STREAMS_MAX, lambda: stub.StreamRunLogs(ex.StreamRunLogsRequest(run_id=run_id, follow=True), timeout=30)
        )
        await stub.CancelRun(ex.CancelRunRequest(run_id=run_id), timeout=10)


async def pieces(stream: AsyncIterator[ex.StreamRunLogsResponse]) -> tuple[int, bytes]:
    """The offset of the first byte, and all bytes: each piece begins where the one before it ended."""
    found = [piece async for piece in stream]
    for before, after in itertools.pairwise(found):
        assert after.offset == before.offset + len(before.data)
    return found[0].offset if found else -1, b"".join(piece.data for piece in found)


async def test_an_output_is_read_live_to_its_end_and_again_from_any_byte(pair: Pair) -> None:
    pair.write_command(seconds=0.5)
    whole = f"{TITLE}\n\n{DESCRIPTION}".encode()
    async with pair.executor_calls() as stub:
        run_id = await accepted(stub)
        # Opened before a byte is there; ends by itself when the run does.
        offset, data = await pieces(stub.StreamRunLogs(ex.StreamRunLogsRequest(run_id=run_id, follow=True), timeout=30))
        assert (offset, data.rstrip()) == (0, whole)
        ended = (await stub.GetRun(ex.GetRunRequest(run_id=run_id), timeout=10)).run
        assert ended.result.encode() == data
        offset, rest = await pieces(stub.StreamRunLogs(ex.StreamRunLogsRequest(run_id=run_id, offset=7), timeout=30))
        assert (offset, rest) == (7, data[7:])
        assert await pieces(stub.StreamRunLogs(ex.StreamRunLogsRequest(run_id=run_id, offset=10_000), timeout=30)) == (
            -1,
            b"",
        )
