"""What becomes of a task when a run's start verdict or its end is known.

A failed start gives the task back with back-off and leaves its tries alone; it counts against the task only if the
backend has started something else since, and three such quarantine it (`start_failed`). An end that the task is to
blame for counts a try; out of tries it is quarantined (`max_tries`). A task whose cancellation was asked for never goes
back to the queue.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from msgspec.structs import replace

from scheduler_service.core import backoff
from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.task import Task, cancel, complete, fail, quarantine, return_to_queue, start

TIMED_OUT = "timed_out"
"""The reason of a neutral verdict when the task's own time-out came first."""

TASK_AT_FAULT = "task"
"""The reason of a neutral verdict when the task itself cannot be started: no other try and no other backend mends it."""

UNBLAMED_ERROR_CLASSES: frozenset[str] = frozenset({"billing_cap", "rate_limit"})
"""Error classes of a failed run that only waiting can mend; they cost the task no try."""


class StartVerdict(StrEnum):
    """What an attempt's start came to."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"
    REJECTED = "rejected"


class OutcomeClass(StrEnum):
    """How a run ended; the names are those of the executor's `RunOutcome`."""

    COMPLETED = "completed"
    FAILED = "failed"
    FAILED_FOR_GOOD = "failed_for_good"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    NOT_STARTED = "not_started"


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The end of a run as its executor reported it; `retry_time` if something said when another try makes sense."""

    outcome_class: OutcomeClass
    exit_code: int | None = None
    result: str = ""
    error: str = ""
    error_class: str = ""
    retry_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """Back-off; counted failed starts until quarantine; how far ahead a retry time is believed."""

    base: timedelta = timedelta(seconds=1)
    maximum: timedelta = timedelta(minutes=5)
    start_failure_limit: int = 3
    retry_time_limit: timedelta = timedelta(days=31)


def counts_against_task(task: Task, backend_last_success_time: datetime | None) -> bool:
    """Whether a failed start now is the task's: its backend has started something since the task's last one."""
    if backend_last_success_time is None:
        return False
    return task.last_start_failure_time is None or backend_last_success_time > task.last_start_failure_time


def settle_start(
    task: Task,
    verdict: StartVerdict,
    reason: str,
    *,
    detail: str = "",
    backend_last_success_time: datetime | None,
    retry_time: datetime | None = None,
    now: datetime,
    fraction: float,
    settings: RetrySettings,
    start_time: datetime | None = None,
) -> Task:
    """The task after a start verdict. `reason` and `detail` say why it did not start; `fraction` is random in [0, 1).

    `start_time`: when its run started, if that was before the verdict. Raises IllegalTransition if the task is not waiting for
    a verdict.
    """
    if verdict is StartVerdict.SUCCESS:
        return start(task, now, start_time)
    error = detail or reason
    if verdict is StartVerdict.NEUTRAL and reason == TASK_AT_FAULT:
        return fail(replace(task, tries=task.tries + 1), error, None, "", now)
    if verdict is StartVerdict.NEUTRAL and reason == TIMED_OUT:
        return _blame(replace(task, error=error), retry_time, now, fraction, settings)
    if verdict is StartVerdict.FAILURE:
        counted = counts_against_task(task, backend_last_success_time)
        task = replace(task, start_failures=task.start_failures + counted, last_start_failure_time=now)
        if counted and task.start_failures >= settings.start_failure_limit and not task.cancel_requested:
            return quarantine(task, HoldReason.START_FAILED, error, now)
    return _give_back(replace(task, error=error), retry_time, now, fraction, settings)


def settle_end(task: Task, outcome: RunOutcome, now: datetime, fraction: float, settings: RetrySettings) -> Task:
    """The task after the end of its run; `fraction` is random in [0, 1).

    Raises IllegalTransition if the task has no live run.
    """
    if outcome.outcome_class is OutcomeClass.COMPLETED:
        return complete(task, outcome.exit_code, outcome.result, now)
    error = outcome.error or f"the run ended as {outcome.outcome_class}"
    if outcome.outcome_class is OutcomeClass.FAILED_FOR_GOOD:
        blamed = replace(task, tries=task.tries + 1)
        return fail(blamed, error, outcome.exit_code, outcome.result, now)
    task = replace(task, exit_code=outcome.exit_code, result=outcome.result, error=error)
    blamed_outcomes = (OutcomeClass.FAILED, OutcomeClass.TIMED_OUT)
    if outcome.outcome_class in blamed_outcomes and outcome.error_class not in UNBLAMED_ERROR_CLASSES:
        return _blame(task, outcome.retry_time, now, fraction, settings)
    return _give_back(task, outcome.retry_time, now, fraction, settings)


def _blame(task: Task, retry_time: datetime | None, now: datetime, fraction: float, settings: RetrySettings) -> Task:
    task = replace(task, tries=task.tries + 1, backoff_count=0)
    if task.cancel_requested:
        return cancel(task, now, task.error)
    if task.tries >= task.max_tries:
        return quarantine(task, HoldReason.MAX_TRIES, task.error, now)
    return return_to_queue(task, now, _next_attempt(task.tries, retry_time, now, fraction, settings))


def _give_back(task: Task, retry_time: datetime | None, now: datetime, fraction: float, settings: RetrySettings) -> Task:
    if task.cancel_requested:
        return cancel(task, now, task.error)
    return return_to_queue(task, now, _next_attempt(task.backoff_count + 1, retry_time, now, fraction, settings))


def _next_attempt(attempt: int, retry_time: datetime | None, now: datetime, fraction: float, settings: RetrySettings) -> datetime:
    backed_off = now + backoff.delay(attempt, settings.base, settings.maximum, fraction)
    if retry_time is None:
        return backed_off
    return max(backed_off, min(retry_time, now + settings.retry_time_limit))
