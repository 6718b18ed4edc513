"""Measuring some by turns: each one's figures are medians of as many measurements, none of them far in time from the others'."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

from tests.bench.measuring.comparison import Figures, in_turn

S = TypeVar("S")


async def by_turns(
    turns: int, sides: Mapping[str, S], measures: Sequence[Callable[[S], Awaitable[Figures]]]
) -> Mapping[str, Figures]:
    """The figures of each side by name, for a `ByTurns`: in each turn, one measure after the other of one side after the other."""
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in sides}
    for number in range(turns):
        for measure in measures:
            for name, side in in_turn(number, list(sides.items())):
                for figure, value in (await measure(side)).items():
                    found[name][figure].append(value)
    return {name: {figure: median(values) for figure, values in figures.items()} for name, figures in found.items()}
