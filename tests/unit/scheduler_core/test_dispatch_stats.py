"""The rolling window: what counts, from when, and under which reason."""

from datetime import UTC, datetime, timedelta

import pytest

from scheduler_service.core.outcome_window import Outcome, Window, compute_window, merge

NOW = datetime(2026, 2, 25, 12, 0, tzinfo=UTC)
HOUR = timedelta(milliseconds=3_600_000)
MS = timedelta(milliseconds=1)


def ago(delta: timedelta, success: bool = True, reason: str = "") -> Outcome:
    return Outcome(NOW - delta, success, reason)


def test_empty_window_has_no_rate_and_no_time() -> None:
    window = compute_window([], NOW, HOUR)
    assert window == Window(total=0, success=0, failed=0, rate=None, failure_reasons={}, last_updated=None)


@pytest.mark.parametrize(
    ("age", "counted"),
    [(HOUR - MS, 1), (HOUR, 1), (HOUR + timedelta(microseconds=1), 0), (HOUR + MS, 0), (2 * HOUR, 0)],
)
def test_an_outcome_exactly_one_window_old_is_in(age: timedelta, counted: int) -> None:
    assert compute_window([ago(age)], NOW, HOUR).total == counted


def test_there_is_no_upper_edge() -> None:
    future = ago(-timedelta(days=1), success=False, reason="draining")
    window = compute_window([future], NOW, HOUR)
    assert (window.total, window.failed, window.last_updated) == (1, 1, future.time)


def test_counts_rate_and_reasons() -> None:
    outcomes = [
        ago(timedelta(minutes=1)),
        ago(timedelta(minutes=2)),
        ago(timedelta(minutes=3), success=False, reason="executor_failed"),
        ago(timedelta(minutes=4), success=False, reason="executor_failed"),
        ago(timedelta(minutes=5), success=False, reason="circuit_breaker_open"),
    ]
    window = compute_window(outcomes, NOW, HOUR)
    assert (window.total, window.success, window.failed) == (5, 2, 3)
    assert window.rate == pytest.approx(0.4)
    assert window.failure_reasons == {"executor_failed": 2, "circuit_breaker_open": 1}


def test_only_failures_give_rate_zero_not_none() -> None:
    window = compute_window([ago(MS, success=False, reason="no_executor")], NOW, HOUR)
    assert window.rate == 0.0


def test_a_failure_without_reason_is_in_no_bucket() -> None:
    window = compute_window([ago(MS, success=False)], NOW, HOUR)
    assert (window.failed, window.failure_reasons) == (1, {})


def test_a_reason_beside_a_success_is_discarded() -> None:
    window = compute_window([ago(MS, success=True, reason="draining")], NOW, HOUR)
    assert (window.success, window.failure_reasons) == (1, {})


def test_last_updated_is_the_newest_inside_in_whatever_order() -> None:
    outcomes = [ago(timedelta(minutes=30)), ago(timedelta(minutes=1)), ago(timedelta(hours=3))]
    assert compute_window(outcomes, NOW, HOUR).last_updated == NOW - timedelta(minutes=1)
    assert compute_window(outcomes[2:], NOW, HOUR).last_updated is None


def test_outcomes_leave_the_window_as_time_goes_by() -> None:
    outcomes = [ago(timedelta(minutes=59), success=False, reason="executor_failed"), ago(timedelta(minutes=1))]
    assert compute_window(outcomes, NOW, HOUR).rate == 0.5
    assert compute_window(outcomes, NOW + timedelta(minutes=2), HOUR).rate == 1.0
    assert compute_window(outcomes, NOW + timedelta(hours=1), HOUR).rate is None


def test_another_window_length() -> None:
    outcomes = [ago(timedelta(minutes=20)), ago(timedelta(minutes=5))]
    assert compute_window(outcomes, NOW, timedelta(minutes=10)).total == 1


def test_merge_adds_rows_of_the_same_key() -> None:
    window = merge([(True, None, 3), (False, "draining", 2), (False, "draining", 1), (False, None, 4), (True, "x", 2)], NOW)
    assert (window.total, window.success, window.failed) == (12, 5, 7)
    assert window.rate == 5 / 12
    assert window.failure_reasons == {"draining": 3}
    assert window.last_updated == NOW


def test_merge_of_nothing_or_of_zero_counts_is_the_empty_window() -> None:
    assert merge([]) == Window()
    assert merge([(True, "", 0), (False, "draining", 0)], NOW) == Window()
