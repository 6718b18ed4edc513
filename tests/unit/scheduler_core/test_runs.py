"""A run's own moves, and the rules' defaults."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.run import Run, RunState
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = Run(UUID(int=1), UUID(int=2), 1, "host", "cecelia-run", "cecelia-run@host", 0, False, NOW, None)


def test_acceptance_never_moves_a_run_back() -> None:
    accepted = RUN.accepted(NOW)
    assert (accepted.state, accepted.accept_time) == (RunState.ACCEPTED, NOW)
    running = RUN.judged(StartVerdict.SUCCESS, "", NOW)
    assert running.accepted(NOW) is running


def test_only_a_successful_verdict_makes_it_run() -> None:
    running = RUN.judged(StartVerdict.SUCCESS, "", NOW)
    assert (running.state, running.start_time) == (RunState.RUNNING, NOW)
    failed = RUN.accepted(NOW).judged(StartVerdict.FAILURE, "executor_failed", NOW)
    assert (failed.state, failed.start_time, failed.verdict_reason) == (RunState.ACCEPTED, None, "executor_failed")


def test_an_end_keeps_how_it_ended() -> None:
    ended = RUN.ended(OutcomeClass.FAILED, NOW, exit_code=3, error="exit status 3")
    assert (ended.state, ended.outcome, ended.exit_code, ended.end_time) == (RunState.ENDED, OutcomeClass.FAILED, 3, NOW)


def test_the_rules_default_to_the_contract() -> None:
    rules = DispatchRules()
    assert (rules.window.total_seconds(), rules.lease_ttl.total_seconds(), rules.interactive_reserve) == (3_600, 600, 2)
    assert rules.routes["talk"] == "hk-minimax"
    assert set(rules.backends) == {"cecelia-run", "hk-minimax"}
