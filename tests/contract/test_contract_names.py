"""The names and numbers that other programs rely on: message fields, enums, defaults. They change in the contract first."""

from __future__ import annotations

import pytest
from cecelia.executor.v1 import executor_service_pb2 as ex
from cecelia.scheduler.v1 import scheduler_service_pb2 as sc

from executor_service.settings import ExecutorSettings
from scheduler_service.settings import SchedulerSettings

RPCS = {
    sc.DESCRIPTOR: (
        "SchedulerService",
        "SubmitTask SubmitTasks GetTask ListTasks WatchTask StreamTaskLogs CancelTask RequeueTask CancelTasks RequeueTasks UpdateTask "
        "RunTick ExplainDispatch GetDispatchStats ListDispatchEvents ListBreakers GetBreaker ResetBreaker TripBreaker SetDrain "
        "SetBillingPause ClearBillingPause SetBudgetCap GetSlots GetStatus WatchEvents ListSettings SetSetting ResetSetting "
        "ListAuditEntries",
    ),
    ex.DESCRIPTOR: (
        "ExecutorService",
        "CheckResources CheckAvailability DispatchTasks GetRun ListRuns CancelRun WatchRuns AcknowledgeRuns RenewLeases StreamRunLogs",
    ),
}
_SPEC = "title description task_type priority skill payload depends_on max_tries not_before_time timeout"
SCHEDULER_MESSAGES = {
    "TaskSpec": f"task_id {_SPEC}",
    "Task": f"id {_SPEC} status hold_reason run_id fence tries start_failures executor_id backend outcome create_time update_time "
    "start_time end_time next_attempt_time",
    "TaskOutcome": "exit_code result error",
    "SubmitTaskRequest": "task request_id",
    "SubmitTaskResponse": "task",
    "SubmitTasksRequest": "tasks request_id",
    "SubmitTasksResponse": "tasks",
    "GetTaskRequest": "task_id",
    "GetTaskResponse": "task",
    "CancelTaskRequest": "task_id reason request_id",
    "CancelTaskResponse": "task",
    "RequeueTaskRequest": "task_id reason request_id",
    "RequeueTaskResponse": "task",
    "ListTasksRequest": "page_size page_token",
    "ListTasksResponse": "tasks next_page_token",
    "RunTickResponse": "decisions",
    "DispatchDecision": "dispatched reason detail task_id run_id executor_id backend",
    "ExplainDispatchRequest": "task_id",
    "ExplainDispatchResponse": "would_dispatch guards executors sentence task_reason queue_position",
    "GuardVerdict": "name backend holds reason value limit detail clears_time",
    "ExecutorVerdict": "executor_id reason value limit detail",
    "GetDispatchStatsResponse": "window_1h attempts attempts_by_backend",
    "DispatchWindow": "total success failed rate failure_reasons last_updated",
    "Breaker": "key state failures last_failure_time opened_time retry_time generation reason",
    "ListBreakersResponse": "breakers",
    "GetBreakerResponse": "breaker",
    "ResetBreakerRequest": "key reason request_id",
    "ResetBreakerResponse": "before after",
    "TripBreakerRequest": "key reason request_id duration",
    "TripBreakerResponse": "before after",
    "SetDrainRequest": "enabled source until_idle reason request_id",
    "SetDrainResponse": "draining since_time running",
    "SetBillingPauseRequest": "until_time backend reason request_id",
    "ClearBillingPauseRequest": "backend reason request_id",
    "SetBudgetCapRequest": "reason request_id",
    "GetSlotsResponse": "total_capacity user internal task_pool max_pressure effective_slots dispatch_allowed executors backends",
    "UserPool": "budget used mode headroom",
    "InternalPool": "budget used",
    "TaskPool": "budget used available",
    "WatchEventsRequest": "after_event_id types",
    "WatchEventsResponse": "event",
    "Event": "id type time source payload",
}
EXECUTOR_MESSAGES = {
    "CheckResourcesResponse": "ok reason effective_slots running",
    "DispatchTasksRequest": "runs cluster_id term boot_id stamp",
    "DispatchTasksResponse": "results",
    "DispatchResult": "run_id accepted reason detail",
    "RunRequest": "run_id task_id fence title description task_type backend payload timeout lease_ttl",
}
ENUMS = {
    "Priority": "PRIORITY_P0 PRIORITY_P1 PRIORITY_P2",
    "TaskStatus": " ".join(
        f"TASK_STATUS_{name}" for name in ["QUEUED", "DISPATCHING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "QUARANTINED"]
    ),
    "BreakerState": "BREAKER_STATE_CLOSED BREAKER_STATE_OPEN BREAKER_STATE_HALF_OPEN",
}
SCHEDULER_DEFAULTS = {
    "window_ms": 3_600_000,
    "dispatch_rate_threshold": 0.3,
    "dispatch_min_sample": 10,
    "dispatch_rate_guard": "enforce",
    "low_rate_probe_interval_ms": 60_000,
    "failure_threshold": 3,
    "open_duration_ms": 1_800_000,
    "interactive_reserve": 2,
    "database_url": None,
    "dispatch_data_dir": "~/.local/share/cecelia-dispatch",
    "scheduler_grpc_address": "127.0.0.1:50051",
    "scheduler_http_address": "127.0.0.1:5221",
    "executor_targets": "127.0.0.1:50052",
    "tick_interval_ms": 5_000,
    "retry_backoff_ms": 1_000,
    "retry_backoff_max_ms": 300_000,
    "lease_ttl_ms": 600_000,
    "leader_lease_ms": 3_000,
    "task_retention_ms": 30 * 86_400_000,
    "event_retention_ms": 14 * 86_400_000,
    "audit_retention_ms": 365 * 86_400_000,
    "http_base_path": "",
    "http_read_only": False,
    "http_hide_payloads": False,
    "tick_enabled": True,
}
EXECUTOR_DEFAULTS = {
    "mem_per_task_mb": 500,
    "cpu_per_task": 0.5,
    "hk_minimax_url": "http://100.86.118.99:5226",
    "hk_minimax_max_runs": 8,
    "executor_bridge_url": None,
    "cecelia_run_path": "cecelia-run",
    "cecelia_run_env": "",
    "cecelia_budget_slots": None,
    "executor_grpc_address": "127.0.0.1:50052",
    "executor_http_address": "127.0.0.1:5222",
    "executor_data_dir": "~/.local/share/cecelia-dispatch/executor",
    "executor_drain_ms": 30_000,
    "run_retention_ms": 7 * 86_400_000,
}


@pytest.mark.parametrize("file", RPCS)
def test_every_rpc_of_the_contract_is_there(file: object) -> None:
    name, rpcs = RPCS[file]
    assert {method.name for method in file.services_by_name[name].methods} == set(rpcs.split())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("file", "message", "fields"),
    [
        *((sc.DESCRIPTOR, message, fields) for message, fields in SCHEDULER_MESSAGES.items()),
        *((ex.DESCRIPTOR, message, fields) for message, fields in EXECUTOR_MESSAGES.items()),
    ],
)
def test_the_messages_have_the_fields_of_the_contract(file: object, message: str, fields: str) -> None:
    there = set(file.message_types_by_name[message].fields_by_name)  # type: ignore[attr-defined]
    assert set(fields.split()) - there == set()


@pytest.mark.parametrize("enum", ENUMS)
def test_the_enums_have_the_values_of_the_contract(enum: str) -> None:
    there = [value.name for value in sc.DESCRIPTOR.enum_types_by_name[enum].values]
    prefix = ENUMS[enum].partition("_")[0] + "_"
    assert there[0].startswith(prefix)
    assert there[0].endswith("_UNSPECIFIED")
    assert there[1:] == ENUMS[enum].split()


def test_the_defaults_are_those_of_the_contract() -> None:
    scheduler, executor = SchedulerSettings(), ExecutorSettings()
    assert {name: getattr(scheduler, name) for name in SCHEDULER_DEFAULTS} == SCHEDULER_DEFAULTS
    assert {name: getattr(executor, name) for name in EXECUTOR_DEFAULTS} == EXECUTOR_DEFAULTS
