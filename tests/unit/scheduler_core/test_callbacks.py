"""What a bridge's callback makes of a run."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from msgspec.structs import replace

from scheduler_service.core.callback import CALLBACK_STATUSES, Callback, report_of
from scheduler_service.core.run import Run
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict

NOW = datetime(2026, 2, 25, 12, 0, tzinfo=UTC)
RUN = Run(UUID(int=1), UUID(int=2), 3, "alpha", "cecelia-run", "cecelia-run@alpha", 0, False, NOW, None)


@pytest.mark.parametrize("status", CALLBACK_STATUSES)
def test_each_word_is_the_end_of_its_run(status: str) -> None:
    report = report_of(Callback(RUN.run_id, RUN.task_id, status, "the result"), RUN)
    assert (report.run_id, report.task_id, report.fence, report.live) == (RUN.run_id, RUN.task_id, 3, False)
    assert (report.outcome, report.error_class) == CALLBACK_STATUSES[status]
    assert report.verdict is StartVerdict.SUCCESS, "what has ended has started"
    assert bool(report.error) == (report.outcome is not OutcomeClass.COMPLETED)


def test_a_verdict_that_is_known_stays() -> None:
    judged = replace(RUN, verdict=StartVerdict.FAILURE)
    assert report_of(Callback(RUN.run_id, RUN.task_id, "AI Done"), judged).verdict is StartVerdict.FAILURE


def test_the_bridges_own_words_come_first() -> None:
    said = report_of(Callback(RUN.run_id, RUN.task_id, "AI Failed", error="out of tokens"), RUN)
    assert said.error == "out of tokens"
