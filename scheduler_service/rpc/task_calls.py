"""The rpcs about tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import uuid4

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from scheduler_service.core.limits import TaskSpec
from scheduler_service.core.task import ENDED_STATUSES, Task
from scheduler_service.rpc.calls import Calls, Context, body_of, caller_of, callers_words
from scheduler_service.rpc.conversions import event_message, set_task
from scheduler_service.rpc.joint_calls import JointCalls
from scheduler_service.rpc.validation import Checker, page_token
from scheduler_service.transactions.editing import cancel_task, requeue_task, update_task
from scheduler_service.transactions.idempotency import AnswerForm, once_each
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.reading import read_task_and_usage
from scheduler_service.transactions.stored import Event, TaskFilter
from scheduler_service.transactions.submitting import submit
from service_runtime.ids import id_text, new_id

EVENTS_BATCH = 500
DEPENDENTS_SHOWN = 100


AboutOneTask = TypeVar(
    "AboutOneTask",
    pb.SubmitTaskResponse,
    pb.GetTaskResponse,
    pb.WatchTaskResponse,
    pb.CancelTaskResponse,
    pb.RequeueTaskResponse,
    pb.UpdateTaskResponse,
)


@dataclass(frozen=True, slots=True)
class _Submission:
    """A single task that is submitted, with the request as it was sent if it may be repeated."""

    request_id: str
    body: bytes
    spec: TaskSpec


def _with_task(
    response: AboutOneTask, task: Task, now: datetime, usage: Mapping[str, Any] = MappingProxyType({})
) -> AboutOneTask:
    """An answer that is about one task."""
    set_task(response.task, task, now, usage=usage)
    return response


class TaskCalls(Calls):
    """SubmitTask to UpdateTask, WatchTask and WatchEvents."""

    @cached_property
    def _submissions(self) -> JointCalls[_Submission, pb.SubmitTaskResponse]:
        return JointCalls(self._submit_all)

    async def SubmitTask(self, request: pb.SubmitTaskRequest, context: Context) -> pb.SubmitTaskResponse:
        check = Checker()
        check.request_id(request.request_id)
        if not request.HasField("task"):
            check.wrong("task", "is not set; must be given")
        spec = check.spec(request.task, "task")
        check.routed(spec, "task", self._rules.routes)
        check.done()
        assert spec is not None
        submission = _Submission(request.request_id, body_of(request), spec)
        with callers_words():
            answer = await self._submit(submission, request.ByteSize())
        self._wake()
        return answer

    async def _submit(self, submission: _Submission, size: int) -> pb.SubmitTaskResponse:
        if submission.spec.task_id is None and not submission.spec.depends_on:
            return await self._submissions.do(submission, submission.request_id, size)
        # What names other tasks, or its own id, could be at odds with a call beside it.
        (answer,) = await self._submit_all([submission])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _submit_all(self, submissions: Sequence[_Submission]) -> Sequence[pb.SubmitTaskResponse | Exception]:
        form = AnswerForm(pb.SubmitTaskResponse.SerializeToString, pb.SubmitTaskResponse.FromString)

        async def work(tx: Transaction) -> Sequence[pb.SubmitTaskResponse | Exception]:
            async def fresh(places: Sequence[int]) -> list[pb.SubmitTaskResponse]:
                tasks = await submit(tx, [submissions[place].spec for place in places], self._rules.routes, new_id)
                return [_with_task(pb.SubmitTaskResponse(), task, tx.now) for task in tasks]

            return await once_each(tx, "SubmitTask", [(s.request_id, s.body) for s in submissions], fresh, form)

        return await self._database.run(work)

    async def SubmitTasks(self, request: pb.SubmitTasksRequest, context: Context) -> pb.SubmitTasksResponse:
        check = Checker()
        check.request_id(request.request_id)
        specs = check.specs(request.tasks)
        for i, spec in enumerate(specs):
            check.routed(spec, f"tasks[{i}]", self._rules.routes)
        check.done()

        async def work(tx: Transaction) -> pb.SubmitTasksResponse:
            tasks = await submit(tx, specs, self._rules.routes, new_id)
            response = pb.SubmitTasksResponse()
            for task in tasks:
                set_task(response.tasks.add(), task, tx.now)
            return response

        response = await self._write("SubmitTasks", request, work, pb.SubmitTasksResponse)
        self._wake()
        return response

    async def GetTask(self, request: pb.GetTaskRequest, context: Context) -> pb.GetTaskResponse:
        check = Checker()
        task_id = check.uuid("task_id", request.task_id)
        check.done()

        async def work(tx: Transaction) -> pb.GetTaskResponse:
            task, usage = await read_task_and_usage(tx, task_id or uuid4())
            response = _with_task(pb.GetTaskResponse(), task, tx.now, usage)
            dependents, response.task.dependents_total = await tx.dependents(task.id, DEPENDENTS_SHOWN)
            response.task.dependents.extend(map(id_text, dependents))
            return response

        return await self._read(work)

    async def ListTasks(self, request: pb.ListTasksRequest, context: Context) -> pb.ListTasksResponse:
        check = Checker()
        size = check.page_size(request.page_size)
        statuses = check.statuses(request.statuses)
        priorities = check.priorities(request.priorities)
        chosen = TaskFilter(statuses, check.names("task_types", request.task_types), priorities)
        scope = repr(("tasks", sorted(statuses), sorted(chosen.task_types), sorted(priorities)))
        before = check.page_key(request.page_token, scope)
        check.done()

        async def work(tx: Transaction) -> pb.ListTasksResponse:
            found = await tx.list_tasks(chosen, before, size + 1)
            page = found[:size]
            response = pb.ListTasksResponse(next_page_token=page_token(page[-1][0], scope) if len(found) > size else "")
            for _, task in page:
                set_task(response.tasks.add(), task, tx.now, brief=True)
            return response

        return await self._read(work)

    async def WatchTask(self, request: pb.WatchTaskRequest, context: Context) -> AsyncIterator[pb.WatchTaskResponse]:
        check = Checker()
        task_id = check.uuid("task_id", request.task_id)
        check.done()
        last: pb.WatchTaskResponse | None = None
        async with self._stream_slot():
            while True:
                news = self._bell.ring_after()

                async def work(tx: Transaction) -> tuple[pb.WatchTaskResponse, bool]:
                    task, usage = await read_task_and_usage(tx, task_id or uuid4())
                    return _with_task(pb.WatchTaskResponse(), task, tx.now, usage), task.status in ENDED_STATUSES

                response, ended = await self._read(work)
                if response != last:
                    yield response
                    last = response
                if ended:
                    return
                await news.wait(1.0)

    async def CancelTask(self, request: pb.CancelTaskRequest, context: Context) -> pb.CancelTaskResponse:
        check = Checker()
        task_id = check.uuid("task_id", request.task_id)
        reason, request_id = check.reason(request.reason), check.request_id(request.request_id)
        check.done()

        async def work(tx: Transaction) -> pb.CancelTaskResponse:
            task = await cancel_task(tx, task_id or uuid4(), actor=caller_of(context), reason=reason, request_id=request_id)
            return _with_task(pb.CancelTaskResponse(), task, tx.now)

        response = await self._write("CancelTask", request, work, pb.CancelTaskResponse)
        self._leader.wake_links()
        return response

    async def RequeueTask(self, request: pb.RequeueTaskRequest, context: Context) -> pb.RequeueTaskResponse:
        check = Checker()
        task_id = check.uuid("task_id", request.task_id)
        reason, request_id = check.reason(request.reason), check.request_id(request.request_id)
        check.done()

        async def work(tx: Transaction) -> pb.RequeueTaskResponse:
            task = await requeue_task(tx, task_id or uuid4(), actor=caller_of(context), reason=reason, request_id=request_id)
            return _with_task(pb.RequeueTaskResponse(), task, tx.now)

        response = await self._write("RequeueTask", request, work, pb.RequeueTaskResponse)
        self._wake()
        return response

    async def UpdateTask(self, request: pb.UpdateTaskRequest, context: Context) -> pb.UpdateTaskResponse:
        check = Checker()
        task_id = check.uuid("task_id", request.task_id)
        request_id = check.request_id(request.request_id)
        changes = check.changes(request)
        check.done()

        async def work(tx: Transaction) -> pb.UpdateTaskResponse:
            task = await update_task(tx, task_id or uuid4(), changes, actor=caller_of(context), request_id=request_id)
            return _with_task(pb.UpdateTaskResponse(), task, tx.now)

        response = await self._write("UpdateTask", request, work, pb.UpdateTaskResponse)
        self._wake()
        return response

    async def _events_after(self, after: int, types: Sequence[str]) -> list[Event]:
        return await self._read(lambda tx: tx.events_after(after, types, EVENTS_BATCH))

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Context) -> AsyncIterator[pb.WatchEventsResponse]:
        check = Checker()
        types = check.event_types("types", request.types)
        check.done()
        after = request.after_event_id
        async with self._stream_slot():
            if after < 0:
                after = await self._read(lambda tx: tx.newest_event_id())
            elif after > (last := await self._read(lambda tx: tx.last_event_id_given())):
                # From another database, or from one before a restore: nothing would come for long, and then the wrong events.
                check.wrong("after_event_id", f"is {after}; the last event has the id {last}")
                check.done()
            # Tells the caller that it misses nothing from here on.
            await context.send_initial_metadata((("next-event-id", str(after + 1)),))
            while True:
                news = self._bell.ring_after()
                events = await self._events_after(after, types)
                for event in events:
                    yield pb.WatchEventsResponse(event=event_message(event))
                    after = event.id
                if len(events) < EVENTS_BATCH:
                    await news.wait(0.5)
