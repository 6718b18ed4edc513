"""CancelTasks and RequeueTasks: one change for all tasks that a filter chooses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from scheduler_service.core.task import TaskStatus
from scheduler_service.rpc.calls import Calls, Context, caller_of
from scheduler_service.rpc.validation import Checker, page_token
from scheduler_service.transactions.auditing import Caller
from scheduler_service.transactions.bulk_editing import BulkResult, cancel_tasks, count_chosen, requeue_tasks
from scheduler_service.transactions.editing import CANCELLABLE, REQUEUEABLE
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import TaskFilter

Q = TypeVar("Q", pb.CancelTasksRequest, pb.RequeueTasksRequest)
R = TypeVar("R", pb.CancelTasksResponse, pb.RequeueTasksResponse)


_Change = Callable[[Transaction, TaskFilter, int, Caller], Awaitable[BulkResult]]


class BulkCalls(Calls):
    """CancelTasks and RequeueTasks."""

    async def CancelTasks(self, request: pb.CancelTasksRequest, context: Context) -> pb.CancelTasksResponse:
        response = await self._in_bulk("CancelTasks", request, pb.CancelTasksResponse, CANCELLABLE, cancel_tasks, context)
        if response.changed:
            self._leader.wake_links()
        return response

    async def RequeueTasks(self, request: pb.RequeueTasksRequest, context: Context) -> pb.RequeueTasksResponse:
        response = await self._in_bulk("RequeueTasks", request, pb.RequeueTasksResponse, REQUEUEABLE, requeue_tasks, context)
        if response.changed:
            self._wake()
        return response

    async def _in_bulk(
        self,
        method: str,
        request: Q,
        response_type: type[R],
        allowed: Collection[TaskStatus],
        change: _Change,
        context: Context,
    ) -> R:
        check = Checker()
        statuses = check.bulk_statuses(request.statuses, allowed)
        priorities = check.priorities(request.priorities)
        chosen = TaskFilter(statuses, check.names("task_types", request.task_types), priorities)
        scope = repr((method, sorted(statuses), sorted(chosen.task_types), sorted(priorities)))
        after = check.page_key(request.page_token, scope) or 0
        reason, request_id = check.reason(request.reason), check.request_id(request.request_id)
        check.done()

        def message(result: BulkResult) -> R:
            token = page_token(result.next_seq, scope) if result.next_seq is not None else ""
            return response_type(matched=result.matched, changed=result.changed, skipped=result.skipped, next_page_token=token)

        async def work(tx: Transaction) -> R:
            return message(await change(tx, chosen, after, Caller(caller_of(context), reason, request_id)))

        if request.validate_only:
            return message(await self._read(lambda tx: count_chosen(tx, chosen, after)))
        return await self._write(method, request, work, response_type)
