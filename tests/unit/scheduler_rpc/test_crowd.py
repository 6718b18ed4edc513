"""How long a crowd is waited for."""

from __future__ import annotations

import pytest

from scheduler_service.rpc.crowd import EACH_S, MOST_S, Crowd


@pytest.mark.parametrize(("size", "expected"), [(0, 0.0), (1, EACH_S), (8, 8 * EACH_S), (1_000, MOST_S)])
def test_the_more_were_served_the_longer_and_not_for_ever(size: int, expected: float) -> None:
    assert Crowd(size).patience_s == pytest.approx(expected)
