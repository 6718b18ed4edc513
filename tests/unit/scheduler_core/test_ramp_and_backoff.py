"""Slow start after a hold, and the back-off between attempts."""

from datetime import UTC, datetime, timedelta

import pytest

from scheduler_service.core.backoff import delay
from scheduler_service.core.ramp import Ramp, allowance, restart, spend, unlimited

NOW = datetime(2026, 2, 25, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MAXIMUM = timedelta(minutes=5)


class TestRamp:
    def test_levels_double_once_a_second_until_there_is_no_limit(self) -> None:
        ramp, now, levels = restart(NOW), NOW, []
        while (n := allowance(ramp, now)) is not None:
            levels.append(n)
            ramp = spend(ramp, n, now)
            assert allowance(ramp, now) == 0
            now += SECOND
        assert levels == [1, 2, 4, 8, 16, 32]

    def test_not_sooner_than_a_second(self) -> None:
        ramp = spend(restart(NOW), 1, NOW)
        assert allowance(ramp, NOW + SECOND - timedelta(microseconds=1)) == 0
        assert allowance(ramp, NOW + SECOND) == 2

    def test_time_alone_raises_nothing(self) -> None:
        assert allowance(restart(NOW), NOW + timedelta(days=1)) == 1
        half = spend(spend(restart(NOW), 1, NOW), 1, NOW + SECOND)
        assert allowance(half, NOW + timedelta(days=1)) == 1

    def test_a_long_pause_doubles_once_only(self) -> None:
        assert allowance(spend(restart(NOW), 1, NOW), NOW + timedelta(days=1)) == 2

    def test_a_clock_that_went_back_does_not_hold(self) -> None:
        assert allowance(spend(restart(NOW), 1, NOW), NOW - timedelta(days=1)) == 2

    def test_spending_too_much_or_nothing(self) -> None:
        assert allowance(spend(restart(NOW), 5, NOW), NOW) == 0
        ramp = spend(restart(NOW), 1, NOW)
        assert spend(ramp, 0, NOW + SECOND) is ramp

    def test_unlimited_stays_so(self) -> None:
        ramp = spend(unlimited(NOW), 1_000, NOW)
        assert isinstance(ramp, Ramp)
        assert allowance(ramp, NOW) is None


class TestBackoff:
    @pytest.mark.parametrize(
        ("attempt", "seconds"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (11, 300), (10**9, 300), (0, 1), (-5, 1)]
    )
    def test_doubles_up_to_the_maximum(self, attempt: int, seconds: float) -> None:
        assert delay(attempt, SECOND, MAXIMUM, 0.5) == timedelta(seconds=seconds / 2)

    def test_full_jitter(self) -> None:
        assert delay(3, SECOND, MAXIMUM, 0.0) == timedelta(0)
        assert delay(3, SECOND, MAXIMUM, 0.999) == timedelta(seconds=3.996)

    def test_a_base_above_the_maximum(self) -> None:
        assert delay(1, MAXIMUM, SECOND, 0.5) == SECOND / 2
