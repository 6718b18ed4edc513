"""docs/benchmarks.md and its plots, from the newest results. A section whose results are not here is left as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.bench.measuring.bench import ROOT
from tests.bench.measuring.comparison import Comparison, Goal, Spread, ratios
from tests.bench.measuring.plot import plot
from tests.bench.measuring.rounds import Results, newest
from tests.bench.measuring.words import ranged, spreads

PAGE = ROOT / "docs" / "benchmarks.md"

_HEAD = """# How fast it is

Written by `make bench`, which measures each of these side by side on one machine: the variants take turns within a round, and each
round begins with another one; in some rows they all run, and take turns measurement by measurement. A figure is the median of the
rounds, `[least–greatest]` behind it. Absolute figures are this machine's, and what else it did meanwhile shows in its load average:
read the ratios. A ratio is taken within a round, and its median is held to the goal: "must" is what is asked, "then" what is tried
for once that holds.
"""


def write_report(comparisons: Iterable[Comparison], file: Path, page: Path = PAGE, *, quick: bool = False) -> list[str]:
    """Writes the sections of the comparisons that the file has results of, into the page, and their plots beside it; their names.

    `quick`: from quick runs, whose figures mean nothing.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    sections = dict(_sections(text))
    written = []
    for comparison in comparisons:
        results = newest(file, comparison.name, quick=quick)
        if results is None:
            continue
        plots = page.with_suffix("")
        plots.mkdir(parents=True, exist_ok=True)
        (plots / f"{comparison.name}.svg").write_text(plot(comparison, results.rounds), encoding="utf-8")
        sections[comparison.name] = "\n".join(_section(comparison, results, plots.name))
        written.append(comparison.name)
    if written:
        body = "\n".join(sections[name] for name in sorted(sections))
        page.write_text(f"{_HEAD}\n{body}", encoding="utf-8")
    return written


def _sections(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split("\n## ")[1:]:
        yield part.partition("\n")[0], f"## {part.rstrip()}\n"


def _section(comparison: Comparison, results: Results, plots: str) -> Iterator[str]:
    yield f"## {comparison.name}\n"
    yield f"{comparison.question}\n"
    shown = {figure: spreads(comparison, results.rounds, figure) for figure in comparison.units}
    shown = {figure: found for figure, found in shown.items() if found}
    yield from _table(
        ["", *(f"{figure}, {comparison.units[figure]}" for figure in shown)],
        (
            [name, *(ranged(found[name]) if name in found else "" for found in shown.values())]
            for name in comparison.names
            if any(name in found for found in shown.values())
        ),
    )
    yield f"\n![{comparison.name}: medians with ranges]({plots}/{comparison.name}.svg)\n"
    if comparison.goals:
        yield from _table(["goal", "figure", "asked", "ratio", "reached"], (_goal(goal, results) for goal in comparison.goals))
        yield ""
    for name, reason in results.absent.items():
        yield f"Left out: {name} ({reason}).\n"
    yield f"{comparison.settings}\n"
    versions = ", ".join(f"{name} {found}" for name, found in results.versions.items())
    load = f"load average {ranged(Spread(tuple(results.loads)))} as each measurement began"
    yield f"{len(results.rounds)} rounds, begun {results.time}; {load}. {versions}.\n"


def _goal(goal: Goal, results: Results) -> Sequence[str]:
    found = ratios(goal, results.rounds)
    named = goal.figure if goal.other_figure in ("", goal.figure) else f"{goal.figure} / {goal.other_figure}"
    asked = f"{goal.bound} ({goal.step})"
    if found is None:
        return (f"{goal.ours} / {goal.other}", named, asked, "", "not measured")
    reached = "yes" if goal.reached_by(found.median) else "**no**"
    return (f"{goal.ours} / {goal.other}", named, asked, ranged(found), reached)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(cells) + " |"


def summary(comparison: Comparison, results: Results) -> Iterator[str]:
    """The goals and what came of them, a line each."""
    for goal in comparison.goals:
        found = ratios(goal, results.rounds)
        told = (
            "not measured"
            if found is None
            else f"{ranged(found)}: {'reached' if goal.reached_by(found.median) else 'NOT reached'}"
        )
        yield f"  {goal.figure}: {goal.ours} / {goal.other} {goal.bound} ({goal.step}): {told}"
