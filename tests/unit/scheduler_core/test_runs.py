"""A run's own moves, and the rules' defaults."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from msgspec.structs import replace

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.run import Run, RunState, total_usage
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


def test_a_start_is_counted_from_the_acceptance_and_never_after_the_verdict() -> None:
    accepted, verdict = RUN.accepted(NOW), NOW + timedelta(seconds=40)

    def started(run: Run, seconds: float) -> datetime | None:
        return run.judged(StartVerdict.SUCCESS, "", verdict, timedelta(seconds=seconds)).start_time

    assert started(accepted, 0) == NOW
    assert started(accepted, 3) == NOW + timedelta(seconds=3)
    assert started(accepted, 41) == verdict
    assert started(RUN, 1) == RUN.claim_time + timedelta(seconds=1), "the answer to the order may come after the verdict"


def test_usage_is_summed_and_words_are_the_newest() -> None:
    newest = replace(RUN, usage={"tokens": 5, "model": "b", "cached": True, "mixed": "x"})
    oldest = replace(RUN, usage={"tokens": 7.5, "model": "a", "cached": False, "mixed": 3, "images": 1})
    assert total_usage([newest, RUN, oldest]) == {"tokens": 12.5, "model": "b", "cached": True, "mixed": "x", "images": 1}
    assert total_usage([]) == {}


def test_an_end_keeps_how_it_ended() -> None:
    ended = RUN.ended(OutcomeClass.FAILED, NOW, exit_code=3, error="exit status 3")
    assert (ended.state, ended.outcome, ended.exit_code, ended.end_time) == (RunState.ENDED, OutcomeClass.FAILED, 3, NOW)


def test_the_rules_default_to_the_contract() -> None:
    rules = DispatchRules()
    assert (rules.window.total_seconds(), rules.lease_ttl.total_seconds(), rules.interactive_reserve) == (3_600, 600, 2)
    assert rules.routes["talk"] == "hk-minimax"
    assert set(rules.backends) == {"cecelia-run", "hk-minimax"}
