"""Turns: who is measured when, and what comes of it."""

from __future__ import annotations

from functools import partial

from tests.bench.measuring.comparison import Figures
from tests.bench.measuring.turns import by_turns


async def test_each_goes_first_in_turn_and_has_the_medians_of_its_own() -> None:
    seen: list[str] = []
    values = {"a": iter([5.0, 1.0, 3.0]), "b": iter([9.0, 7.0, 8.0])}

    async def measure(figure: str, side: str) -> Figures:
        seen.append(f"{figure}{side}")
        return {figure: next(values[side]) if figure == "x" else 0.0}

    found = await by_turns(3, {"a": "a", "b": "b"}, [partial(measure, "x"), partial(measure, "y")])
    assert seen == ["xa", "xb", "ya", "yb", "xb", "xa", "yb", "ya", "xa", "xb", "ya", "yb"]
    assert found == {"a": {"x": 3.0, "y": 0.0}, "b": {"x": 8.0, "y": 0.0}}
