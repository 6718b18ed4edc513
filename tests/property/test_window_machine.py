"""The window against a naive model that counts one outcome at a time, and against counts merged in pieces."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scheduler_service.core.outcome_window import Outcome, compute_window, low_rate, merge

WINDOW = timedelta(hours=1)
START = datetime(2026, 2, 25, tzinfo=UTC)
REASONS = st.sampled_from(["", "draining", "executor_failed", "no_executor"])
EDGES = st.sampled_from([0, 1, 999, 1_000, 3_599_999, 3_600_000, 3_600_001])
SETTINGS = hypothesis_settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True, print_blob=True, database=None
)


class WindowMachine(RuleBasedStateMachine):
    """Outcomes come in any order of time, some from the future; time goes on in steps that hit the window's edge."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.outcomes: list[Outcome] = []

    @rule(milliseconds=EDGES | st.integers(0, 2_000_000))
    def time_passes(self, milliseconds: int) -> None:
        self.now += timedelta(milliseconds=milliseconds)

    @rule(success=st.booleans(), reason=REASONS, age=EDGES | st.integers(-10_000, 5_000_000))
    def record(self, success: bool, reason: str, age: int) -> None:
        self.outcomes.append(Outcome(self.now - timedelta(milliseconds=age), success, reason))

    @invariant()
    def window_is_the_models(self) -> None:
        window = compute_window(self.outcomes, self.now, WINDOW)
        success = failed = 0
        reasons: Counter[str] = Counter()
        newest: datetime | None = None
        for outcome in self.outcomes:
            if (self.now - outcome.time) // timedelta(microseconds=1) > 3_600_000_000:
                continue
            newest = outcome.time if newest is None or outcome.time > newest else newest
            if outcome.success:
                success += 1
            else:
                failed += 1
                reasons.update([outcome.reason] if outcome.reason else [])
        assert (window.total, window.success, window.failed) == (success + failed, success, failed)
        assert dict(window.failure_reasons) == dict(reasons)
        assert window.last_updated == newest
        assert window.rate == (success / (success + failed) if success + failed else None)

    @invariant()
    def counts_merged_in_any_pieces_are_the_same(self) -> None:
        inside = [o for o in self.outcomes if o.time >= self.now - WINDOW]
        counts = Counter((o.success, o.reason) for o in reversed(inside))
        merged = merge(((s, r or None, n) for (s, r), n in counts.items()), max((o.time for o in inside), default=None))
        assert merged == compute_window(self.outcomes, self.now, WINDOW)


TestWindowMachine = WindowMachine.TestCase
TestWindowMachine.settings = SETTINGS


@hypothesis_settings(SETTINGS, max_examples=300)
@given(success=st.integers(0, 10**6), failed=st.integers(0, 10**6), percent=st.integers(0, 100))
def test_low_rate_agrees_with_exact_arithmetic(success: int, failed: int, percent: int) -> None:
    total = success + failed
    exact = total >= 10 and Fraction(success, total) < Fraction(percent, 100)
    assert low_rate(merge([(True, None, success), (False, "x", failed)]), percent / 100, 10) is exact
