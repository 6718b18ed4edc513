"""Every row of the bench in its small form: figures come out, and the page is written. What they are is no matter here."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.bench.measuring.bench import Bench
from tests.bench.measuring.report import write_report
from tests.bench.measuring.rounds import newest, run_rounds
from tests.bench.rows import all_comparisons

# Half a minute each also in small; the others stand for them in every run of the suite.
SLOW = ("fleet", "reads", "spawn", "start", "week", "week-programs")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[Bench]:
    async with Bench(quick=True) as made:
        # Here, where it also ends: it belongs to the loop that started it.
        await made.postgres()
        yield made


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in SLOW else ()) for name in all_comparisons()]
)
async def test_a_row_measures_and_is_written(name: str, bench: Bench, tmp_path: Path) -> None:
    comparison = all_comparisons()[name]
    file, page = tmp_path / "results.jsonl", tmp_path / "benchmarks.md"
    await run_rounds(bench, [comparison], 1, file)
    assert write_report([comparison], file, page, quick=True) == [name]
    results = newest(file, name, quick=True)
    assert results is not None
    figures = results.rounds[0]
    assert set(figures) | set(results.absent) == set(comparison.names)
    assert all(found and all(map(math.isfinite, found.values())) for found in figures.values()), figures
    text = page.read_text(encoding="utf-8")
    assert all(f"| {variant} |" in text for variant in figures)
    if results.absent:
        pytest.skip("; ".join(f"{variant}: {reason}" for variant, reason in results.absent.items()))
