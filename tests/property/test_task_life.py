"""A task through random lives: whatever executors report in whatever order, some things never happen."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scheduler_service.core.backoff import delay
from scheduler_service.core.task import (
    ENDED_STATUSES,
    LIVE_STATUSES,
    TaskStatus,
    claim,
    request_cancel,
    requeue,
)
from scheduler_service.core.verdicts import (
    OutcomeClass,
    RetrySettings,
    RunOutcome,
    StartVerdict,
    settle_end,
    settle_start,
)
from tests.fakes.tasks import queued_task

START = datetime(2026, 2, 25, tzinfo=UTC)
SETTINGS = RetrySettings()
FRACTIONS = st.floats(0, 1, exclude_max=True)


class TaskLife(RuleBasedStateMachine):
    """Claims the task whenever it is due, and reports verdicts and ends at random."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.fences = [0]
        self.task = queued_task(START)

    @rule(seconds=st.integers(0, 400))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: self.task.status is TaskStatus.QUEUED and self.task.due_time <= self.now)
    @rule()
    def dispatch(self) -> None:
        self.task = claim(self.task, UUID(int=len(self.fences)), "alpha", self.now)
        assert self.task.fence > self.fences[-1]
        self.fences.append(self.task.fence)

    @precondition(lambda self: self.task.status is TaskStatus.DISPATCHING)
    @rule(
        verdict=st.sampled_from(StartVerdict),
        reason=st.sampled_from(["", "timed_out", "executor_failed"]),
        success_age=st.none() | st.integers(0, 1_000),
        retry=st.none() | st.integers(-1_000, 10**7),
        fraction=FRACTIONS,
    )
    def judge(self, verdict: StartVerdict, reason: str, success_age: int | None, retry: int | None, fraction: float) -> None:
        self.task = settle_start(
            self.task,
            verdict,
            reason,
            backend_last_success_time=None if success_age is None else self.now - timedelta(seconds=success_age),
            retry_time=None if retry is None else self.now + timedelta(seconds=retry),
            now=self.now,
            fraction=fraction,
            settings=SETTINGS,
        )

    @precondition(lambda self: self.task.status in LIVE_STATUSES)
    @rule(outcome_class=st.sampled_from(OutcomeClass), fraction=FRACTIONS)
    def end(self, outcome_class: OutcomeClass, fraction: float) -> None:
        self.task = settle_end(self.task, RunOutcome(outcome_class), self.now, fraction, SETTINGS)

    @precondition(lambda self: self.task.status in LIVE_STATUSES)
    @rule()
    def ask_to_cancel(self) -> None:
        self.task = request_cancel(self.task, self.now)

    @precondition(lambda self: self.task.status in (TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.QUARANTINED))
    @rule()
    def operator_requeues(self) -> None:
        self.task = requeue(self.task, self.now)

    @invariant()
    def a_run_belongs_to_a_live_task(self) -> None:
        queued = self.task.status is TaskStatus.QUEUED
        assert not queued or (self.task.run_id, self.task.executor_id, self.task.start_time) == (None, "", None)
        assert self.task.status not in LIVE_STATUSES or self.task.run_id is not None

    @invariant()
    def counters_are_bounded(self) -> None:
        assert self.task.tries <= self.task.max_tries
        assert self.task.start_failures <= 3
        if self.task.status in (TaskStatus.QUEUED, *LIVE_STATUSES):
            assert self.task.tries < self.task.max_tries

    @invariant()
    def a_task_to_be_cancelled_is_never_queued(self) -> None:
        assert not (self.task.status is TaskStatus.QUEUED and self.task.cancel_requested)

    @invariant()
    def ended_and_nothing_else_has_an_end_time(self) -> None:
        assert (self.task.end_time is not None) == (self.task.status in ENDED_STATUSES)

    @invariant()
    def a_queued_task_comes_due_within_bounds(self) -> None:
        if self.task.status is TaskStatus.QUEUED:
            assert self.task.due_time <= self.task.update_time + SETTINGS.retry_time_limit


TestTaskLife = TaskLife.TestCase
TestTaskLife.settings = hypothesis_settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, print_blob=True, database=None
)


def test_back_off_is_monotonic_in_every_attempt_and_never_above_the_maximum() -> None:
    waits = [delay(n, SETTINGS.base, SETTINGS.maximum, 0.9) for n in range(1, 200)]
    assert waits == sorted(waits)
    assert waits[-1] == SETTINGS.maximum * 0.9
