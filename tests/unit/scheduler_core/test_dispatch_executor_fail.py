"""A start that fails: the task goes back with a back-off, the breaker counts, the window names the reason."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from msgspec.structs import replace

from scheduler_service.core.breaker import Breaker, BreakerSettings, BreakerState, record_failure, record_neutral
from scheduler_service.core.outcome_window import Outcome, compute_window
from scheduler_service.core.reasons import (
    ATTEMPT_REASONS,
    EXECUTOR_REASON_MAP,
    REASON_KINDS,
    HoldReason,
    Reason,
    ReasonKind,
    from_executor,
)
from scheduler_service.core.task import IllegalTransition, Task, TaskStatus, claim, request_cancel
from scheduler_service.core.verdicts import TIMED_OUT, RetrySettings, StartVerdict, counts_against_task, settle_start

NOW = datetime(2026, 2, 25, 13, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
RUN = UUID(int=7)
SETTINGS = RetrySettings()
MakeTask = Callable[..., Task]


@pytest.fixture
def dispatching(make_task: MakeTask) -> Task:
    return claim(make_task(), RUN, "alpha", NOW)


def settle(
    task: Task,
    verdict: StartVerdict,
    reason: str = "executor_failed",
    *,
    now: datetime = NOW,
    backend_success: datetime | None = None,
    retry_time: datetime | None = None,
    detail: str = "",
    fraction: float = 0.5,
) -> Task:
    return settle_start(
        task,
        verdict,
        reason,
        detail=detail,
        backend_last_success_time=backend_success,
        retry_time=retry_time,
        now=now,
        fraction=fraction,
        settings=SETTINGS,
    )


class TestFailure:
    def test_the_task_is_queued_again_with_everything_of_the_run_cleared(self, dispatching: Task) -> None:
        back = settle(dispatching, StartVerdict.FAILURE, detail="connection refused")
        assert (back.status, back.hold_reason) == (TaskStatus.QUEUED, HoldReason.BACKOFF)
        assert (back.run_id, back.executor_id, back.start_time) == (None, "", None)
        assert (back.tries, back.fence, back.error) == (0, 1, "connection refused")
        assert back.next_attempt_time == back.due_time == NOW + SECOND / 2

    def test_without_detail_the_reason_is_the_error(self, dispatching: Task) -> None:
        assert settle(dispatching, StartVerdict.FAILURE).error == "executor_failed"

    def test_the_back_off_doubles_with_each_failure(self, dispatching: Task) -> None:
        task, waits = dispatching, []
        for _ in range(11):
            back = settle(task, StartVerdict.FAILURE)
            assert back.next_attempt_time is not None
            waits.append((back.next_attempt_time - NOW).total_seconds())
            task = claim(back, RUN, "alpha", NOW)
        assert waits == [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 150, 150]

    def test_a_successful_start_does_not_begin_the_back_off_anew(self, dispatching: Task) -> None:
        twice = claim(settle(dispatching, StartVerdict.FAILURE), RUN, "alpha", NOW)
        running = settle(twice, StartVerdict.SUCCESS)
        assert (running.status, running.start_time) == (TaskStatus.RUNNING, NOW)
        again = replace(running, status=TaskStatus.DISPATCHING)
        assert settle(again, StartVerdict.FAILURE).next_attempt_time == NOW + SECOND

    def test_a_task_at_fault_fails_for_good(self, dispatching: Task) -> None:
        failed = settle(dispatching, StartVerdict.NEUTRAL, "task")
        assert (failed.status, failed.tries) == (TaskStatus.FAILED, dispatching.tries + 1)

    def test_tries_never_move(self, make_task: MakeTask) -> None:
        task = claim(make_task(tries=2), RUN, "alpha", NOW)
        for verdict in (StartVerdict.FAILURE, StartVerdict.NEUTRAL, StartVerdict.REJECTED, StartVerdict.SUCCESS):
            assert settle(task, verdict, "x").tries == 2

    def test_only_a_task_that_waits_for_a_verdict_has_one(self, make_task: MakeTask) -> None:
        with pytest.raises(IllegalTransition):
            settle(make_task(), StartVerdict.FAILURE)
        with pytest.raises(IllegalTransition):
            settle(settle(claim(make_task(), RUN, "alpha", NOW), StartVerdict.SUCCESS), StartVerdict.SUCCESS)


class TestPoisonTask:
    """One task that cannot be started must not hold a breaker open for ever; a dead backend quarantines nobody."""

    def test_a_backend_that_starts_nothing_counts_against_no_task(self, dispatching: Task) -> None:
        task = dispatching
        for n in range(20):
            task = claim(settle(task, StartVerdict.FAILURE, now=NOW + n * SECOND), RUN, "alpha", NOW + n * SECOND)
        assert (task.start_failures, task.status) == (0, TaskStatus.DISPATCHING)

    def test_three_failures_with_successes_of_others_between_quarantine(self, dispatching: Task) -> None:
        task, now = dispatching, NOW
        for n in (1, 2):
            task = settle(task, StartVerdict.FAILURE, now=now, backend_success=now - SECOND)
            assert (task.status, task.start_failures) == (TaskStatus.QUEUED, n)
            now += timedelta(minutes=1)
            task = claim(task, RUN, "alpha", now)
        task = settle(task, StartVerdict.FAILURE, now=now, backend_success=now - SECOND, detail="no such file")
        assert (task.status, task.hold_reason, task.start_failures) == (
            TaskStatus.QUARANTINED,
            HoldReason.START_FAILED,
            3,
        )
        assert (task.error, task.tries, task.end_time) == ("no such file", 0, now)

    def test_a_failure_counts_once_for_each_success_of_the_backend(self, dispatching: Task) -> None:
        success = NOW - SECOND
        task = settle(dispatching, StartVerdict.FAILURE, now=NOW, backend_success=success)
        for n in range(1, 10):
            now = NOW + n * SECOND
            task = settle(claim(task, RUN, "alpha", now), StartVerdict.FAILURE, now=now, backend_success=success)
        assert (task.status, task.start_failures) == (TaskStatus.QUEUED, 1)

    def test_uncounted_failures_after_two_counted_ones_do_not_quarantine(self, make_task: MakeTask) -> None:
        task = claim(make_task(start_failures=3, last_start_failure_time=NOW), RUN, "alpha", NOW)
        assert settle(task, StartVerdict.FAILURE, backend_success=NOW).status is TaskStatus.QUEUED

    @pytest.mark.parametrize(
        ("success", "previous", "counts"),
        [
            (None, None, False),
            (None, NOW, False),
            (NOW, None, True),
            (NOW, NOW, False),
            (NOW, NOW - SECOND, True),
            (NOW - SECOND, NOW, False),
        ],
    )
    def test_the_rule(self, make_task: MakeTask, success: datetime | None, previous: datetime | None, counts: bool) -> None:
        assert counts_against_task(make_task(last_start_failure_time=previous), success) is counts


class TestOtherVerdicts:
    def test_neutral_and_rejected_give_the_task_back_uncounted(self, dispatching: Task) -> None:
        for verdict in (StartVerdict.NEUTRAL, StartVerdict.REJECTED):
            back = settle(dispatching, verdict, "server_overloaded", backend_success=NOW)
            assert (back.status, back.start_failures, back.last_start_failure_time) == (TaskStatus.QUEUED, 0, None)
            assert (back.hold_reason, back.next_attempt_time) == (HoldReason.BACKOFF, NOW + SECOND / 2)

    def test_a_retry_time_is_respected_but_not_for_ever(self, dispatching: Task) -> None:
        def next_attempt(retry_time: datetime) -> datetime | None:
            return settle(dispatching, StartVerdict.NEUTRAL, "billing_cap", retry_time=retry_time).next_attempt_time

        assert next_attempt(NOW + timedelta(hours=2)) == NOW + timedelta(hours=2)
        assert next_attempt(NOW - timedelta(hours=2)) == NOW + SECOND / 2
        assert next_attempt(datetime.max.replace(tzinfo=UTC)) == NOW + timedelta(days=31)

    def test_its_own_time_out_before_a_verdict_is_the_tasks_fault(self, make_task: MakeTask) -> None:
        task = claim(make_task(max_tries=2), RUN, "alpha", NOW)
        once = settle(task, StartVerdict.NEUTRAL, TIMED_OUT)
        assert (once.status, once.tries) == (TaskStatus.QUEUED, 1)
        twice = settle(claim(once, RUN, "alpha", NOW), StartVerdict.NEUTRAL, TIMED_OUT)
        assert (twice.status, twice.hold_reason, twice.tries) == (TaskStatus.QUARANTINED, HoldReason.MAX_TRIES, 2)

    @pytest.mark.parametrize("verdict", [StartVerdict.FAILURE, StartVerdict.NEUTRAL, StartVerdict.REJECTED])
    @pytest.mark.parametrize("start_failures", [0, 2])
    def test_a_task_to_be_cancelled_never_goes_back(self, dispatching: Task, verdict: StartVerdict, start_failures: int) -> None:
        asked = request_cancel(replace(dispatching, start_failures=start_failures), NOW)
        assert settle(asked, verdict, "cancelled", backend_success=NOW).status is TaskStatus.CANCELLED

    def test_a_start_may_still_succeed_while_cancellation_is_asked_for(self, dispatching: Task) -> None:
        started = settle(request_cancel(dispatching, NOW), StartVerdict.SUCCESS)
        assert (started.status, started.cancel_requested) == (TaskStatus.RUNNING, True)
        assert started.hold_reason is HoldReason.CANCEL_REQUESTED


class TestWhatElseMoves:
    def test_three_refused_starts_of_three_tasks_open_the_breaker(self) -> None:
        breaker = Breaker("cecelia-run@alpha")
        for n in range(3):
            breaker, _ = record_failure(breaker, NOW, breaker.generation, UUID(int=n), BreakerSettings())
        assert breaker.state is BreakerState.OPEN

    def test_rejections_leave_it_alone(self) -> None:
        breaker = Breaker("cecelia-run@alpha", failures=2)
        for _ in range(10):
            breaker, events = record_neutral(breaker, NOW, 0, RUN)
            assert events == ()
        assert breaker == Breaker("cecelia-run@alpha", failures=2)

    def test_the_window_names_the_reason(self) -> None:
        window = compute_window([Outcome(NOW, False, Reason.EXECUTOR_FAILED)], NOW, timedelta(hours=1))
        assert window.failure_reasons == {"executor_failed": 1}


class TestReasonCodes:
    CODES = (
        "draining",
        "billing_pause",
        "user_team_mode",
        "pool_exhausted",
        "pool_c_full",
        "low_success_rate",
        "circuit_breaker_open",
        "pre_flight_check_failed",
        "no_executor",
        "task_not_found",
        "executor_failed",
        "already_running",
        "server_overloaded",
        "config_error",
    )

    def test_the_strings_are_the_contracts(self) -> None:
        assert tuple(reason.value for reason in Reason) == self.CODES

    def test_each_has_a_kind(self) -> None:
        assert set(REASON_KINDS) == set(Reason)
        by_kind = {kind: tuple(r.value for r in Reason if REASON_KINDS[r] is kind) for kind in ReasonKind}
        assert by_kind[ReasonKind.FAILED] == ("no_executor", "task_not_found", "executor_failed")
        assert by_kind[ReasonKind.REJECTED] == ("already_running", "server_overloaded", "config_error")
        assert by_kind[ReasonKind.BLOCKED] == self.CODES[:8]

    def test_only_executor_failed_is_an_attempt(self) -> None:
        assert frozenset({Reason.EXECUTOR_FAILED}) == ATTEMPT_REASONS

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            ("already_running", Reason.ALREADY_RUNNING),
            ("server_overloaded", Reason.SERVER_OVERLOADED),
            ("config_error", Reason.CONFIG_ERROR),
            ("bridge_error", Reason.EXECUTOR_FAILED),
            ("no_sample", Reason.SERVER_OVERLOADED),
            ("stale_request", Reason.SERVER_OVERLOADED),
            ("stale_term", Reason.SERVER_OVERLOADED),
            ("draining", Reason.NO_EXECUTOR),
            ("from_a_later_version", Reason.CONFIG_ERROR),
            ("", Reason.CONFIG_ERROR),
        ],
    )
    def test_executor_codes_map(self, code: str, reason: Reason) -> None:
        assert from_executor(code) is reason

    def test_no_executor_code_becomes_a_block(self) -> None:
        assert all(REASON_KINDS[reason] is not ReasonKind.BLOCKED for reason in EXECUTOR_REASON_MAP.values())
