"""`python -m tests.bench [--rounds N] [--quick] [ROW ...]`: measures the rows side by side and writes docs/benchmarks.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

# As the services: grpc's fork handlers would slow down and mislead what forks.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
os.environ["HK_MINIMAX_URL"] = "http://127.0.0.1:9"

from tests.bench.measuring.bench import STATE, Bench
from tests.bench.measuring.comparison import Comparison
from tests.bench.measuring.report import PAGE, summary, write_report
from tests.bench.measuring.rounds import newest, run_rounds
from tests.bench.rows import all_comparisons


def main(words: Sequence[str]) -> int:
    """Runs what the words ask for; the exit status."""
    known = all_comparisons()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"what to measure; all if none is named: {', '.join(known)}")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each row (default 5)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; the page is not written")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the page from the results there are")
    parser.add_argument("--results", type=Path, default=STATE / "results.jsonl", help="where the results are kept")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    asked = parser.parse_args(words)
    if unknown := set(asked.rows) - set(known):
        parser.error(f"ROW={', '.join(sorted(unknown))} is none of {', '.join(known)}")
    if asked.rounds < 1:
        parser.error(f"--rounds {asked.rounds}: at least 1")
    chosen = [known[name] for name in asked.rows or known]
    if not asked.report:
        try:
            asyncio.run(_measure(chosen, asked.rounds, asked.results, quick=asked.quick))
        except asyncio.CancelledError:
            print("broken off; what was measured is kept")
        for comparison in chosen:
            if results := newest(asked.results, comparison.name, quick=asked.quick):
                print(comparison.name, *summary(comparison, results), sep="\n")
    if asked.quick and asked.page == PAGE:
        return 0
    written = write_report(chosen, asked.results, asked.page, quick=asked.quick)
    print(f"{asked.page}: {', '.join(written) or 'nothing to write'}")
    return 0


async def _measure(chosen: Sequence[Comparison], rounds: int, file: Path, *, quick: bool) -> None:
    measuring = asyncio.current_task()
    assert measuring is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        # Also where the one who started us had it ignored: services and peers must not be left behind.
        asyncio.get_running_loop().add_signal_handler(number, measuring.cancel)
    async with Bench(quick=quick) as bench:
        await run_rounds(bench, chosen, rounds, file, say=lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
