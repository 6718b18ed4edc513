"""How long a backend is paused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from scheduler_service.core.billing import END_PAUSES, START_PAUSES, pause_until
from scheduler_service.core.verdicts import UNBLAMED_ERROR_CLASSES

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("named", "until"),
    [
        (None, NOW + HOUR),
        (NOW, NOW + HOUR),
        (NOW - HOUR, NOW + HOUR),
        (NOW + timedelta(seconds=1), NOW + timedelta(seconds=1)),
        (NOW + 24 * HOUR, NOW + 24 * HOUR),
        (NOW + 24 * HOUR + timedelta(seconds=1), NOW + HOUR),
    ],
)
def test_a_time_that_makes_sense_is_believed(named: datetime | None, until: datetime) -> None:
    assert pause_until(HOUR, named, NOW, 24 * HOUR) == until


def test_what_costs_a_task_no_try_pauses_its_backend() -> None:
    assert set(END_PAUSES) == UNBLAMED_ERROR_CLASSES
    assert set(START_PAUSES) == UNBLAMED_ERROR_CLASSES | {"auth"}
