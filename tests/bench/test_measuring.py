"""The bench's own sums and words: ratios by round, goals, turns, what a broken-off run leaves, the page."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.acceptance.programs import eventually
from tests.bench.measuring.bench import Absent, Bench
from tests.bench.measuring.comparison import ByTurns, Comparison, Goal, Variant, ratios
from tests.bench.measuring.processes import cpu_seconds
from tests.bench.measuring.report import write_report
from tests.bench.measuring.rounds import newest, run_rounds
from tests.bench.measuring.words import number
from tests.bench.peers.programs import environment, listener, running
from tests.bench.peers.started import Started


def variant(name: str, *figures: float, absent: str = "") -> Variant:
    """One that gives these figures, a round each, and then breaks."""
    left = list(figures)

    async def measure(bench: Bench) -> Mapping[str, float]:
        if absent:
            raise Absent(absent)
        if not left:
            raise RuntimeError("broken off")
        return {"speed": left.pop(0)}

    return Variant(name, measure)


def comparison(*variants: Variant, **fields: object) -> Comparison:
    made = Comparison("row", "Which is faster?", variants, (), {"speed": "1/s"}, "As shipped.")
    return replace(made, **fields)  # type: ignore[arg-type]


async def measured(file: Path, of: Comparison, rounds: int) -> list[str]:
    said: list[str] = []
    await run_rounds(Bench(quick=False), [of], rounds, file, say=said.append)
    return said


def test_a_goal_holds_the_ratio_of_each_round_and_takes_its_bound() -> None:
    goal = Goal("speed", "a", "b", at_least=0.5)
    rounds = {
        0: {"a": {"speed": 1.0}, "b": {"speed": 4.0}},
        1: {"a": {"speed": 3.0}, "b": {"speed": 2.0}},
        2: {"a": {"speed": 9.0}},
    }
    rounds[3] = {"a": {"speed": 1.0}, "b": {"speed": 2.0}}
    spread = ratios(goal, rounds)
    assert spread is not None
    assert (spread.low, spread.median, spread.high) == (0.25, 0.5, 1.5)
    assert goal.reached_by(0.5)
    assert not goal.reached_by(0.499)
    most = Goal("speed", "a", "b", at_most=2.0)
    assert most.reached_by(2.0)
    assert not most.reached_by(2.001)
    assert ratios(goal, {0: {"a": {"speed": 1.0}}}) is None


def test_another_figure_of_the_other() -> None:
    goal = Goal("ours_s", "a", "a", at_most=2.0, other_figure="theirs_s")
    spread = ratios(goal, {0: {"a": {"ours_s": 3.0, "theirs_s": 2.0}}})
    assert spread is not None
    assert spread.median == 1.5


@pytest.mark.parametrize("bounds", [{}, {"at_least": 1.0, "at_most": 1.0}, {"at_least": 1.0, "step": "later"}])
def test_a_goal_that_says_nothing_is_refused(bounds: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="goal speed of a"):
        Goal("speed", "a", "b", **bounds)  # type: ignore[arg-type]


@pytest.mark.parametrize("goal", [Goal("speed", "a", "nobody", at_least=1.0), Goal("weight", "a", "b", at_least=1.0)])
def test_a_goal_that_names_nothing_there_is_refused(goal: Goal) -> None:
    with pytest.raises(ValueError, match="names"):
        comparison(variant("a"), variant("b"), goals=(goal,))


async def test_each_goes_first_in_turn_and_a_broken_off_run_counts(tmp_path: Path) -> None:
    file = tmp_path / "state" / "results.jsonl"
    of = comparison(variant("a", 1, 2), variant("b", 3), variant("c", absent="no c here"))
    with pytest.raises(RuntimeError, match="broken off"):
        await measured(file, of, 3)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["variant"], line["round"]) for line in lines] == [("a", 0), ("b", 0), ("c", 0)]
    results = newest(file, "row")
    assert results is not None
    assert results.rounds == {0: {"a": {"speed": 1}, "b": {"speed": 3}}}
    assert results.absent == {"c": "no c here"}
    assert results.versions["Python"]
    again = comparison(variant("a", 1, 2, 3), variant("b", 3, 4, 5))
    said = await measured(file, again, 3)
    assert [line.split()[2] for line in said[1:]] == ["a:", "b:", "b:", "a:", "a:", "b:"]
    newer = newest(file, "row")
    assert newer is not None
    assert newer.rounds[2] == {"a": {"speed": 3}, "b": {"speed": 5}}
    assert newest(file, "row", quick=True) is None


async def test_those_that_take_turns_are_measured_together_and_shown_each(tmp_path: Path) -> None:
    def together(*names: str, absent: str = "") -> ByTurns:
        async def measure(bench: Bench) -> Mapping[str, Mapping[str, float]]:
            if absent:
                raise Absent(absent)
            return {"a": {"speed": 1.0}, "b": {"speed": 2.0}}

        return ByTurns(names, measure)

    file = tmp_path / "results"
    said = await measured(file, comparison(together("a", "b"), variant("c", 3, 4)), 2)
    assert [line.split()[2] for line in said[1:]] == ["a:", "b:", "c:", "c:", "a:", "b:"]
    results = newest(file, "row")
    assert results is not None
    assert results.rounds[1] == {"a": {"speed": 1}, "b": {"speed": 2}, "c": {"speed": 4}}
    assert comparison(together("a", "b"), variant("c")).names == ("a", "b", "c")
    with pytest.raises(ValueError, match="a, x: \\['a', 'b'\\] were measured"):
        await measured(file, comparison(together("a", "x")), 1)
    await measured(file, comparison(together("a", "b", absent="no such thing"), variant("c", 5, 6)), 2)
    results = newest(file, "row")
    assert results is not None
    assert results.absent == {"a": "no such thing", "b": "no such thing"}


async def test_a_figure_without_a_unit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="speed"):
        await measured(tmp_path / "results", comparison(variant("a", 1), units={"weight": "kg"}), 1)


async def test_the_page_has_the_goals_the_plot_and_what_was_left_out_and_keeps_other_sections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The third is of the one that is left out.
    loads = iter([1.0, 4.0, 9.0, 4.0, 1.0])
    monkeypatch.setattr("os.getloadavg", lambda: (next(loads), 0.0, 0.0))
    file, page = tmp_path / "results", tmp_path / "benchmarks.md"
    goals = (Goal("speed", "a", "b", at_least=0.5), Goal("speed", "a", "b", at_least=0.58, step="then"))
    of = comparison(variant("a", 50, 60), variant("b", 100, 100), variant("c<", absent="no c here"), goals=goals)
    page.write_text("# Old head\n\n## another\n\nIts | table\n")
    assert write_report([of], file, page) == []
    await measured(file, of, 2)
    assert write_report([of], file, page) == ["row"]
    text = page.read_text()
    assert "## another\n\nIts | table\n" in text
    assert "Old head" not in text
    assert "| a | 55.0 [50.0–60.0] |" in text
    assert "| a / b | speed | ≥ 0.5 (must) | 0.550 [0.500–0.600] | yes |" in text
    assert "| a / b | speed | ≥ 0.58 (then) | 0.550 [0.500–0.600] | **no** |" in text
    assert "Left out: c< (no c here)." in text
    assert "load average 2.50 [1.00–4.00] as each" in text
    picture = (tmp_path / "benchmarks" / "row.svg").read_text()
    assert "](benchmarks/row.svg)" in text
    assert ">55.0</text>" in picture
    ground, ours, theirs = (float(width) for width in re.findall(r'<rect [^>]*?width="([0-9.]+)"', picture))
    assert ground > theirs
    assert ours / theirs == pytest.approx(0.55, abs=0.01)
    before = text
    assert write_report([of], file, page) == ["row"]
    assert page.read_text() == before


@pytest.mark.parametrize(
    ("value", "words"), [(17_524.4, "17,524"), (63.14, "63.1"), (4.214, "4.21"), (0.1234, "0.123"), (0, "0.000")]
)
def test_figures_as_people_read_them(value: float, words: str) -> None:
    assert number(value) == words


BURN = "import time\nwhile time.process_time() < 0.3: pass"
TREE = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}])
child = subprocess.Popen([sys.executable, "-c", {BURN + chr(10) + "print(flush=True); input()"!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print("burnt", flush=True)
sys.stdin.readline()
"""


async def test_cpu_time_is_of_all_below_those_that_have_ended_too_and_nobody_counts_twice(tmp_path: Path) -> None:
    program = tmp_path / "tree.py"
    program.write_text(TREE)
    async with running((sys.executable, str(program)), environment(), tmp_path / "log") as tree:
        assert await tree.line() == "burnt"
        found = cpu_seconds(tree.pid)
        assert found >= 0.55
        child = psutil.Process(tree.pid).children()[0].pid
        assert cpu_seconds(tree.pid, child, tree.pid) < found + 0.2


async def test_what_a_peer_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    command = ("sh", "-c", "sleep 600 & echo $!; cat")
    async with running(command, environment(), tmp_path / "log", ends_with_input=True) as peer:
        left = psutil.Process(int(await peer.line()))
        assert left.is_running()
        await peer.say("an answer")
        assert await peer.line() == "an answer"

    async def gone() -> bool:
        # Whoever inherits it buries it in his own time.
        return not left.is_running() or left.status() == psutil.STATUS_ZOMBIE

    await eventually(gone)


async def test_a_peer_that_ends_tells_its_last_words(tmp_path: Path) -> None:
    async with running(("sh", "-c", "echo no such queue >&2"), environment(), tmp_path / "log") as peer:
        with pytest.raises(RuntimeError, match="no such queue"):
            await peer.line()


async def test_a_start_is_heard_with_its_moment_and_what_came_before_can_be_forgotten() -> None:
    with listener() as heard:
        job = Started(heard.address)
        job.tell()
        first = await heard.next_start()
        job.tell()
        heard.forget()
        job.tell()
        assert await heard.next_start() > first
        job.close()
        Started("").tell()
