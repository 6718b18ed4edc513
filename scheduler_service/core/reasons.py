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
    START_FAILED = "start_failed"
    MAX_TRIES = "max_tries"
    CANCEL_REQUESTED = "cancel_requested"
