"""The claims of docs/guards.md: its table against a part of the day lived again, and against bounds that follow from the settings."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from scheduler_service.core.dispatch_checks import GuardMode
from tests.bench.simulated_day import DEFAULTS, DOC, HEAD, OUTAGES, RUNS, TICK, Day, Guards, row

MINUTE = timedelta(minutes=1)
# The doubling is over when the slots that the first starts took are free again.
RAMP = timedelta(minutes=2, seconds=30)


def written() -> list[tuple[str, ...]]:
    """The rows in the page."""
    lines = [line for line in DOC.read_text("utf-8").splitlines() if line.startswith("| ")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    assert rows[0] == HEAD
    return rows[2:]


def named(cells: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(HEAD, cells, strict=True))


def span(text: str) -> timedelta:
    """`17 min 25 s`."""
    words = text.split()
    units = dict(zip(words[1::2], (int(number) for number in words[::2]), strict=True))
    return timedelta(minutes=units.get("min", 0), seconds=units.get("s", 0))


def test_the_page_has_a_row_for_each_outage_under_each_set_of_guards() -> None:
    assert len(written()) == len(RUNS) * len(OUTAGES)


@pytest.mark.parametrize(
    "guards",
    [DEFAULTS, replace(DEFAULTS, open_duration=10 * MINUTE), Guards(GuardMode.OFF, GuardMode.OFF)],
    ids=["defaults", "open for 10 min", "none"],
)
async def test_the_first_outage_lived_again_is_the_page_to_the_letter(guards: Guards) -> None:
    first = OUTAGES[0]
    costs = await Day(guards).run(first.end + guards.open_duration + RAMP)
    assert [row(guards, cost) for cost in costs] == [cells for cells in written() if cells[:4] == row(guards, costs[0])[:4]]


def test_with_the_breaker_recovery_takes_no_longer_than_its_open_time_and_the_ramp() -> None:
    for cells in map(named, written()):
        if cells["breaker"] == "enforce":
            open_time = span(cells["`OPEN_DURATION_MS`"])
            assert span(cells["back at full rate after"]) <= open_time + RAMP + TICK, cells
            probes = span(cells["outage"]) // open_time
            # A clock tick may find the threshold passed by one batch.
            assert int(cells["failed starts"]) <= 3 + probes, cells


def test_the_guards_save_failed_starts_and_observing_is_as_good_as_off() -> None:
    by_guards = {cells[:2] + cells[3:4]: cells[4:] for cells in written() if cells[2] in ("30 min", "–")}
    for outage in ("10 min", "45 min", "60 min"):
        none = int(by_guards["off", "off", outage][0])
        assert int(by_guards["enforce", "enforce", outage][0]) * 50 < none
        assert by_guards["off", "off", outage][1:] == ("0 s", "0")
        for breaker in ("enforce", "off"):
            assert by_guards["observe", breaker, outage] == by_guards["off", breaker, outage]
        assert by_guards["enforce", "enforce", outage] == by_guards["off", "enforce", outage], (
            "together no dearer than the breaker alone"
        )
        assert f"{none:,}" in DOC.read_text("utf-8").partition("## What it says")[2], "the text under the table is of another day"
    for outage in ("45 min", "60 min"):
        rate_alone = int(by_guards["enforce", "off", outage][0])
        assert rate_alone * 5 < int(by_guards["off", "off", outage][0])
        assert span(by_guards["enforce", "off", outage][1]) < 30 * MINUTE
