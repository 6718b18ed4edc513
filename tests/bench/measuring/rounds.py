"""Runs comparisons in rounds, and keeps each round as a line of JSON as soon as it is over: a run that is broken off counts."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.bench.measuring.bench import Absent, Bench
from tests.bench.measuring.comparison import ByTurns, Comparison, Figures, Variant

ROUND_DEADLINE_S = 900.0
PREPARE_DEADLINE_S = 3_600.0


@dataclass
class Results:
    """What one run found for one comparison: figures by round and variant, why a variant was left out, versions, when it began.

    `loads`: the machine's load average (1 min) as each measurement began: what else went on there.
    """

    rounds: dict[int, dict[str, Figures]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)
    time: str = ""


async def run_rounds(
    bench: Bench, comparisons: Iterable[Comparison], rounds: int, file: Path, say: Callable[[str], None] = print
) -> None:
    """Measures each comparison; within a round its variants take turns, and each round begins with another one.

    A variant that fails ends the run; what was measured before is in the file.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    run = uuid4().hex
    for comparison in comparisons:
        say(f"{comparison.name}: {comparison.question}")
        absent: set[str] = set()
        for number in range(rounds):
            for variant in comparison.in_order(number):
                if absent.intersection(variant.names):
                    continue
                found: dict[str, dict[str, Any]]
                load = os.getloadavg()[0]
                try:
                    measured = await _measure(variant, bench, comparison.units)
                    found = {name: {"figures": dict(figures)} for name, figures in measured.items()}
                except Absent as reason:
                    absent.update(variant.names)
                    found = {name: {"absent": str(reason)} for name in variant.names}
                for name, of_one in found.items():
                    _append(file, {
                        "run": run, "time": datetime.now(UTC).isoformat(timespec="seconds"), "quick": bench.quick,
                        "row": comparison.name, "variant": name, "round": number, **of_one, "load": load,
                        "versions": bench.versions,
                    })  # fmt: skip
                    say(f"  round {number + 1}  {name}: {_line(of_one, comparison.units)}")


async def _measure(variant: Variant | ByTurns, bench: Bench, units: Mapping[str, str]) -> Mapping[str, Figures]:
    if variant.prepare is not None:
        async with asyncio.timeout(PREPARE_DEADLINE_S):
            await variant.prepare(bench)
    async with asyncio.timeout(ROUND_DEADLINE_S):
        measured = await variant.measure_each(bench)
    if set(measured) != set(variant.names):
        raise ValueError(f"{', '.join(variant.names)}: {sorted(measured)} were measured")
    for name, figures in measured.items():
        if unknown := set(figures) - set(units):
            raise ValueError(f"{name} measured {sorted(unknown)}, whose units its comparison does not give")
    return measured


def _line(found: Mapping[str, Any], units: Mapping[str, str]) -> str:
    if "absent" in found:
        return f"left out: {found['absent']}"
    return ", ".join(f"{name} {value:,.4g} {units[name]}" for name, value in found["figures"].items())


def _append(file: Path, record: Mapping[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(record) + "\n")


def newest(file: Path, name: str, *, quick: bool = False) -> Results | None:
    """What the newest run in the file that measured a comparison found; None when none did.

    Raises ValueError for a line that is not ours.
    """
    found: dict[str, Results] = {}
    if not file.exists():
        return None
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["row"] != name or record["quick"] != quick:
            continue
        results = found.setdefault(record["run"], Results(time=record["time"]))
        results.versions |= record["versions"]
        if "absent" in record:
            results.absent[record["variant"]] = record["absent"]
        else:
            results.loads.append(record["load"])
            results.rounds.setdefault(record["round"], {})[record["variant"]] = record["figures"]
    return next((results for results in reversed(found.values()) if results.rounds), None)
