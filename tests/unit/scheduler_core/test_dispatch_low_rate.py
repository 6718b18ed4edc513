"""The low-rate guard: when it judges, what it lets through all the same, and what it never looks at."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from scheduler_service.core.breaker import Breaker, BreakerState
from scheduler_service.core.dispatch_checks import (
    BackendFacts,
    CheckSettings,
    GateFacts,
    GuardMode,
    Permit,
    Verdict,
    check_low_success_rate,
    evaluate,
    permits,
)
from scheduler_service.core.outcome_window import Window, low_rate, merge
from scheduler_service.core.reasons import Reason

NOW = datetime(2026, 2, 25, 12, 0, tzinfo=UTC)
MINUTE = timedelta(milliseconds=60_000)


def attempts(success: int, failed: int) -> Window:
    return merge([(True, None, success), (False, "executor_failed", failed)], NOW)


@pytest.mark.parametrize(
    ("success", "failed", "low"),
    [
        (0, 0, False),
        (0, 9, False),
        (0, 10, True),
        (2, 7, False),
        (2, 8, True),
        (3, 7, False),
        (29, 71, True),
        (30, 70, False),
        (299_999, 700_001, True),
        (300_000, 700_000, False),
        (10, 0, False),
    ],
)
def test_low_is_strictly_below_the_threshold_with_enough_samples(success: int, failed: int, low: bool) -> None:
    assert low_rate(attempts(success, failed), 0.3, 10) is low


@pytest.mark.parametrize(("success", "total"), [(1, 10), (2, 10), (6, 10), (7, 10), (7, 100), (29, 100), (57, 100)])
def test_a_rate_equal_to_any_threshold_does_not_hold(success: int, total: int) -> None:
    assert not low_rate(attempts(success, total - success), float(f"{success / total:.2f}"), 1)


def test_no_sample_at_all_is_never_low_even_with_minimum_zero() -> None:
    assert not low_rate(Window(), 0.3, 0)


def facts(
    window: Window, *, mode: GuardMode = GuardMode.ENFORCE, last: datetime | None = NOW, breaker: Breaker | None = None
) -> GateFacts:
    backend = BackendFacts(
        backend="hk-minimax",
        local=False,
        queued=1,
        due=1,
        live_executors=1,
        attempts=window,
        last_trickle_time=last,
        breakers=(breaker or Breaker("hk-minimax"),),
    )
    return GateFacts(now=NOW, backends=(backend,), settings=CheckSettings(rate_guard=mode))


def judge(given: GateFacts) -> Verdict:
    (verdict,) = check_low_success_rate(given)
    return verdict


def test_a_low_rate_holds_and_says_until_when() -> None:
    verdict = judge(facts(attempts(2, 8)))
    assert (verdict.holds, verdict.reason, verdict.backend) == (True, Reason.LOW_SUCCESS_RATE, "hk-minimax")
    assert (verdict.value, verdict.limit, verdict.clears_time) == ("0.200", "0.3", NOW + MINUTE)
    assert "2 of 10" in verdict.detail


def test_a_good_rate_and_a_small_sample_pass() -> None:
    assert not judge(facts(attempts(3, 7))).holds
    assert not judge(facts(attempts(0, 9))).holds
    assert not judge(facts(Window())).holds


@pytest.mark.parametrize(
    ("last", "holds"),
    [
        (None, False),
        (NOW - MINUTE, False),
        (NOW - MINUTE + timedelta(milliseconds=1), True),
        (NOW, True),
        (NOW + timedelta(seconds=1), False),
    ],
)
def test_one_task_an_interval_passes(last: datetime | None, holds: bool) -> None:
    given = facts(attempts(0, 10), last=last)
    assert judge(given).holds is holds
    allowed = permits(given, evaluate(given)).get("hk-minimax")
    assert allowed == (None if holds else Permit(limit=1, low_rate=True, trickle=True))


def test_observe_never_holds_but_says_that_it_would_have() -> None:
    given = facts(attempts(0, 10), mode=GuardMode.OBSERVE)
    verdict = judge(given)
    assert (verdict.holds, verdict.would_hold, verdict.reason, verdict.clears_time) == (False, True, None, None)
    assert permits(given, evaluate(given)) == {"hk-minimax": Permit()}


def test_off_never_looks() -> None:
    verdict = judge(facts(attempts(0, 10), mode=GuardMode.OFF))
    assert (verdict.holds, verdict.would_hold) == (False, False)
    assert "off" in verdict.detail


def test_a_probe_needs_no_trickle_permit() -> None:
    due = Breaker("hk-minimax", BreakerState.OPEN, failures=3, opened_time=NOW - timedelta(minutes=30))
    given = facts(attempts(0, 10), breaker=due)
    assert not judge(given).holds
    assert permits(given, evaluate(given)) == {"hk-minimax": Permit(limit=1, low_rate=True, prefers_probe=True, trickle=False)}


def test_an_open_breaker_that_admits_no_probe_leaves_the_hold() -> None:
    fresh = Breaker("hk-minimax", BreakerState.OPEN, failures=3, opened_time=NOW)
    assert judge(facts(attempts(0, 10), breaker=fresh)).holds


def test_each_backend_is_judged_by_its_own_attempts() -> None:
    bad = facts(attempts(0, 10)).backends[0]
    good = replace(bad, backend="cecelia-run", attempts=attempts(10, 0))
    verdicts = list(check_low_success_rate(GateFacts(now=NOW, backends=(bad, good))))
    assert [(v.backend, v.holds) for v in verdicts] == [("hk-minimax", True), ("cecelia-run", False)]


def test_the_guard_recovers_by_its_own_tries() -> None:
    """With the guard on, a mended backend is seen within an hour and no block makes the rate worse (incident 23)."""
    success, failed, now, last = 0, 10, NOW, None
    starts = 0
    for _ in range(60):
        given = facts(attempts(success, failed), last=last)
        given = replace(given, now=now)
        if permits(given, evaluate(given)):
            starts, success, last = starts + 1, success + 1, now
        if not low_rate(attempts(success, failed), 0.3, 10):
            break
        now += MINUTE / 2
    assert (starts, success) == (5, 5)
    assert now - NOW < timedelta(hours=1)
