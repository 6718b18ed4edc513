"""The sample tasks: submitted anew each time, followed to their end, and compared with what they should come to."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.batch_file import Batch
from dispatchctl.client import SchedulerClient
from dispatchctl.columns import status_word
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.feed import Feed
from dispatchctl.rendering import relative
from dispatchctl.waiting import ENDED

LOOK_S = 0.5
FIRST_HOLD_S = 10.0
NEXT_HOLD_S = 30.0
# The events of ends that were read already are on their way.
CATCH_UP_S = 3.0


@dataclass(slots=True)
class _Wait:
    """How many tasks wait for a backend, how many starts there have been, and when the gate is to be told."""

    tasks: int
    begun: int
    tell_at: float


class SampleRun:
    """One submission of the samples."""

    def __init__(self, client: SchedulerClient, feed: Feed, batch: Batch, request_id: str) -> None:
        self._client = client
        self._feed = feed
        self._batch = batch
        self._request_id = request_id
        self.tasks: dict[str, pb.Task] = {}

    async def submit(self) -> None:
        """Submits them, all or none. Raises Failure."""
        request = pb.SubmitTasksRequest(tasks=self._batch.tasks, request_id=self._request_id)
        stored = await self._client.call(self._client.stub.SubmitTasks, request)
        for task in stored.tasks:
            self.tasks[task.id] = task
            self._feed.title(task.id, task.title)

    async def until_ended(self) -> None:
        """Returns when all have ended; says meanwhile which gate holds a backend in which nothing starts."""
        loop = asyncio.get_running_loop()
        waits: dict[str, _Wait] = {}
        while not await self._look():
            await asyncio.sleep(LOOK_S)
            for backend, wait in self._held(waits, loop.time()).items():
                if loop.time() >= wait.tell_at:
                    wait.tell_at = loop.time() + NEXT_HOLD_S
                    await self._tell_hold(backend, wait.tasks)
        until = loop.time() + CATCH_UP_S
        while not self._feed.ended >= set(self.tasks) and loop.time() < until:
            await asyncio.sleep(0.05)

    def _held(self, waits: dict[str, _Wait], now: float) -> dict[str, _Wait]:
        """Backends that have tasks which wait for a gate, kept in `waits`; a start there begins the wait anew."""
        for backend in {task.backend for task in self.tasks.values()}:
            tasks = [task for task in self.tasks.values() if task.backend == backend]
            held = sum(task.status == pb.TASK_STATUS_QUEUED and not task.hold_reason for task in tasks)
            begun = sum(task.tries + (task.status != pb.TASK_STATUS_QUEUED) for task in tasks)
            before = waits.pop(backend, None)
            if held and before is not None and begun == before.begun:
                waits[backend] = _Wait(held, begun, before.tell_at)
            elif held:
                waits[backend] = _Wait(held, begun, now + FIRST_HOLD_S)
        return waits

    async def _look(self) -> bool:
        try:
            for id_, task in self.tasks.items():
                if task.status not in ENDED:
                    found = await self._client.call(self._client.stub.GetTask, pb.GetTaskRequest(task_id=id_))
                    self.tasks[id_] = found.task
        except Failure as failure:
            if failure.status is not ExitStatus.UNREACHABLE:
                raise
        return all(task.status in ENDED for task in self.tasks.values())

    async def _tell_hold(self, backend: str, tasks: int) -> None:
        held = f"{tasks} {'task' if tasks == 1 else 'tasks'} held"
        try:
            said = await self._client.call(self._client.stub.ExplainDispatch, pb.ExplainDispatchRequest())
        except Failure as failure:
            self._feed.tell("waiting", backend, f"{held}: {failure.what}")
            return
        # In chain order: the first that holds is the one that counts.
        gate = next((guard for guard in said.guards if guard.holds and guard.backend in ("", backend)), None)
        if gate is None:
            self._feed.tell("waiting", backend, f"{held}: {said.sentence}")
            return
        clears = f" (clears {relative(gate.clears_time, datetime.now(UTC))})" if gate.HasField("clears_time") else ""
        self._feed.tell("waiting", backend, f"{gate.reason} ({held}): {gate.detail or said.sentence}{clears}")

    @property
    def unended(self) -> int:
        """How many have not ended yet."""
        return sum(task.status not in ENDED for task in self.tasks.values())

    def unexpected(self) -> list[str]:
        """What came out otherwise than it should, a line each; empty when all is as it should be."""
        lines = []
        for id_, task in self.tasks.items():
            expected = self._batch.expected.get(id_, pb.TASK_STATUS_COMPLETED)
            if task.status != expected:
                why = task.outcome.error or task.hold_reason
                lines.append(f"{task.title}: {status_word(task.status)}, not {status_word(expected)}{f' ({why})' if why else ''}")
        return lines

    def summary(self) -> str:
        """How they ended, in a line."""
        counts = Counter(status_word(task.status) for task in self.tasks.values())
        ended = ", ".join(f"{n} {status}" for status, n in counts.most_common())
        verdict = "as they should" if not self.unexpected() else "not all as they should"
        return f"{len(self.tasks)} sample tasks: {ended}; {verdict}"
