"""Every rpc with a right call and each way to call it wrongly. A new rpc must join: the tests that read this walk the descriptors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from cecelia.executor.v1 import executor_service_pb2 as ex
from cecelia.scheduler.v1 import scheduler_service_pb2 as sc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

BAD = grpc.StatusCode.INVALID_ARGUMENT
ABSENT = grpc.StatusCode.NOT_FOUND
STATE = grpc.StatusCode.FAILED_PRECONDITION
TAKEN = grpc.StatusCode.ALREADY_EXISTS

NOBODY = "123e4567-e89b-42d3-a456-426614174999"
RUN = "123e4567-e89b-42d3-a456-426614174001"
TASK = "123e4567-e89b-42d3-a456-426614174002"
ENDED_TASK = "123e4567-e89b-42d3-a456-426614174003"
"""A completed task that the tests make beforehand."""
USED_REQUEST_ID = "used before"
"""A request_id that the tests use beforehand with another body, for every rpc that takes one."""
FAR = Timestamp(seconds=4_102_444_800)
LONG = "x" * 600


@dataclass(frozen=True, slots=True)
class Wrong:
    """A wrong call: what it answers, and the field it names ('' where no field is at fault)."""

    request: Any
    code: grpc.StatusCode
    field: str = ""


@dataclass(frozen=True, slots=True)
class Rpc:
    """One rpc. `elsewhere`: documented errors that another test brings about, by its name."""

    right: Any
    wrong: Sequence[Wrong] = ()
    elsewhere: Mapping[str, str] = ()  # type: ignore[assignment]  # an empty one


def spec(**fields: Any) -> sc.TaskSpec:
    return sc.TaskSpec(**{"title": "A good title", "description": "A description that says enough.", **fields})


def deep(levels: int) -> Struct:
    message = Struct()
    inner = message
    for _ in range(levels):
        inner = inner.fields["a"].struct_value
    inner.fields["end"].bool_value = True
    return message


def struct(**fields: float | str) -> Struct:
    message = Struct()
    for name, value in fields.items():
        if isinstance(value, str):
            message.fields[name].string_value = value
        else:
            message.fields[name].number_value = value
    return message


WRONG_SPECS: list[tuple[dict[str, Any], str]] = [
    ({"title": ""}, "title"),
    ({"title": LONG}, "title"),
    ({"title": "a\0b"}, "title"),
    ({"description": "x" * 262_145}, "description"),
    ({"description": "\0"}, "description"),
    ({"task_type": "x" * 65}, "task_type"),
    ({"task_type": "a b"}, "task_type"),
    ({"skill": "x" * 65}, "skill"),
    ({"priority": 9}, "priority"),
    ({"task_id": "no uuid"}, "task_id"),
    ({"task_id": TASK, "depends_on": [TASK]}, "depends_on"),
    ({"depends_on": ["no uuid"]}, "depends_on[0]"),
    ({"depends_on": [TASK] * 2}, "depends_on"),
    ({"depends_on": [f"123e4567-e89b-42d3-a456-{i:012d}" for i in range(101)]}, "depends_on"),
    ({"max_tries": -1}, "max_tries"),
    ({"max_tries": 101}, "max_tries"),
    ({"timeout": Duration(seconds=-1)}, "timeout"),
    ({"timeout": Duration(seconds=8 * 86_400)}, "timeout"),
    ({"timeout": Duration(seconds=1, nanos=-5)}, "timeout"),
    ({"not_before_time": Timestamp(seconds=-1)}, "not_before_time"),
    ({"not_before_time": Timestamp(seconds=253_402_300_800)}, "not_before_time"),
    ({"payload": struct(a=float("nan"))}, "payload.a"),
    ({"payload": struct(a=float("inf"))}, "payload.a"),
    ({"payload": struct(a="\0")}, "payload.a"),
    ({"payload": struct(a="x" * 262_200)}, "payload"),
    ({"payload": deep(16)}, "payload"),
    ({"payload": struct(skill_override="x" * 65)}, "payload.skill_override"),
]
CIRCLE = [
    spec(task_id=TASK, depends_on=[RUN]),
    spec(task_id=RUN, depends_on=[NOBODY]),
    spec(task_id=NOBODY, depends_on=[TASK]),
]


def override(make: Any, **fields: Any) -> list[Wrong]:
    """The wrong ways that every override has."""
    return [
        Wrong(make(**fields, reason="x" * 501), BAD, "reason"),
        Wrong(make(**fields, reason="\0"), BAD, "reason"),
        Wrong(make(**fields, request_id="x" * 129), BAD, "request_id"),
        Wrong(make(**fields, request_id=USED_REQUEST_ID, reason="another body"), TAKEN),
    ]


def named_task(make: Any, **fields: Any) -> list[Wrong]:
    """The wrong ways of a request that names a task."""
    return [
        Wrong(make(**fields, task_id=""), BAD, "task_id"),
        Wrong(make(**fields, task_id="no uuid"), BAD, "task_id"),
        Wrong(make(**fields, task_id=f"{{{TASK}}}"), BAD, "task_id"),
        Wrong(make(**fields, task_id=NOBODY), ABSENT),
    ]


def by_filter(make: Any, good: Any, bad: Any) -> list[Wrong]:
    """The wrong ways of a change by filter; `good` is a status that it takes, `bad` one that it does not."""
    return [
        Wrong(make(), BAD, "statuses"),
        Wrong(make(statuses=[good, bad]), BAD, "statuses"),
        Wrong(make(statuses=[77]), BAD, "statuses"),
        Wrong(make(statuses=[good] * 51), BAD, "statuses"),
        Wrong(make(statuses=[good], task_types=["x" * 65]), BAD, "task_types[0]"),
        Wrong(make(statuses=[good], priorities=[77]), BAD, "priorities"),
        Wrong(make(statuses=[good], page_token="foreign"), BAD, "page_token"),
        *override(make, statuses=[good], task_types=["nosuch"]),
    ]


MASK = {"update_mask": FieldMask(paths=["title"]), "task": spec()}
STREAMS = {"RESOURCE_EXHAUSTED": "test_too_many_streams_are_refused"}

SCHEDULER: dict[str, Rpc] = {
    "SubmitTask": Rpc(
        sc.SubmitTaskRequest(task=spec()),
        [
            Wrong(sc.SubmitTaskRequest(), BAD, "task"),
            *(Wrong(sc.SubmitTaskRequest(task=spec(**change)), BAD, f"task.{field}") for change, field in WRONG_SPECS),
            Wrong(sc.SubmitTaskRequest(task=spec(), request_id="x" * 129), BAD, "request_id"),
            Wrong(sc.SubmitTaskRequest(task=spec(task_id=ENDED_TASK)), TAKEN),
            Wrong(sc.SubmitTaskRequest(task=spec(), request_id=USED_REQUEST_ID), TAKEN),
        ],
        {"RESOURCE_EXHAUSTED": "test_a_full_queue_takes_no_more"},
    ),
    "SubmitTasks": Rpc(
        sc.SubmitTasksRequest(tasks=[spec(), spec()]),
        [
            Wrong(sc.SubmitTasksRequest(), BAD, "tasks"),
            Wrong(sc.SubmitTasksRequest(tasks=[spec()] * 1_001), BAD, "tasks"),
            *(Wrong(sc.SubmitTasksRequest(tasks=[spec(), spec(**c)]), BAD, f"tasks[1].{f}") for c, f in WRONG_SPECS),
            Wrong(sc.SubmitTasksRequest(tasks=[spec(task_id=TASK)] * 2), BAD, "tasks[0].task_id"),
            Wrong(sc.SubmitTasksRequest(tasks=CIRCLE), BAD, "tasks[0].depends_on"),
            Wrong(sc.SubmitTasksRequest(tasks=[spec(task_id=ENDED_TASK)]), TAKEN),
            Wrong(sc.SubmitTasksRequest(tasks=[spec()], request_id=USED_REQUEST_ID), TAKEN),
        ],
        {"RESOURCE_EXHAUSTED": "test_a_full_queue_takes_no_more"},
    ),
    "GetTask": Rpc(sc.GetTaskRequest(task_id=ENDED_TASK), named_task(sc.GetTaskRequest)),
    "ListTasks": Rpc(
        sc.ListTasksRequest(),
        [
            Wrong(sc.ListTasksRequest(page_size=-1), BAD, "page_size"),
            Wrong(sc.ListTasksRequest(page_size=501), BAD, "page_size"),
            Wrong(sc.ListTasksRequest(page_token="foreign"), BAD, "page_token"),
            Wrong(sc.ListTasksRequest(page_token="ü"), BAD, "page_token"),
            Wrong(sc.ListTasksRequest(statuses=[77]), BAD, "statuses"),  # type: ignore[list-item]  # of a newer version
            Wrong(sc.ListTasksRequest(priorities=[77]), BAD, "priorities"),  # type: ignore[list-item]  # of a newer version
            Wrong(sc.ListTasksRequest(task_types=["x" * 65]), BAD, "task_types[0]"),
            Wrong(sc.ListTasksRequest(task_types=["x"] * 51), BAD, "task_types"),
            Wrong(sc.ListTasksRequest(statuses=[1] * 51), BAD, "statuses"),  # type: ignore[list-item]  # a number of the enum
            Wrong(sc.ListTasksRequest(priorities=[1] * 51), BAD, "priorities"),  # type: ignore[list-item]  # a number of the enum
        ],
    ),
    "WatchTask": Rpc(sc.WatchTaskRequest(task_id=ENDED_TASK), named_task(sc.WatchTaskRequest), STREAMS),
    "StreamTaskLogs": Rpc(
        sc.StreamTaskLogsRequest(task_id=ENDED_TASK),
        [
            *named_task(sc.StreamTaskLogsRequest),
            Wrong(sc.StreamTaskLogsRequest(task_id=ENDED_TASK, offset=-1), BAD, "offset"),
            Wrong(sc.StreamTaskLogsRequest(task_id=ENDED_TASK, tail_bytes=-1), BAD, "tail_bytes"),
            Wrong(sc.StreamTaskLogsRequest(task_id=TASK), STATE),
        ],
        {**STREAMS, "UNAVAILABLE": "test_the_output_of_a_silent_executor_is_unavailable"},
    ),
    "CancelTask": Rpc(
        sc.CancelTaskRequest(task_id=TASK),
        [
            *named_task(sc.CancelTaskRequest),
            *override(sc.CancelTaskRequest, task_id=ENDED_TASK),
            Wrong(sc.CancelTaskRequest(task_id=ENDED_TASK), STATE),
        ],
    ),
    "RequeueTask": Rpc(
        sc.RequeueTaskRequest(task_id=TASK),
        [
            *named_task(sc.RequeueTaskRequest),
            *override(sc.RequeueTaskRequest, task_id=ENDED_TASK),
            Wrong(sc.RequeueTaskRequest(task_id=ENDED_TASK), STATE),
        ],
    ),
    "CancelTasks": Rpc(
        sc.CancelTasksRequest(statuses=[sc.TASK_STATUS_QUEUED], task_types=["nosuch"]),
        by_filter(sc.CancelTasksRequest, sc.TASK_STATUS_QUEUED, sc.TASK_STATUS_COMPLETED),
    ),
    "RequeueTasks": Rpc(
        sc.RequeueTasksRequest(statuses=[sc.TASK_STATUS_FAILED], task_types=["nosuch"]),
        by_filter(sc.RequeueTasksRequest, sc.TASK_STATUS_FAILED, sc.TASK_STATUS_QUEUED),
    ),
    "UpdateTask": Rpc(
        sc.UpdateTaskRequest(task_id=TASK, **MASK),
        [
            *named_task(sc.UpdateTaskRequest, **MASK),
            Wrong(sc.UpdateTaskRequest(task_id=ENDED_TASK, **MASK), STATE),
            Wrong(sc.UpdateTaskRequest(task_id=TASK, task=spec()), BAD, "update_mask"),
            Wrong(sc.UpdateTaskRequest(task_id=TASK, update_mask=FieldMask(paths=["status"]), task=spec()), BAD, "update_mask"),
            Wrong(sc.UpdateTaskRequest(task_id=TASK, update_mask=FieldMask(paths=["title"])), BAD, "task.title"),
            Wrong(sc.UpdateTaskRequest(task_id=TASK, **MASK, request_id="x" * 129), BAD, "request_id"),
            Wrong(sc.UpdateTaskRequest(task_id=ENDED_TASK, **MASK, request_id=USED_REQUEST_ID), TAKEN),
        ],
    ),
    "RunTick": Rpc(sc.RunTickRequest(), elsewhere={"FAILED_PRECONDITION": "test_a_second_scheduler_answers_and_takes_over"}),
    "ExplainDispatch": Rpc(sc.ExplainDispatchRequest(), named_task(sc.ExplainDispatchRequest)[1:]),
    "GetDispatchStats": Rpc(
        sc.GetDispatchStatsRequest(),
        [
            Wrong(sc.GetDispatchStatsRequest(windows=[Duration(seconds=60), Duration()]), BAD, "windows[1]"),
            Wrong(sc.GetDispatchStatsRequest(windows=[Duration(seconds=7 * 86_400 + 1)]), BAD, "windows[0]"),
            Wrong(sc.GetDispatchStatsRequest(windows=[Duration(seconds=1, nanos=-1)]), BAD, "windows[0]"),
            Wrong(sc.GetDispatchStatsRequest(windows=[Duration(seconds=60)] * 11), BAD, "windows"),
        ],
    ),
    "ListDispatchEvents": Rpc(
        sc.ListDispatchEventsRequest(),
        [
            Wrong(sc.ListDispatchEventsRequest(page_size=501), BAD, "page_size"),
            Wrong(sc.ListDispatchEventsRequest(page_token="foreign"), BAD, "page_token"),
            Wrong(sc.ListDispatchEventsRequest(task_id="no uuid"), BAD, "task_id"),
            Wrong(sc.ListDispatchEventsRequest(reason="x" * 65), BAD, "reason"),
            Wrong(sc.ListDispatchEventsRequest(reason="nosuch"), BAD, "reason"),
        ],
    ),
    "ListBreakers": Rpc(sc.ListBreakersRequest()),
    "GetBreaker": Rpc(
        sc.GetBreakerRequest(key="hk-minimax"),
        [
            Wrong(sc.GetBreakerRequest(), BAD, "key"),
            Wrong(sc.GetBreakerRequest(key="x" * 257), BAD, "key"),
            Wrong(sc.GetBreakerRequest(key="\0"), BAD, "key"),
            Wrong(sc.GetBreakerRequest(key="nobody"), ABSENT),
        ],
    ),
    "ResetBreaker": Rpc(
        sc.ResetBreakerRequest(key="hk-minimax"),
        [
            Wrong(sc.ResetBreakerRequest(), BAD, "key"),
            Wrong(sc.ResetBreakerRequest(key="nobody"), ABSENT),
            *override(sc.ResetBreakerRequest, key="hk-minimax"),
        ],
    ),
    "TripBreaker": Rpc(
        sc.TripBreakerRequest(key="hk-minimax", duration=Duration(seconds=60)),
        [
            Wrong(sc.TripBreakerRequest(), BAD, "key"),
            Wrong(sc.TripBreakerRequest(key="nobody"), ABSENT),
            Wrong(sc.TripBreakerRequest(key="hk-minimax", duration=Duration()), BAD, "duration"),
            Wrong(sc.TripBreakerRequest(key="hk-minimax", duration=Duration(seconds=-1)), BAD, "duration"),
            Wrong(sc.TripBreakerRequest(key="hk-minimax", duration=Duration(seconds=367 * 86_400)), BAD, "duration"),
            *override(sc.TripBreakerRequest, key="hk-minimax"),
        ],
    ),
    "SetDrain": Rpc(
        sc.SetDrainRequest(enabled=False),
        [Wrong(sc.SetDrainRequest(source="x" * 65), BAD, "source"), *override(sc.SetDrainRequest, enabled=True)],
        {"RESOURCE_EXHAUSTED": "test_a_drain_has_so_many_sources_at_the_most"},
    ),
    "SetBillingPause": Rpc(
        sc.SetBillingPauseRequest(until_time=Timestamp(seconds=1), backend="hk-minimax"),
        [
            Wrong(sc.SetBillingPauseRequest(), BAD, "until_time"),
            Wrong(sc.SetBillingPauseRequest(until_time=Timestamp(seconds=1)), BAD, "until_time"),
            Wrong(sc.SetBillingPauseRequest(until_time=FAR), BAD, "until_time"),
            Wrong(sc.SetBillingPauseRequest(until_time=Timestamp(nanos=-1)), BAD, "until_time"),
            Wrong(sc.SetBillingPauseRequest(until_time=FAR, backend="nobody"), BAD, "backend"),
            *override(sc.SetBillingPauseRequest),
        ],
    ),
    "ClearBillingPause": Rpc(
        sc.ClearBillingPauseRequest(),
        [Wrong(sc.ClearBillingPauseRequest(backend="nobody"), BAD, "backend"), *override(sc.ClearBillingPauseRequest)],
    ),
    "SetBudgetCap": Rpc(
        sc.SetBudgetCapRequest(slots=100),
        [
            Wrong(sc.SetBudgetCapRequest(slots=0), BAD, "slots"),
            Wrong(sc.SetBudgetCapRequest(slots=-5), BAD, "slots"),
            Wrong(sc.SetBudgetCapRequest(slots=1_000_001), BAD, "slots"),
            *override(sc.SetBudgetCapRequest),
        ],
    ),
    "ListSettings": Rpc(sc.ListSettingsRequest()),
    "SetSetting": Rpc(
        sc.SetSettingRequest(name="DISPATCH_MIN_SAMPLE", value="20"),
        [
            Wrong(sc.SetSettingRequest(value="1"), BAD, "name"),
            Wrong(sc.SetSettingRequest(name="LEASE_TTL_MS", value="1000"), BAD, "name"),
            Wrong(sc.SetSettingRequest(name="x" * 10_000, value="1"), BAD, "name"),
            *(
                Wrong(sc.SetSettingRequest(name=name, value=value), BAD, "value")
                for name, value in [
                    ("DISPATCH_MIN_SAMPLE", ""),
                    ("DISPATCH_MIN_SAMPLE", "0"),
                    ("DISPATCH_MIN_SAMPLE", "1.5"),
                    ("DISPATCH_MIN_SAMPLE", "x" * 65),
                    ("DISPATCH_RATE_THRESHOLD", "nan"),
                    ("DISPATCH_RATE_THRESHOLD", "1.01"),
                    ("DISPATCH_RATE_GUARD", "on"),
                    ("TICK_ENABLED", "perhaps"),
                    ("WINDOW_MS", str(15 * 86_400_000)),
                    ("OPEN_DURATION_MS", "\0"),
                ]
            ),
            *override(sc.SetSettingRequest, name="DISPATCH_MIN_SAMPLE", value="20"),
        ],
    ),
    "ResetSetting": Rpc(
        sc.ResetSettingRequest(name="DISPATCH_MIN_SAMPLE"),
        [
            Wrong(sc.ResetSettingRequest(), BAD, "name"),
            Wrong(sc.ResetSettingRequest(name="DATABASE_URL"), BAD, "name"),
            *override(sc.ResetSettingRequest, name="DISPATCH_MIN_SAMPLE"),
        ],
    ),
    "ListAuditEntries": Rpc(
        sc.ListAuditEntriesRequest(),
        [
            Wrong(sc.ListAuditEntriesRequest(page_size=501), BAD, "page_size"),
            Wrong(sc.ListAuditEntriesRequest(page_token="foreign"), BAD, "page_token"),
            Wrong(sc.ListAuditEntriesRequest(method="RunTick"), BAD, "method"),
            Wrong(sc.ListAuditEntriesRequest(actor="x" * 257), BAD, "actor"),
            Wrong(sc.ListAuditEntriesRequest(target="\0"), BAD, "target"),
            Wrong(sc.ListAuditEntriesRequest(start_time=Timestamp(seconds=-1)), BAD, "start_time"),
            Wrong(sc.ListAuditEntriesRequest(end_time=Timestamp(nanos=-1)), BAD, "end_time"),
        ],
    ),
    "GetSlots": Rpc(sc.GetSlotsRequest()),
    "GetStatus": Rpc(sc.GetStatusRequest()),
    "WatchEvents": Rpc(
        sc.WatchEventsRequest(),
        [
            Wrong(sc.WatchEventsRequest(types=["x" * 65]), BAD, "types[0]"),
            Wrong(sc.WatchEventsRequest(types=["task_failed", "nosuch"]), BAD, "types[1]"),
            Wrong(sc.WatchEventsRequest(types=[""]), BAD, "types[0]"),
            Wrong(sc.WatchEventsRequest(types=["task_failed"] * 51), BAD, "types"),
            Wrong(sc.WatchEventsRequest(after_event_id=2**62), BAD, "after_event_id"),
        ],
        STREAMS,
    ),
}


def run(**fields: Any) -> ex.RunRequest:
    return ex.RunRequest(**{"run_id": RUN, "task_id": TASK, "title": "t", "backend": "cecelia-run", **fields})


def term(make: Any, **fields: Any) -> Wrong:
    """A leader's call under a term that is over; the tests have called under a higher one."""
    return Wrong(make(**fields, cluster_id="the tests", term=1), STATE)


WRONG_RUNS: list[tuple[dict[str, Any], str]] = [
    ({"run_id": ""}, "run_id"),
    ({"run_id": "no uuid"}, "run_id"),
    ({"task_id": "no uuid"}, "task_id"),
    ({"title": ""}, "title"),
    ({"title": LONG}, "title"),
    ({"title": "\0"}, "title"),
    ({"description": "\0"}, "description"),
    ({"description": "ü" * 200_000}, "description"),
    ({"fence": -1}, "fence"),
    ({"backend": ""}, "backend"),
    ({"backend": "x" * 129}, "backend"),
    ({"skill": "x" * 129}, "skill"),
    ({"model": "\0"}, "model"),
    ({"timeout": Duration()}, "timeout"),
    ({"timeout": Duration(seconds=8 * 86_400)}, "timeout"),
    ({"lease_ttl": Duration(seconds=-1)}, "lease_ttl"),
    ({"payload": struct(a=float("nan"))}, "payload"),
    ({"payload": deep(17)}, "payload"),
]

EXECUTOR: dict[str, Rpc] = {
    "CheckResources": Rpc(ex.CheckResourcesRequest()),
    "CheckAvailability": Rpc(ex.CheckAvailabilityRequest()),
    "DispatchTasks": Rpc(
        ex.DispatchTasksRequest(runs=[run(run_id=NOBODY)]),
        [
            Wrong(ex.DispatchTasksRequest(), BAD, "runs"),
            Wrong(ex.DispatchTasksRequest(runs=[run()] * 501), BAD, "runs"),
            Wrong(ex.DispatchTasksRequest(runs=[run(description="x" * 250_000)] * 9), BAD, "runs"),
            Wrong(ex.DispatchTasksRequest(runs=[run()], cluster_id="x" * 65), BAD, "cluster_id"),
            *(
                Wrong(ex.DispatchTasksRequest(runs=[run(), run(**change)]), BAD, f"runs[1].{field}")
                for change, field in WRONG_RUNS
            ),
        ],
    ),
    "GetRun": Rpc(
        ex.GetRunRequest(run_id=RUN),
        [Wrong(ex.GetRunRequest(run_id="no"), BAD, "run_id"), Wrong(ex.GetRunRequest(run_id=TASK), ABSENT)],
    ),
    "ListRuns": Rpc(ex.ListRunsRequest()),
    "CancelRun": Rpc(
        ex.CancelRunRequest(run_id=RUN),
        [
            Wrong(ex.CancelRunRequest(run_id=""), BAD, "run_id"),
            Wrong(ex.CancelRunRequest(run_id=RUN, reason="x" * 501), BAD, "reason"),
            Wrong(ex.CancelRunRequest(run_id=RUN, cluster_id="\0"), BAD, "cluster_id"),
            Wrong(ex.CancelRunRequest(run_id=RUN, recorded_outcome=99), BAD, "recorded_outcome"),  # type: ignore[arg-type]  # none such
            term(ex.CancelRunRequest, run_id=RUN),
        ],
    ),
    "WatchRuns": Rpc(
        ex.WatchRunsRequest(),
        [Wrong(ex.WatchRunsRequest(cluster_id="x" * 65), BAD, "cluster_id"), term(ex.WatchRunsRequest)],
        {"RESOURCE_EXHAUSTED": "test_watchers_see_every_change_and_a_slow_one_is_cut_off"},
    ),
    "AcknowledgeRuns": Rpc(
        ex.AcknowledgeRunsRequest(run_ids=[NOBODY]),
        [
            Wrong(ex.AcknowledgeRunsRequest(run_ids=["no"]), BAD, "run_ids[0]"),
            Wrong(ex.AcknowledgeRunsRequest(run_ids=[NOBODY] * 1_001), BAD, "run_ids"),
            term(ex.AcknowledgeRunsRequest),
        ],
    ),
    "RenewLeases": Rpc(
        ex.RenewLeasesRequest(),
        [
            Wrong(ex.RenewLeasesRequest(run_ids=["no"]), BAD, "run_ids[0]"),
            Wrong(ex.RenewLeasesRequest(end_runs=["no"]), BAD, "end_runs[0]"),
            Wrong(ex.RenewLeasesRequest(lease_ttl=Duration(seconds=8 * 86_400)), BAD, "lease_ttl"),
            term(ex.RenewLeasesRequest),
        ],
    ),
    "StreamRunLogs": Rpc(
        ex.StreamRunLogsRequest(run_id=NOBODY),
        [
            Wrong(ex.StreamRunLogsRequest(run_id="no"), BAD, "run_id"),
            Wrong(ex.StreamRunLogsRequest(run_id=RUN, offset=-1), BAD, "offset"),
            Wrong(ex.StreamRunLogsRequest(run_id=RUN, tail_bytes=-1), BAD, "tail_bytes"),
            Wrong(ex.StreamRunLogsRequest(run_id=TASK), ABSENT),
        ],
        {"RESOURCE_EXHAUSTED": "test_too_many_readers_of_outputs_are_refused"},
    ),
}
