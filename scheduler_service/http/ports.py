"""What the HTTP side needs: the rpcs themselves, called in this process, and the rows of `working_memory`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, Protocol

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from scheduler_service.core.callback import Callback
from scheduler_service.transactions.callbacks import CallbackResult
from scheduler_service.transactions.stored import MemoryRow


class LocalCall:
    """What an rpc sees of a call that came over HTTP. `opened` is set when a stream has found its place."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self.opened = asyncio.Event()

    def peer(self) -> str:
        """Who calls."""
        return self._peer

    def invocation_metadata(self) -> None:
        """HTTP callers give themselves no name."""

    async def send_initial_metadata(self, _metadata: Sequence[tuple[str, str]]) -> None:
        """A stream is open."""
        self.opened.set()


class SchedulerRpcs(Protocol):
    """The rpcs that have a path. They raise ServiceError."""

    def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> Awaitable[pb.GetStatusResponse]: ...
    def GetDispatchStats(self, request: pb.GetDispatchStatsRequest, context: Any) -> Awaitable[pb.GetDispatchStatsResponse]: ...
    def ListTasks(self, request: pb.ListTasksRequest, context: Any) -> Awaitable[pb.ListTasksResponse]: ...
    def ExplainDispatch(self, request: pb.ExplainDispatchRequest, context: Any) -> Awaitable[pb.ExplainDispatchResponse]: ...
    def StreamTaskLogs(self, request: pb.StreamTaskLogsRequest, context: Any) -> AsyncIterator[pb.StreamTaskLogsResponse]: ...
    def CancelTask(self, request: pb.CancelTaskRequest, context: Any) -> Awaitable[pb.CancelTaskResponse]: ...
    def RequeueTask(self, request: pb.RequeueTaskRequest, context: Any) -> Awaitable[pb.RequeueTaskResponse]: ...
    def CancelTasks(self, request: pb.CancelTasksRequest, context: Any) -> Awaitable[pb.CancelTasksResponse]: ...
    def RequeueTasks(self, request: pb.RequeueTasksRequest, context: Any) -> Awaitable[pb.RequeueTasksResponse]: ...
    def ClearBillingPause(
        self, request: pb.ClearBillingPauseRequest, context: Any
    ) -> Awaitable[pb.ClearBillingPauseResponse]: ...
    def SetBudgetCap(self, request: pb.SetBudgetCapRequest, context: Any) -> Awaitable[pb.SetBudgetCapResponse]: ...
    def ListSettings(self, request: pb.ListSettingsRequest, context: Any) -> Awaitable[pb.ListSettingsResponse]: ...
    def ResetSetting(self, request: pb.ResetSettingRequest, context: Any) -> Awaitable[pb.ResetSettingResponse]: ...
    def ListAuditEntries(self, request: pb.ListAuditEntriesRequest, context: Any) -> Awaitable[pb.ListAuditEntriesResponse]: ...
    def ResetBreaker(self, request: pb.ResetBreakerRequest, context: Any) -> Awaitable[pb.ResetBreakerResponse]: ...
    def SetDrain(self, request: pb.SetDrainRequest, context: Any) -> Awaitable[pb.SetDrainResponse]: ...
    def GetSlots(self, request: pb.GetSlotsRequest, context: Any) -> Awaitable[pb.GetSlotsResponse]: ...
    def WatchEvents(self, request: pb.WatchEventsRequest, context: Any) -> AsyncIterator[pb.WatchEventsResponse]: ...


class WorkingMemory(Protocol):
    """Reads the view `working_memory`. Raises ServiceError."""

    async def working_memory(self) -> Sequence[MemoryRow]: ...


class Callbacks(Protocol):
    """Records the end of a bridge's run. Raises ServiceError."""

    async def record(self, callback: Callback) -> CallbackResult: ...
