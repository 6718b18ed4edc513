"""A run's record: one verdict, one end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from executor_service.core.run import EndReport, RunOutcome, RunRecord, RunSpec, RunState, StartReport, StartVerdict
from executor_service.rpc.conversions import BATCH_MAX_BYTES, RUNS_MAX, changes, run_message
from executor_service.runs.table import RunTable

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


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), None),
        (NOW, None),
        (NOW + timedelta(hours=1), NOW + timedelta(hours=1)),
        (datetime(9999, 12, 31, tzinfo=UTC), NOW + timedelta(days=31)),
    ],
)
def test_a_retry_time_counts_only_in_the_near_future(said: datetime, counts: datetime | None) -> None:
    assert EndReport(RunOutcome.FAILED, retry_time=said).tidied(NOW).retry_time == counts


def test_whatever_a_backend_says_can_be_sent() -> None:
    usage = {
        "tokens": 7, "share": 0.5, "cached": True, "model": "m\ud83d", "\ud83d": 1, 5: 6,
        "endless": float("inf"), "nothing": float("nan"), "huge": 10**400, "nested": {"a": {"b": 1}}, "list": [1], "none": None,
    }  # fmt: skip
    end = EndReport(
        RunOutcome.COMPLETED, result="a\0\ud83d" + "ü" * 40_000, error="\0" * 5000, error_class="x" * 500, usage=usage
    )
    tidy = end.tidied(NOW)
    assert tidy.usage == {"tokens": 7, "share": 0.5, "cached": True, "model": "m?", "?": 1, "5": 6}
    assert len(tidy.result.encode()) <= 64 * 1024
    start = StartReport(StartVerdict.NEUTRAL, "r\ud83d", "d\0" * 5000).tidied()
    message = run_message(ACCEPTED.started(start, NOW).ended(tidy, NOW))
    assert message.usage.fields["tokens"].number_value == 7
    assert len(message.SerializeToString()) < 128 * 1024
    assert run_message(ACCEPTED.ended(tidy, NOW), brief=True).ByteSize() < 700


def test_the_table_knows_which_runs_live_of_which_task_and_on_which_backend() -> None:
    table = RunTable()
    table.put(ACCEPTED)
    table.put(ACCEPTED.started(StartReport(StartVerdict.SUCCESS), NOW))
    assert ([r.state for r in table.live], table.live_of_task("t"), table.live_on("b")) == ([RunState.RUNNING], "r", 1)
    table.put(ACCEPTED.ended(EndReport(RunOutcome.COMPLETED), NOW))
    assert (table.live, table.live_of_task("t"), table.live_on("b")) == ([], None, 0)
    assert "r" in table
    table.remove("r")
    assert list(table) == []


def test_an_answer_that_is_the_work_has_gone_on_since_its_acceptance() -> None:
    later = NOW + timedelta(seconds=40)
    told = ACCEPTED.started(StartReport(StartVerdict.SUCCESS, known_at_end=True), later)
    assert told.ended(EndReport(RunOutcome.COMPLETED), later).start_time == NOW
    begun = ACCEPTED.started(StartReport(StartVerdict.SUCCESS), later)
    assert begun.start_time == later


def test_many_runs_go_into_few_messages_within_their_bounds_in_order_and_none_is_lost() -> None:
    small = [structs.replace(ACCEPTED, spec=structs.replace(SPEC, run_id=str(n))) for n in range(RUNS_MAX + 1)]
    full, last = changes(small)
    assert len(full.runs.runs) == RUNS_MAX
    assert [run.run_id for run in (*full.runs.runs, last.run)] == [record.spec.run_id for record in small]
    large = [record.ended(EndReport(RunOutcome.COMPLETED, result="x" * 64 * 1024), NOW) for record in small[:100]]
    sizes = [response.ByteSize() for response in changes(large)]
    assert max(sizes) <= BATCH_MAX_BYTES
    assert len(sizes) == 4
    assert list(changes([])) == []
