"""A run as the executor knows it: what was asked, its start verdict, its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

RESULT_MAX_BYTES = 64 * 1024


class RunState(StrEnum):
    """What a run is doing."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    ENDED = "ended"
    REFUSED = "refused"


class StartVerdict(StrEnum):
    """The start verdict: see the contract's table."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


class RunOutcome(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    FAILED_FOR_GOOD = "failed_for_good"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    NOT_STARTED = "not_started"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What was asked. `lease_ttl` zero: no lease."""

    run_id: str
    task_id: str
    fence: int
    title: str
    description: str
    task_type: str
    backend: str
    payload: Mapping[str, Any]
    timeout: timedelta
    lease_ttl: timedelta
    skill: str = ""
    permission_mode: str = ""
    model: str = ""
    provider: str = ""
    cluster_id: str = ""


@dataclass(frozen=True, slots=True)
class StartReport:
    """A start verdict with its reason code and words."""

    verdict: StartVerdict
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class EndReport:
    """The end of a run."""

    outcome: RunOutcome
    exit_code: int | None = None
    signal: int | None = None
    result: str = ""
    error: str = ""
    error_class: str = ""
    retry_time: datetime | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run and what has become of it."""

    spec: RunSpec
    state: RunState
    accept_time: datetime
    start: StartReport | None = None
    end: EndReport | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None

    @property
    def live(self) -> bool:
        """Accepted or running."""
        return self.state in (RunState.ACCEPTED, RunState.RUNNING)

    def started(self, report: StartReport, now: datetime) -> RunRecord:
        """The start verdict is known; only the first one counts."""
        if self.start is not None or not self.live:
            return self
        running = report.verdict is StartVerdict.SUCCESS
        return replace(self, start=report, start_time=now, state=RunState.RUNNING if running else self.state)

    def ended(self, report: EndReport, now: datetime) -> RunRecord:
        """It is over. An end without a start verdict gets a neutral one, so that every run has exactly one."""
        if not self.live:
            return self
        start = self.start or StartReport(StartVerdict.NEUTRAL, report.outcome.value, report.error)
        return replace(self, state=RunState.ENDED, start=start, start_time=self.start_time or now, end=report, end_time=now)
