"""What is compared: variants of one question, and the goals that their figures are held to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from tests.bench.measuring.bench import Bench

T = TypeVar("T")

Figures = Mapping[str, float]
"""What one round of one variant measured, by figure."""


@dataclass(frozen=True)
class Variant:
    """One of the things compared. `measure` runs one round; it raises Absent when what it needs is not on this machine.

    `prepare`: what takes long and is done once a run (`Bench.fill`), before the first round's time begins; it raises Absent, too.
    """

    name: str
    measure: Callable[[Bench], Awaitable[Figures]]
    prepare: Callable[[Bench], Awaitable[None]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of whom it measures figures."""
        return (self.name,)

    async def measure_each(self, bench: Bench) -> Mapping[str, Figures]:
        """One round's figures, by name."""
        return {self.name: await self.measure(bench)}


@dataclass(frozen=True)
class ByTurns:
    """Some that take turns measurement by measurement: where they differ by less than the machine from minute to minute.

    `measure_each` gives the figures of each by name. It and `prepare` are as a Variant's.
    """

    names: tuple[str, ...]
    measure_each: Callable[[Bench], Awaitable[Mapping[str, Figures]]]
    prepare: Callable[[Bench], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Goal:
    """A bound on the median of `ours / other`, taken within each round. `step`: "must", or "then" for what is tried for next.

    Exactly one of `at_least` and `at_most` is set. `other_figure`: where the other's figure has another name.
    """

    figure: str
    ours: str
    other: str
    at_least: float | None = None
    at_most: float | None = None
    step: str = "must"
    other_figure: str = ""

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"goal {self.figure} of {self.ours}: exactly one of at_least and at_most is to be set")
        if self.step not in ("must", "then"):
            raise ValueError(f"goal {self.figure} of {self.ours}: step={self.step!r} is neither must nor then")

    @property
    def bound(self) -> str:
        """The bound in words."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"

    def reached_by(self, ratio: float) -> bool:
        """Whether a ratio is within the bound; the bound itself is."""
        return ratio >= self.at_least if self.at_least is not None else self.at_most is not None and ratio <= self.at_most


@dataclass(frozen=True)
class Comparison:
    """One row of the table: a question, who answers it, and what is asked of us. `name` is a file's name, too.

    `units`: each figure's unit, in the order of the page. `settings`: what was used, as Markdown.
    """

    name: str
    question: str
    variants: tuple[Variant | ByTurns, ...]
    goals: tuple[Goal, ...]
    units: Mapping[str, str]
    settings: str

    def __post_init__(self) -> None:
        names = set(self.names)
        for goal in self.goals:
            if unknown := {goal.ours, goal.other} - names:
                raise ValueError(f"comparison {self.name}: a goal names {sorted(unknown)}; its variants are {sorted(names)}")
            if unknown := {goal.figure, goal.other_figure or goal.figure} - set(self.units):
                raise ValueError(f"comparison {self.name}: a goal names {sorted(unknown)}; its figures are {list(self.units)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Of its variants, in their order."""
        return tuple(name for variant in self.variants for name in variant.names)

    def in_order(self, round_number: int) -> Sequence[Variant | ByTurns]:
        """The variants in the order of a round."""
        return in_turn(round_number, self.variants)


def in_turn(number: int, those: Sequence[T]) -> Sequence[T]:
    """Those in the order of a turn: each goes first in turn."""
    first = number % len(those)
    return (*those[first:], *those[:first])


@dataclass(frozen=True)
class Spread:
    """The figures of several rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Their median."""
        return median(self.values)

    @property
    def low(self) -> float:
        """The least."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The greatest."""
        return max(self.values)


def ratios(goal: Goal, rounds: Mapping[int, Mapping[str, Figures]]) -> Spread | None:
    """`ours / other` of each round that has both; None when none has."""
    found = []
    for of_round in rounds.values():
        ours = of_round.get(goal.ours, {}).get(goal.figure)
        other = of_round.get(goal.other, {}).get(goal.other_figure or goal.figure)
        if ours is not None and other:
            found.append(ours / other)
    return Spread(tuple(found)) if found else None
