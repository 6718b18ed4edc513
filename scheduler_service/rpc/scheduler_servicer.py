"""`cecelia.scheduler.v1.SchedulerService`, put together of its parts."""

from __future__ import annotations

from cecelia.scheduler.v1 import scheduler_service_pb2_grpc as pb_grpc

from scheduler_service.rpc.bulk_calls import BulkCalls
from scheduler_service.rpc.dispatch_calls import DispatchCalls
from scheduler_service.rpc.output_calls import OutputCalls
from scheduler_service.rpc.override_calls import OverrideCalls
from scheduler_service.rpc.setting_calls import SettingCalls
from scheduler_service.rpc.task_calls import TaskCalls


class SchedulerServicer(
    TaskCalls, BulkCalls, OutputCalls, DispatchCalls, OverrideCalls, SettingCalls, pb_grpc.SchedulerServiceServicer
):
    """Every rpc of the scheduler."""
