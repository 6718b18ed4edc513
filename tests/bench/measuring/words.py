"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Mapping

from tests.bench.measuring.comparison import Comparison, Figures, Spread


def number(value: float) -> str:
    """Three digits or a little more: `17,524`, `63.1`, `4.21`, `0.123`."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def ranged(spread: Spread) -> str:
    """The median with the least and the greatest behind it: `4.21 [3.96–4.54]`."""  # noqa: RUF002
    return f"{number(spread.median)} [{number(spread.low)}–{number(spread.high)}]"


def spreads(comparison: Comparison, rounds: Mapping[int, Mapping[str, Figures]], figure: str) -> dict[str, Spread]:
    """A figure of each variant that has it, in the comparison's order."""
    found = {}
    for name in comparison.names:
        values = [of_round[name][figure] for of_round in rounds.values() if figure in of_round.get(name, {})]
        if values:
            found[name] = Spread(tuple(values))
    return found
