"""What `doctor` finds: one line each, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any

from dispatchctl.failures import Failure
from dispatchctl.rendering import clean


class Level(StrEnum):
    """How much a finding matters. Only a problem makes the exit status 1."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and how it came out; `remedy` is empty unless something is to be done."""

    category: str
    check: str
    level: Level
    detail: str
    remedy: str = ""

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "level": self.level.value}


def ok(category: str, check: str, detail: str) -> Finding:
    """Something that is as it should be."""
    return Finding(category, check, Level.OK, detail)


def skipped(category: str, check: str, why: str) -> Finding:
    """Something that was not looked at."""
    return Finding(category, check, Level.SKIPPED, why)


def warning(category: str, check: str, detail: str, remedy: str) -> Finding:
    """Something that works and should be looked at."""
    return Finding(category, check, Level.WARNING, detail, remedy)


def problem(category: str, check: str, detail: str, remedy: str) -> Finding:
    """Something that must be mended."""
    return Finding(category, check, Level.PROBLEM, detail, remedy)


def problem_of(category: str, check: str, failure: Failure) -> Finding:
    """A failure as a finding."""
    return problem(category, check, f"{failure.what} ({failure.why})", failure.remedy)


def is_well(findings: Iterable[Finding]) -> bool:
    """Whether there is no problem."""
    return all(finding.level is not Level.PROBLEM for finding in findings)


def summary(findings: Sequence[Finding]) -> str:
    """`all is well`, or how much there is to do."""
    counts = {level: sum(finding.level is level for finding in findings) for level in (Level.PROBLEM, Level.WARNING)}
    words = [f"{n} {level.value}{'' if n == 1 else 's'}" for level, n in counts.items() if n]
    return ", ".join(words) or "all is well"


def report_lines(findings: Sequence[Finding]) -> list[str]:
    """The findings under their categories, each remedy below its finding, the summary last."""
    lines: list[str] = []
    columns = max((len(finding.check) for finding in findings), default=0)
    for category, group in groupby(findings, lambda finding: finding.category):
        lines.append(category)
        for finding in group:
            lines.append(f"  {finding.level.value:<8} {finding.check:<{columns}}  {clean(finding.detail)}")
            if finding.remedy:
                lines.append(f"  {'':<8} do: {clean(finding.remedy)}")
        lines.append("")
    return [*lines, summary(findings)]
