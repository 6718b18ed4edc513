"""A run's record: one verdict, one end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from executor_service.core.run import EndReport, RunOutcome, RunRecord, RunSpec, RunState, StartReport, StartVerdict

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPEC = RunSpec("r", "t", 1, "title", "", "dev", "b", {}, timedelta(hours=1), timedelta(0))
ACCEPTED = RunRecord(SPEC, RunState.ACCEPTED, NOW)


def test_only_the_first_verdict_counts() -> None:
    running = ACCEPTED.started(StartReport(StartVerdict.SUCCESS), NOW)
    assert (running.state, running.live) == (RunState.RUNNING, True)
    assert running.started(StartReport(StartVerdict.FAILURE, "executor_failed"), NOW) is running


def test_a_failed_start_is_no_running_run() -> None:
    failed = ACCEPTED.started(StartReport(StartVerdict.FAILURE, "executor_failed"), NOW)
    assert (failed.state, failed.start is not None) == (RunState.ACCEPTED, True)


def test_only_the_first_end_counts_and_it_always_has_a_verdict() -> None:
    ended = ACCEPTED.ended(EndReport(RunOutcome.LOST, error="gone"), NOW)
    assert (ended.state, ended.live) == (RunState.ENDED, False)
    assert ended.start == StartReport(StartVerdict.NEUTRAL, "lost", "gone")
    assert ended.ended(EndReport(RunOutcome.COMPLETED), NOW) is ended
    assert ended.started(StartReport(StartVerdict.SUCCESS), NOW) is ended
