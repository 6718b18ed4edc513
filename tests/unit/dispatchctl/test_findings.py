"""How findings are put into words, and what they come to."""

from __future__ import annotations

from dispatchctl.failures import Failure
from dispatchctl.findings import is_well, ok, problem, problem_of, report_lines, skipped, summary, warning


def test_only_a_problem_is_not_well() -> None:
    fine = [ok("disk", "room", "much"), skipped("disk", "other", "not here"), warning("disk", "age", "old", "look")]
    assert is_well(fine)
    assert not is_well([*fine, problem("ports", "X", "taken", "free it")])


def test_the_summary_counts_problems_first() -> None:
    assert summary([ok("a", "b", "c"), skipped("a", "b", "c")]) == "all is well"
    bad = problem("a", "b", "c", "d")
    assert summary([warning("a", "b", "c", "d"), bad, bad]) == "2 problems, 1 warning"


def test_each_remedy_stands_below_its_finding_under_its_category() -> None:
    found = [ok("ports", "A", "free"), problem("ports", "LONGER", "taken\x1b[2J", "free it"), ok("disk", "room", "much")]
    assert report_lines(found) == [
        "ports",
        "  ok       A       free",
        "  problem  LONGER  taken\N{REPLACEMENT CHARACTER}[2J",
        "           do: free it",
        "",
        "disk",
        "  ok       room    much",
        "",
        "1 problem",
    ]


def test_a_failure_keeps_its_reason_and_its_remedy() -> None:
    found = problem_of("ports", "X", Failure("it is taken", "address_in_use: by another", "free it"))
    assert (found.detail, found.remedy) == ("it is taken (address_in_use: by another)", "free it")
    assert found.fields()["level"] == "problem"
