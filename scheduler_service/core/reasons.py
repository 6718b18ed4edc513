"""The closed sets of codes: why a dispatch did not happen, and why one task waits by itself.

The strings are wire values: the same in PostgreSQL, JSON, metric labels and `failure_reasons`.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Reason(StrEnum):
    """Why a dispatch was blocked, failed or was rejected."""

    DRAINING = "draining"
    BILLING_PAUSE = "billing_pause"
    USER_TEAM_MODE = "user_team_mode"
    POOL_EXHAUSTED = "pool_exhausted"
    POOL_C_FULL = "pool_c_full"
    LOW_SUCCESS_RATE = "low_success_rate"
    CIRCUIT_BREAKER_OPEN = "circuit_breaker_open"
    PRE_FLIGHT_CHECK_FAILED = "pre_flight_check_failed"
    NO_EXECUTOR = "no_executor"
    TASK_NOT_FOUND = "task_not_found"
    EXECUTOR_FAILED = "executor_failed"
    ALREADY_RUNNING = "already_running"
    SERVER_OVERLOADED = "server_overloaded"
    CONFIG_ERROR = "config_error"


class ReasonKind(StrEnum):
    """What a reason says about the decision; also the `outcome` label of `dispatch_decisions_total`."""

    BLOCKED = "blocked"
    FAILED = "failed"
    REJECTED = "rejected"


REASON_KINDS: Mapping[Reason, ReasonKind] = MappingProxyType(
    {
        Reason.DRAINING: ReasonKind.BLOCKED,
        Reason.BILLING_PAUSE: ReasonKind.BLOCKED,
        Reason.USER_TEAM_MODE: ReasonKind.BLOCKED,
        Reason.POOL_EXHAUSTED: ReasonKind.BLOCKED,
        Reason.POOL_C_FULL: ReasonKind.BLOCKED,
        Reason.LOW_SUCCESS_RATE: ReasonKind.BLOCKED,
        Reason.CIRCUIT_BREAKER_OPEN: ReasonKind.BLOCKED,
        Reason.PRE_FLIGHT_CHECK_FAILED: ReasonKind.BLOCKED,
        Reason.NO_EXECUTOR: ReasonKind.FAILED,
        Reason.TASK_NOT_FOUND: ReasonKind.FAILED,
        Reason.EXECUTOR_FAILED: ReasonKind.FAILED,
        Reason.ALREADY_RUNNING: ReasonKind.REJECTED,
        Reason.SERVER_OVERLOADED: ReasonKind.REJECTED,
        Reason.CONFIG_ERROR: ReasonKind.REJECTED,
    }
)

REASON_MEANINGS: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.DRAINING: "a drain is in force: some source asks that nothing start",
        Reason.BILLING_PAUSE: "a billing pause is in force for the backend, or for all",
        Reason.USER_TEAM_MODE: "no slot: three or more interactive sessions are open on the machine",
        Reason.POOL_EXHAUSTED: "no slot: the machine's load, seats, reserve or budget leave none for tasks",
        Reason.POOL_C_FULL: "no slot: as many tasks run as may",
        Reason.LOW_SUCCESS_RATE: "too few of the backend's starts in the window succeeded; one task an interval is let through",
        Reason.CIRCUIT_BREAKER_OPEN: "the backend's breaker is open, or its probe is under way",
        Reason.PRE_FLIGHT_CHECK_FAILED: "a task's title, description, priority or skill will not do; it is quarantined",
        Reason.NO_EXECUTOR: "no executor answers for the backend, or the ones that do are stopping; once a tick and backend",
        Reason.TASK_NOT_FOUND: "the task vanished between claim and dispatch",
        Reason.EXECUTOR_FAILED: "the start verdict is failure: the backend is there and did not begin the work",
        Reason.ALREADY_RUNNING: "the executor has a run of this task under way",
        Reason.SERVER_OVERLOADED: "the executor has no room, or did not take the order as it came",
        Reason.CONFIG_ERROR: "the backend is set up wrongly on the executor: somebody must mend it",
    }
)

ATTEMPT_REASONS: frozenset[Reason] = frozenset({Reason.EXECUTOR_FAILED})
"""The reasons that are failed attempts: they alone feed `attempts` and the breaker."""

EXECUTOR_REASON_MAP: Mapping[str, Reason] = MappingProxyType(
    {
        "already_running": Reason.ALREADY_RUNNING,
        "server_overloaded": Reason.SERVER_OVERLOADED,
        "config_error": Reason.CONFIG_ERROR,
        "executor_failed": Reason.EXECUTOR_FAILED,
        "bridge_error": Reason.EXECUTOR_FAILED,
        "no_sample": Reason.SERVER_OVERLOADED,
        "stale_request": Reason.SERVER_OVERLOADED,
        "stale_term": Reason.SERVER_OVERLOADED,
        "refused": Reason.SERVER_OVERLOADED,
        "draining": Reason.NO_EXECUTOR,
        "no_executor": Reason.NO_EXECUTOR,
    }
)


EXECUTOR_CODE_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "already_running": "another run of this task is under way there",
        "server_overloaded": "CPU, memory, swap, disk or the backend's own limit leave no room",
        "config_error": "no such backend there, its command or URL is missing or wrong, or another run has this run_id",
        "executor_failed": "the backend did not begin the work",
        "bridge_error": "the bridge failed",
        "no_sample": "its resources are not measured yet, or not any more",
        "stale_request": "the order was sent before the executor's last start, or too long ago",
        "stale_term": "the sender no longer leads",
        "refused": "the run was called off before it was seen",
        "draining": "the executor is stopping",
        "no_executor": "no executor is behind the address",
    }
)


def from_executor(code: str) -> Reason:
    """The reason for an executor's rejection code.

    A code that is not listed is `config_error`: an executor of another version or configuration speaks to us. That
    counts against no breaker, is retried with back-off, and is shown as something for an operator to mend;
    `server_overloaded` would look like a passing state.
    """
    return EXECUTOR_REASON_MAP.get(code, Reason.CONFIG_ERROR)


class HoldReason(StrEnum):
    """Why one task waits, or was put aside, by itself; a gate's hold is never stored in a task."""

    NONE = ""
    NOT_BEFORE = "not_before"
    BACKOFF = "backoff"
    DEPENDENCY = "dependency"
    DEPENDENCY_FAILED = "dependency_failed"
    PRE_FLIGHT_CHECK_FAILED = "pre_flight_check_failed"
    UNREADABLE = "unreadable"
    START_FAILED = "start_failed"
    MAX_TRIES = "max_tries"
    CANCEL_REQUESTED = "cancel_requested"


HOLD_MEANINGS: Mapping[HoldReason, str] = MappingProxyType(
    {
        HoldReason.NOT_BEFORE: "queued: its `not_before_time` has not come",
        HoldReason.BACKOFF: "queued: after a failed start, a rejection or a failed try; `next_attempt_time` says until when",
        HoldReason.DEPENDENCY: "queued: a task that it depends on has not completed",
        HoldReason.DEPENDENCY_FAILED: "failed: a task that it depends on failed, was cancelled, or does not exist",
        HoldReason.PRE_FLIGHT_CHECK_FAILED: "quarantined: pre-flight found the issues in `error`",
        HoldReason.UNREADABLE: "quarantined: its row in the database holds what no task can, as `error` says",
        HoldReason.START_FAILED: "quarantined: its start failed three times while others of its backend began",
        HoldReason.MAX_TRIES: "quarantined: its tries are used up",
        HoldReason.CANCEL_REQUESTED: "running: cancelled by hand, and its run has not ended yet",
    }
)
