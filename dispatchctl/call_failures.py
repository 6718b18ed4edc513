"""Errors of calls as `Failure`: what could not be done, why with the reason code, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import grpc
from google.protobuf.message import Message

from dispatchctl.failures import ExitStatus, Failure
from service_runtime import errors
from service_runtime.grpc_errors import status_code

_STATUSES = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: ExitStatus.USAGE,
        grpc.StatusCode.OUT_OF_RANGE: ExitStatus.USAGE,
        grpc.StatusCode.NOT_FOUND: ExitStatus.NOT_FOUND,
        grpc.StatusCode.UNAVAILABLE: ExitStatus.UNREACHABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED: ExitStatus.UNREACHABLE,
        grpc.StatusCode.FAILED_PRECONDITION: ExitStatus.REFUSED,
        grpc.StatusCode.ALREADY_EXISTS: ExitStatus.REFUSED,
        grpc.StatusCode.ABORTED: ExitStatus.REFUSED,
        grpc.StatusCode.PERMISSION_DENIED: ExitStatus.REFUSED,
        grpc.StatusCode.UNAUTHENTICATED: ExitStatus.REFUSED,
        grpc.StatusCode.RESOURCE_EXHAUSTED: ExitStatus.REFUSED,
    }
)

TRYING = MappingProxyType(
    {
        "SubmitTask": "submit the task",
        "SubmitTasks": "submit the tasks",
        "GetTask": "show the task",
        "ListTasks": "list the tasks",
        "WatchTask": "follow the task",
        "StreamTaskLogs": "show the output",
        "CancelTask": "cancel the task",
        "RequeueTask": "requeue the task",
        "CancelTasks": "cancel the tasks",
        "RequeueTasks": "requeue the tasks",
        "UpdateTask": "change the task",
        "RunTick": "take a tick",
        "ExplainDispatch": "explain the dispatch",
        "GetDispatchStats": "show the statistics",
        "ListDispatchEvents": "list the decisions",
        "ListBreakers": "list the breakers",
        "GetBreaker": "show the breaker",
        "ResetBreaker": "reset the breaker",
        "TripBreaker": "trip the breaker",
        "SetDrain": "change the drain",
        "SetBillingPause": "pause for billing",
        "ClearBillingPause": "end the billing pause",
        "SetBudgetCap": "change the budget cap",
        "ListSettings": "list the settings",
        "SetSetting": "change the setting",
        "ResetSetting": "reset the setting",
        "ListAuditEntries": "list who has overridden what",
        "GetSlots": "show the slots",
        "GetStatus": "show the status",
        "WatchEvents": "show the events",
        "CheckResources": "show the resources",
        "CheckAvailability": "show the backends",
        "ListRuns": "list the runs",
        "GetRun": "show the run",
        "StreamRunLogs": "show the output",
    }
)
"""What a caller of each rpc was trying to do, to follow `cannot`."""

_REMEDIES = MappingProxyType(
    {
        "task_not_found": "see the tasks: dispatchctl tasks",
        "breaker_not_found": "see the breakers: dispatchctl breakers",
        "run_not_found": "see the runs: dispatchctl runs; ask another executor with --executor HOST:PORT",
        "output_gone": "see its result: dispatchctl task {task_id}",
        "executor_unreachable": "see which executors answer: dispatchctl status; its result: dispatchctl task {task_id}",
        "task_not_started": "wait for a run: dispatchctl logs -f {task_id}; why there is none: dispatchctl explain {task_id}",
        "request_id_reused": "give another --request-id to what is another submission",
        "task_exists": "give another --id, or none; see the task there: dispatchctl task {task_id}",
        "task_ended": "see how it ended: dispatchctl task {task_id}",
        "task_not_ended": "stop it first: dispatchctl cancel {task_id}",
        "task_not_queued": "change it while it waits; see where it is: dispatchctl task {task_id}",
        "dependency_failed": "requeue the prerequisite first; see which: dispatchctl task {task_id}",
        "not_leader": "name the leader with --address or DISPATCH_ADDRESS; see who leads: dispatchctl status",
        "internal": "look for the id in the log of the {service}",
    }
)


_ARGUMENTS = MappingProxyType(
    {
        "task_id": "TASK",
        "run_id": "RUN",
        "key": "KEY",
        "slots": "SLOTS",
        "name": "NAME",
        "value": "VALUE",
        "start_time": "--since",
        "end_time": "--until",
        "task_type": "--type",
        "types": "--type",
        "task_types": "--type",
        "not_before_time": "--not-before",
        "until_time": "--until",
        "duration": "--for",
        "after_event_id": "--after",
        "page_size": "--limit",
        "statuses": "--status",
        "priorities": "--priority",
    }
)
_OPTIONS = MappingProxyType({("SubmitTask", "task.task_id"): "--id", ("ListDispatchEvents", "task_id"): "--task"})
"""Where the same field is an option instead, by rpc."""


@dataclass(frozen=True, slots=True)
class Callee:
    """Which service is called, and how a user says where it is."""

    service: str
    address: str
    how_to_name: str


def rpc_name(request: Message) -> str:
    """The rpc that a request is for: each has a request message of its own."""
    return request.DESCRIPTOR.name.removesuffix("Request")


def no_answer(callee: Callee, timeout_s: float, said: str) -> Failure:
    """The failure of a call that took too long."""
    return Failure(
        f"the {callee.service} at {callee.address} did not answer within {timeout_s:g} s",
        f"DEADLINE_EXCEEDED: {said}",
        f"wait longer with --timeout, such as --timeout 60s; if that does not help, read the log of the {callee.service}",
        ExitStatus.UNREACHABLE,
    )


def failure_of(error: errors.ServiceError, request: Message, callee: Callee, timeout_s: float) -> Failure:
    """A call's error in three lines; the exit status goes by its code."""
    code = error.__cause__.code() if isinstance(error.__cause__, grpc.aio.AioRpcError) else status_code(error)
    said, rpc = error.message, rpc_name(request)
    reason = error.reason
    status = _STATUSES.get(code, ExitStatus.FAILED)
    if code is grpc.StatusCode.UNAVAILABLE and reason == code.name:
        start = "start it with: dispatchctl up; or name another" if callee.service == "scheduler" else "name another"
        what = f"the {callee.service} at {callee.address} cannot be reached"
        return Failure(what, f"{reason}: {said}", f"{start} with {callee.how_to_name}", status)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return no_answer(callee, timeout_s, said)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Failure(
            f"what serves at {callee.address} is no {callee.service}",
            f"{reason}: it does not know {rpc}",
            f"name the {callee.service} with {callee.how_to_name}; or update it, if it is older than this program",
            ExitStatus.UNREACHABLE,
        )
    fields = "; ".join(f"{violation.field} {violation.description}" for violation in error.violations)
    remedy = _remedy(code, error, request, callee)
    return Failure(f"cannot {TRYING.get(rpc, f'call {rpc}')}", f"{reason}: {fields or said}", remedy, status)


def _argument(field: str, request: Message) -> str:
    """What a user calls a field of the request on the command line; a batch's fields are those of its file."""
    if rpc_name(request) == "SubmitTasks":
        return field
    if (rpc_name(request), field) in _OPTIONS:
        return _OPTIONS[rpc_name(request), field]
    name = field.removeprefix("task.").partition("[")[0]
    return _ARGUMENTS.get(name, f"--{name.replace('_', '-')}")


def _remedy(code: grpc.StatusCode, error: errors.ServiceError, request: Message, callee: Callee) -> str:
    if error.violations:
        return f"correct {', '.join(dict.fromkeys(_argument(violation.field, request) for violation in error.violations))}"
    known = _REMEDIES.get(error.reason.lower())
    if known is not None:
        task_id = getattr(request, "task_id", "") or getattr(getattr(request, "task", None), "task_id", "") or "TASK"
        return known.format(task_id=task_id, service=callee.service)
    if error.retry_after is not None:
        return f"try again in {error.retry_after.total_seconds():g} s"
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return "correct the request; dispatchctl COMMAND -h shows what it takes"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return "ask for less, or send less, at a time"
    if code is grpc.StatusCode.UNAVAILABLE:
        return "try again in a few seconds"
    return f"read the log of the {callee.service}"
