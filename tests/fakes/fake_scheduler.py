"""A scheduler that answers from a few tables over a real socket, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NoReturn
from uuid import uuid4

import grpc
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from cecelia.scheduler.v1 import scheduler_service_pb2_grpc as pb_grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "dispatch.cecelia"


def refuse(context: grpc.ServicerContext, code: int, reason: str, text: str, **violations: str) -> NoReturn:
    """Ends the call with a google.rpc.Status as the scheduler's."""
    details = [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)]
    packed = [AnyMessage() for _ in details]
    packed[0].Pack(details[0])
    if violations:
        bad = error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=field.replace("__", "."), description=description)
                for field, description in violations.items()
            ]
        )
        packed.append(AnyMessage())
        packed[1].Pack(bad)
    context.abort_with_status(rpc_status.to_status(status_pb2.Status(code=code, message=text, details=packed)))
    raise AssertionError("abort returns never")


class FakeScheduler(pb_grpc.SchedulerServiceServicer):
    """`life` is what a watched task goes through once `hold_until` is set; `explanation` is what ExplainDispatch answers."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.tasks: dict[str, pb.Task] = {}
        self.life: list[pb.Task] = []
        self.hold_until = threading.Event()
        self.hold_until.set()
        self.on_explain: Callable[[], None] = lambda: None
        self.on_get: Callable[[], None] = lambda: None
        self.explanation = pb.ExplainDispatchResponse(would_dispatch=True, sentence="The next tick starts it.")
        self.stats = pb.GetDispatchStatsResponse()
        self.events: list[pb.Event] = []
        self.breakers = {"cecelia-run": pb.Breaker(key="cecelia-run", state=pb.BREAKER_STATE_OPEN, failures=3, generation=4)}
        self.status = pb.GetStatusResponse(mode="idle", sentence="Nothing waits.", term=1, leader=True)

    def _store(self, spec: pb.TaskSpec) -> pb.Task:
        task = pb.Task(
            id=spec.task_id or str(uuid4()),
            title=spec.title,
            description=spec.description,
            task_type=spec.task_type or "dev",
            priority=spec.priority or pb.PRIORITY_P1,
            skill=spec.skill,
            depends_on=spec.depends_on,
            max_tries=spec.max_tries or 3,
            status=pb.TASK_STATUS_QUEUED,
        )
        self.tasks[task.id] = task
        return task

    def _task(self, task_id: str, context: grpc.ServicerContext) -> pb.Task:
        if task_id not in self.tasks:
            refuse(context, code_pb2.NOT_FOUND, "task_not_found", f"task {task_id} does not exist")
        return self.tasks[task_id]

    def SubmitTask(self, request: pb.SubmitTaskRequest, context: grpc.ServicerContext) -> pb.SubmitTaskResponse:
        self.requests.append(request)
        if not request.task.title:
            refuse(context, code_pb2.INVALID_ARGUMENT, "INVALID_ARGUMENT", "task.title is empty", task__title="is empty")
        return pb.SubmitTaskResponse(task=self._store(request.task))

    def SubmitTasks(self, request: pb.SubmitTasksRequest, context: grpc.ServicerContext) -> pb.SubmitTasksResponse:
        self.requests.append(request)
        return pb.SubmitTasksResponse(tasks=[self._store(spec) for spec in request.tasks])

    def GetTask(self, request: pb.GetTaskRequest, context: grpc.ServicerContext) -> pb.GetTaskResponse:
        self.requests.append(request)
        self.on_get()
        return pb.GetTaskResponse(task=self._task(request.task_id, context))

    def ListTasks(self, request: pb.ListTasksRequest, context: grpc.ServicerContext) -> pb.ListTasksResponse:
        self.requests.append(request)
        return pb.ListTasksResponse(tasks=self.tasks.values())

    def WatchTask(self, request: pb.WatchTaskRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchTaskResponse]:
        task = self._task(request.task_id, context)
        yield pb.WatchTaskResponse(task=task)
        self.hold_until.wait(10)
        for change in self.life:
            task.MergeFrom(change)
            yield pb.WatchTaskResponse(task=task)

    def CancelTask(self, request: pb.CancelTaskRequest, context: grpc.ServicerContext) -> pb.CancelTaskResponse:
        self.requests.append(request)
        task = self._task(request.task_id, context)
        task.status = pb.TASK_STATUS_CANCELLED
        return pb.CancelTaskResponse(task=task)

    def RequeueTask(self, request: pb.RequeueTaskRequest, context: grpc.ServicerContext) -> pb.RequeueTaskResponse:
        self.requests.append(request)
        task = self._task(request.task_id, context)
        if task.status == pb.TASK_STATUS_QUEUED:
            refuse(context, code_pb2.FAILED_PRECONDITION, "task_not_ended", f"task {task.id} is queued")
        task.status = pb.TASK_STATUS_QUEUED
        return pb.RequeueTaskResponse(task=task)

    def ExplainDispatch(self, request: pb.ExplainDispatchRequest, context: grpc.ServicerContext) -> pb.ExplainDispatchResponse:
        self.requests.append(request)
        self.on_explain()
        return self.explanation

    def GetDispatchStats(self, request: pb.GetDispatchStatsRequest, context: grpc.ServicerContext) -> pb.GetDispatchStatsResponse:
        self.requests.append(request)
        return self.stats

    def ListBreakers(self, request: pb.ListBreakersRequest, context: grpc.ServicerContext) -> pb.ListBreakersResponse:
        return pb.ListBreakersResponse(breakers=self.breakers.values())

    def ListDispatchEvents(
        self, request: pb.ListDispatchEventsRequest, context: grpc.ServicerContext
    ) -> pb.ListDispatchEventsResponse:
        return pb.ListDispatchEventsResponse()

    def WatchEvents(self, request: pb.WatchEventsRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchEventsResponse]:
        newest = max((event.id for event in self.events), default=0)
        after = request.after_event_id if request.after_event_id >= 0 else newest
        context.send_initial_metadata((("next-event-id", str(after + 1)),))
        yield from (pb.WatchEventsResponse(event=event) for event in self.events if event.id > after)
        # As the scheduler's, it stays open until the caller goes.
        gone = threading.Event()
        if context.add_callback(gone.set):
            gone.wait(30)

    def ResetBreaker(self, request: pb.ResetBreakerRequest, context: grpc.ServicerContext) -> pb.ResetBreakerResponse:
        self.requests.append(request)
        if request.key not in self.breakers:
            refuse(context, code_pb2.NOT_FOUND, "breaker_not_found", f"breaker {request.key} does not exist")
        before = self.breakers[request.key]
        after = pb.Breaker(key=request.key, state=pb.BREAKER_STATE_CLOSED, generation=before.generation + 1)
        self.breakers[request.key] = after
        return pb.ResetBreakerResponse(before=before, after=after)

    def SetDrain(self, request: pb.SetDrainRequest, context: grpc.ServicerContext) -> pb.SetDrainResponse:
        self.requests.append(request)
        return pb.SetDrainResponse(draining=request.enabled, running=2)

    def GetStatus(self, request: pb.GetStatusRequest, context: grpc.ServicerContext) -> pb.GetStatusResponse:
        return self.status

    def RunTick(self, request: pb.RunTickRequest, context: grpc.ServicerContext) -> pb.RunTickResponse:
        refuse(context, code_pb2.FAILED_PRECONDITION, "not_leader", "this replica does not lead")


@contextmanager
def serving(fake: FakeScheduler, *beside: grpc.GenericRpcHandler) -> Iterator[str]:
    """Serves it, and what else is given, on a free port of loopback; the address."""
    server = grpc.server(ThreadPoolExecutor(8), handlers=beside)
    pb_grpc.add_SchedulerServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=0).wait(5)
