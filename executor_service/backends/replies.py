"""What a backend makes of an answer: the verdict on itself, and the end of the run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from executor_service.core.run import EndReport, RunOutcome, StartReport, StartVerdict

WORDS_MAX = 500
EXECUTOR_FAILED = "executor_failed"


class Reply(msgspec.Struct, frozen=True):
    """What came back: the verdict on the backend, and the end of the run (None: it goes on)."""

    start: StartReport
    end: EndReport | None


class Ended(Reply, frozen=True):
    """A reply that is the end of the run too, as of a service whose answer is the work."""

    end: EndReport


def completed(result: str, usage: Mapping[str, Any] | None = None) -> Ended:
    """The work, done. `usage`: plain figures under the backend's own names, such as `prompt_tokens`."""
    return Ended(StartReport(StartVerdict.SUCCESS), EndReport(RunOutcome.COMPLETED, result=result, usage=usage or {}))


def task_failed(detail: str) -> Ended:
    """A proper answer to a task that will not do: the backend is well, and another try would fare no better."""
    return Ended(StartReport(StartVerdict.SUCCESS), EndReport(RunOutcome.FAILED_FOR_GOOD, error=words(detail)))


def failure(detail: str) -> Ended:
    """The backend's failure: it counts against its breaker, and the task is tried again."""
    text = words(detail)
    return Ended(StartReport(StartVerdict.FAILURE, EXECUTOR_FAILED, text), EndReport(RunOutcome.NOT_STARTED, error=text))


def neutral(reason: str, detail: str, outcome: RunOutcome, retry_time: datetime | None = None) -> Ended:
    """Nobody's failure. The reasons `auth`, `billing_cap` and `rate_limit` pause the backend."""
    text = words(detail)
    return Ended(
        StartReport(StartVerdict.NEUTRAL, reason, text), EndReport(outcome, error=text, error_class=reason, retry_time=retry_time)
    )


def lost(detail: str) -> Ended:
    """Nobody knows what became of the work."""
    return neutral("lost", detail, RunOutcome.LOST)


def words(text: str) -> str:
    """Text of others, cleaned and shortened."""
    return "".join(c if c.isprintable() else " " for c in text)[:WORDS_MAX].strip()
