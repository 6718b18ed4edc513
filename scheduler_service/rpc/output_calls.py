"""StreamTaskLogs: a task's output, passed through from the executor that has it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from scheduler_service.core.task import ENDED_STATUSES
from scheduler_service.errors import ExecutorUnreachable, OutputGone
from scheduler_service.rpc.calls import Calls, Context
from scheduler_service.rpc.validation import Checker
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.reading import OutputSource, find_output, read_task
from service_runtime.errors import FailedPrecondition, NotFound, Unavailable

LOOK_EVERY_S = 1.0


class OutputCalls(Calls):
    """StreamTaskLogs."""

    async def StreamTaskLogs(
        self, request: pb.StreamTaskLogsRequest, context: Context
    ) -> AsyncIterator[pb.StreamTaskLogsResponse]:
        check = Checker()
        task_id = check.uuid("task_id", request.task_id)
        for name, value in (("offset", request.offset), ("tail_bytes", request.tail_bytes)):
            if value < 0:
                check.wrong(name, f"is {value}; must be 0 or more")
        check.done()
        async with self._stream_slot():
            source = await self._source(task_id or uuid4(), wait=request.follow)
            if not source.target:
                raise _unreachable(source)
            await context.send_initial_metadata(())
            reading = self._outputs.read(source.target, source.run_id, request.offset, request.tail_bytes, follow=request.follow)
            try:
                async with contextlib.aclosing(reading) as pieces:
                    async for offset, data in pieces:
                        yield pb.StreamTaskLogsResponse(run_id=str(source.run_id), offset=offset, data=data)
            except OutputGone as error:
                raise NotFound(
                    f"executor {source.executor_id} has no output of run {source.run_id} any more", reason="OUTPUT_GONE"
                ) from error
            except ExecutorUnreachable as error:
                raise _unreachable(source) from error

    async def _source(self, task_id: UUID, *, wait: bool) -> OutputSource:
        while True:
            news = self._bell.ring_after()

            async def look(tx: Transaction) -> tuple[OutputSource | None, bool]:
                return await find_output(tx, task_id), (await read_task(tx, task_id)).status in ENDED_STATUSES

            source, ended = await self._read(look)
            if source is not None:
                return source
            if ended or not wait:
                raise FailedPrecondition(
                    f"no run of task {task_id} was accepted yet: it has no output", reason="TASK_NOT_STARTED"
                )
            await news.wait(LOOK_EVERY_S)


def _unreachable(source: OutputSource) -> Unavailable:
    return Unavailable(
        f"executor {source.executor_id}, which has the output, cannot be reached",
        reason="EXECUTOR_UNREACHABLE",
        retry_after=timedelta(seconds=2),
    )
