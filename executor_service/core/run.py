"""A run as the executor knows it: what was asked, its start verdict, its end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

RESULT_MAX_BYTES = 64 * 1024
WORDS_MAX_CHARS = 2_000
USAGE_MAX_FIGURES = 32
USAGE_MAX_CHARS = 100
RETRY_TIME_MAX = timedelta(days=31)
LARGEST_WHOLE = 2**53
TASK_AT_FAULT = "task"
"""The reason of a neutral verdict when the task itself cannot be started: nothing is wrong with the backend."""


def clean_text(text: str, most: int) -> str:
    """Text as it can be sent and stored: no NUL, no half of a surrogate pair, shortened."""
    if len(text) <= most and text.isascii() and "\x00" not in text:
        return text
    return text[:most].replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _clean_result(text: str) -> str:
    if len(text) <= RESULT_MAX_BYTES and text.isascii() and "\x00" not in text:
        return text
    raw = text.replace("\x00", "\ufffd").encode("utf-8", "replace")
    return raw[-RESULT_MAX_BYTES:].decode("utf-8", "ignore")


def _is_figure(value: Any) -> bool:
    if isinstance(value, bool | str):
        return True
    # Not a number is not smaller than anything.
    return isinstance(value, int | float) and abs(value) <= LARGEST_WHOLE


def _figures(usage: Mapping[Any, Any]) -> dict[str, float | int | str | bool]:
    """Usage as plain figures: what is nested, endless or larger than a float holds exactly is left out."""
    plain = [(key, value) for key, value in usage.items() if _is_figure(value)][:USAGE_MAX_FIGURES]
    return {
        clean_text(str(key), USAGE_MAX_CHARS): clean_text(value, USAGE_MAX_CHARS) if isinstance(value, str) else value
        for key, value in plain
    }


class BackendKind(StrEnum):
    """Whether a backend fails as one (`shared`: one breaker) or on each executor by itself (`per_executor`: one each)."""

    SHARED = "shared"
    PER_EXECUTOR = "per_executor"


class RunState(StrEnum):
    """What a run is doing."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    ENDED = "ended"
    REFUSED = "refused"


# Looked up once: on the class, a member takes as long to find as a record to make (Python 3.11).
_RUNNING, _ENDED = RunState.RUNNING, RunState.ENDED
_LIVE = (RunState.ACCEPTED, RunState.RUNNING)


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


class RunSpec(msgspec.Struct, frozen=True):
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


class StartReport(msgspec.Struct, frozen=True):
    """A start verdict with its reason code and words.

    `known_at_end`: the answer is the work, so that the run has been going on since its acceptance.
    """

    verdict: StartVerdict
    reason: str = ""
    detail: str = ""
    known_at_end: bool = False

    def tidied(self) -> StartReport:
        """As it can be sent and stored, whatever a backend made of it."""
        return StartReport(
            self.verdict, clean_text(self.reason, 100), clean_text(self.detail, WORDS_MAX_CHARS), self.known_at_end
        )


class EndReport(msgspec.Struct, frozen=True):
    """The end of a run."""

    outcome: RunOutcome
    exit_code: int | None = None
    signal: int | None = None
    result: str = ""
    error: str = ""
    error_class: str = ""
    retry_time: datetime | None = None
    usage: Mapping[str, Any] = msgspec.field(default_factory=dict)

    def tidied(self, now: datetime) -> EndReport:
        """As it can be sent and stored, whatever a backend made of it; a retry time counts only in the next 31 days."""
        retry = self.retry_time
        return EndReport(
            self.outcome,
            self.exit_code,
            self.signal,
            _clean_result(self.result),
            clean_text(self.error, WORDS_MAX_CHARS),
            clean_text(self.error_class, 100),
            None if retry is None or retry <= now else min(retry, now + RETRY_TIME_MAX),
            _figures(self.usage),
        )


class RunRecord(msgspec.Struct, frozen=True):
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
        return self.state in _LIVE

    def started(self, report: StartReport, now: datetime) -> RunRecord:
        """The start verdict is known; only the first one counts."""
        if self.start is not None or not self.live:
            return self
        running = report.verdict is StartVerdict.SUCCESS
        begun = self.accept_time if report.known_at_end else now
        return RunRecord(self.spec, _RUNNING if running else self.state, self.accept_time, report, self.end, begun)

    def ended(self, report: EndReport, now: datetime) -> RunRecord:
        """It is over. An end without a start verdict gets a neutral one, so that every run has exactly one."""
        if not self.live:
            return self
        start = self.start or StartReport(StartVerdict.NEUTRAL, report.outcome.value, report.error)
        return RunRecord(self.spec, _ENDED, self.accept_time, start, report, self.start_time or now, now)
