"""The end of a run: whose fault it was, and what becomes of the task."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from msgspec.structs import replace

from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.task import IllegalTransition, Task, TaskStatus, claim, request_cancel, start
from scheduler_service.core.verdicts import OutcomeClass, RetrySettings, RunOutcome, settle_end

NOW = datetime(2026, 2, 25, 13, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
RUN = UUID(int=7)
SETTINGS = RetrySettings()


@pytest.fixture
def running(make_task: Callable[..., Task]) -> Task:
    return start(claim(make_task(), RUN, "alpha", NOW), NOW)


def end(task: Task, outcome: RunOutcome) -> Task:
    return settle_end(task, outcome, NOW, 0.5, SETTINGS)


def test_completed(running: Task) -> None:
    done = end(running, RunOutcome(OutcomeClass.COMPLETED, exit_code=0, result="42"))
    assert (done.status, done.result, done.tries) == (TaskStatus.COMPLETED, "42", 0)


def test_completed_though_cancellation_was_asked_for(running: Task) -> None:
    done = end(request_cancel(running, NOW), RunOutcome(OutcomeClass.COMPLETED, exit_code=0))
    assert (done.status, done.hold_reason) == (TaskStatus.COMPLETED, HoldReason.NONE)


@pytest.mark.parametrize("outcome_class", [OutcomeClass.FAILED, OutcomeClass.TIMED_OUT])
@pytest.mark.parametrize("status", [TaskStatus.RUNNING, TaskStatus.DISPATCHING])
def test_the_tasks_own_fault_costs_a_try(running: Task, outcome_class: OutcomeClass, status: TaskStatus) -> None:
    back = end(replace(running, status=status), RunOutcome(outcome_class, exit_code=3, result="log", error="no"))
    assert (back.status, back.tries, back.hold_reason) == (TaskStatus.QUEUED, 1, HoldReason.BACKOFF)
    assert (back.exit_code, back.result, back.error) == (3, "log", "no")
    assert (back.next_attempt_time, back.run_id, back.start_time) == (NOW + SECOND / 2, None, None)


def test_its_back_off_doubles_with_the_tries(running: Task) -> None:
    back = end(replace(running, tries=5, max_tries=100), RunOutcome(OutcomeClass.FAILED))
    assert back.next_attempt_time == NOW + 16 * SECOND


def test_the_last_try_quarantines_with_the_outcome(running: Task) -> None:
    aside = end(replace(running, tries=2), RunOutcome(OutcomeClass.FAILED, exit_code=3, result="log", error="no"))
    assert (aside.status, aside.hold_reason, aside.tries) == (TaskStatus.QUARANTINED, HoldReason.MAX_TRIES, 3)
    assert (aside.exit_code, aside.result, aside.error) == (3, "log", "no")


def test_max_tries_one_means_one(running: Task) -> None:
    assert end(replace(running, max_tries=1), RunOutcome(OutcomeClass.FAILED)).status is TaskStatus.QUARANTINED


@pytest.mark.parametrize("error_class", ["billing_cap", "rate_limit"])
def test_quota_costs_no_try_and_waits_until_it_says(running: Task, error_class: str) -> None:
    until = NOW + timedelta(hours=2)
    back = end(running, RunOutcome(OutcomeClass.FAILED, error_class=error_class, retry_time=until))
    assert (back.status, back.tries, back.next_attempt_time) == (TaskStatus.QUEUED, 0, until)


@pytest.mark.parametrize("error_class", ["auth", "network", "resource", "task", ""])
def test_other_error_classes_are_bounded_by_the_tries(running: Task, error_class: str) -> None:
    until = NOW + timedelta(hours=2)
    back = end(running, RunOutcome(OutcomeClass.FAILED, error_class=error_class, retry_time=until))
    assert (back.tries, back.next_attempt_time) == (1, until)


def test_failed_for_good(running: Task) -> None:
    failed = end(running, RunOutcome(OutcomeClass.FAILED_FOR_GOOD, error="HTTP 422"))
    assert (failed.status, failed.tries, failed.error) == (TaskStatus.FAILED, 1, "HTTP 422")


@pytest.mark.parametrize("outcome_class", [OutcomeClass.LOST, OutcomeClass.NOT_STARTED, OutcomeClass.CANCELLED])
def test_nobodys_fault_goes_back_without_a_try(running: Task, outcome_class: OutcomeClass) -> None:
    back = end(replace(running, tries=2), RunOutcome(outcome_class))
    assert (back.status, back.tries) == (TaskStatus.QUEUED, 2)
    assert back.error == f"the run ended as {outcome_class}"


@pytest.mark.parametrize(
    "outcome_class",
    [OutcomeClass.LOST, OutcomeClass.CANCELLED, OutcomeClass.FAILED, OutcomeClass.TIMED_OUT, OutcomeClass.NOT_STARTED],
)
@pytest.mark.parametrize("tries", [0, 2])
def test_a_task_to_be_cancelled_is_cancelled(running: Task, outcome_class: OutcomeClass, tries: int) -> None:
    asked = request_cancel(replace(running, tries=tries), NOW)
    ended = end(asked, RunOutcome(outcome_class, exit_code=143))
    assert (ended.status, ended.exit_code, ended.hold_reason) == (TaskStatus.CANCELLED, 143, HoldReason.NONE)


def test_a_second_report_changes_nothing(running: Task) -> None:
    done = end(running, RunOutcome(OutcomeClass.COMPLETED))
    for outcome_class in OutcomeClass:
        with pytest.raises(IllegalTransition):
            end(done, RunOutcome(outcome_class))
