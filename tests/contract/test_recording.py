"""What executors say of runs: recorded once, and late, double and foreign news changes nothing, on both stores."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from scheduler_service.core.run import RunReport, RunState
from scheduler_service.core.task import TaskStatus
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict
from scheduler_service.errors import NotLeader
from scheduler_service.transactions.leading import acquire_or_renew, resign
from scheduler_service.transactions.leases import expired_runs, extend_leases
from scheduler_service.transactions.ports import EventFilter, Transaction
from scheduler_service.transactions.reading import read_stats
from tests.contract.conftest import Cluster


async def test_acceptance_records_nothing_and_the_verdict_records_once(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    await cluster.answered(task.id, True)
    assert await cluster.decisions() == []
    assert (await cluster.run_of(task.id)).state is RunState.ACCEPTED
    for _ in range(3):
        await cluster.started(task.id)
    assert await cluster.decisions() == [(True, "", "cecelia-run")]
    assert await cluster.events() == ["task_dispatched"]
    last = await cluster.run(lambda tx: tx.last_dispatch())
    assert last is not None
    assert last.task_id == task.id
    assert (await cluster.task(task.id)).status is TaskStatus.RUNNING


async def test_a_completion_may_come_before_the_answer_and_the_verdict(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    recorded = await cluster.completed(task.id, "the result")
    done = await cluster.task(task.id)
    assert (done.status, done.result, done.exit_code) == (TaskStatus.COMPLETED, "the result", 0)
    assert recorded.settled == [done.run_id]
    await cluster.answered(task.id, True)
    assert (await cluster.run_of(task.id)).state is RunState.ENDED
    assert await cluster.events() == ["task_dispatched", "task_completed"]


async def test_double_and_contradicting_ends_change_nothing(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    await cluster.completed(task.id)
    again = await cluster.reported(task.id, verdict=StartVerdict.SUCCESS, outcome=OutcomeClass.FAILED, exit_code=1)
    assert len(again.settled) == 1, "it may forget it all the same"
    assert again.ignored == 1
    assert (await cluster.task(task.id)).status is TaskStatus.COMPLETED
    assert await cluster.decisions() == [(True, "", "cecelia-run")]


async def test_news_of_an_older_fence_changes_nothing(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    old = await cluster.run_of(task.id)
    await cluster.lost(task.id)
    cluster.clock.advance(minutes=6)
    await cluster.tick()
    assert (await cluster.task(task.id)).fence == 2
    late = RunReport(old.run_id, old.task_id, old.fence, False, StartVerdict.SUCCESS, outcome=OutcomeClass.COMPLETED)
    recorded = await cluster.take_in(late)
    assert (recorded.settled, recorded.ignored) == ([old.run_id], 1)
    assert (await cluster.task(task.id)).status is TaskStatus.DISPATCHING


async def test_foreign_news_changes_nothing(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    run = await cluster.run_of(task.id)
    other = await cluster.take_in(
        RunReport(run.run_id, run.task_id, run.fence, False, StartVerdict.SUCCESS, outcome=OutcomeClass.COMPLETED), "host-z"
    )
    unknown = await cluster.take_in(RunReport(uuid4(), uuid4(), 1, False, outcome=OutcomeClass.LOST))
    assert (other.ignored, unknown.ignored) == (1, 1)
    assert (await cluster.task(task.id)).status is TaskStatus.DISPATCHING


async def test_a_failed_run_is_retried_with_back_off_and_quarantined_when_its_tries_are_used_up(cluster: Cluster) -> None:
    task = await cluster.add(max_tries=2)
    await cluster.tick()
    await cluster.reported(task.id, verdict=StartVerdict.SUCCESS, outcome=OutcomeClass.FAILED, exit_code=3, error="exit status 3")
    waiting = await cluster.task(task.id)
    assert (waiting.status, waiting.tries, waiting.hold_reason) == (TaskStatus.QUEUED, 1, "backoff")
    assert waiting.next_attempt_time == cluster.clock.now() + timedelta(seconds=0.5)
    assert (await cluster.tick()).orders == ()
    cluster.clock.advance(seconds=1)
    await cluster.tick()
    await cluster.reported(task.id, verdict=StartVerdict.SUCCESS, outcome=OutcomeClass.FAILED, exit_code=3, error="exit status 3")
    aside = await cluster.task(task.id)
    assert (aside.status, aside.hold_reason, aside.exit_code) == (TaskStatus.QUARANTINED, "max_tries", 3)
    stats = await cluster.run(lambda tx: read_stats(tx, cluster.rules))
    assert (stats.attempts.success, stats.attempts.failed) == (2, 0), (
        "what becomes of a started run is the task's, not the backend's"
    )
    assert "task_quarantined" in await cluster.events()


async def test_a_failure_for_good_is_not_retried(cluster: Cluster) -> None:
    task = await cluster.add(task_type="talk")
    await cluster.tick()
    await cluster.reported(task.id, verdict=StartVerdict.SUCCESS, outcome=OutcomeClass.FAILED_FOR_GOOD, error="HTTP 404")
    assert (await cluster.task(task.id)).status is TaskStatus.FAILED


async def test_failed_starts_count_against_a_task_only_while_its_backend_starts_others(cluster: Cluster) -> None:
    poison = await cluster.add("Never starts", task_type="talk")

    async def fail() -> None:
        cluster.clock.advance(hours=1)
        await cluster.tick()
        await cluster.failed_start(poison.id)

    await fail()
    await fail()
    assert (await cluster.task(poison.id)).start_failures == 0, "nothing has ever started there"
    for expected in (1, 2):
        good = await cluster.add("Starts well", task_type="talk")
        cluster.clock.advance(hours=1)
        await cluster.tick()
        await cluster.completed(good.id)
        await fail()
        assert (await cluster.task(poison.id)).start_failures == expected
    await fail()
    assert (await cluster.task(poison.id)).start_failures == 2
    good = await cluster.add("Starts well", task_type="talk")
    cluster.clock.advance(hours=1)
    await cluster.tick()
    await cluster.completed(good.id)
    await fail()
    aside = await cluster.task(poison.id)
    assert (aside.status, aside.hold_reason, aside.tries) == (TaskStatus.QUARANTINED, "start_failed", 0)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("server_overloaded", "server_overloaded"),
        ("no_sample", "server_overloaded"),
        ("draining", "no_executor"),
        ("config_error", "config_error"),
    ],
)
async def test_a_rejection_gives_the_task_back_and_is_no_attempt(cluster: Cluster, code: str, reason: str) -> None:
    task = await cluster.add()
    await cluster.tick()
    await cluster.answered(task.id, False, code)
    back = await cluster.task(task.id)
    assert (back.status, back.run_id, back.executor_id, back.tries) == (TaskStatus.QUEUED, None, "", 0)
    assert await cluster.decisions() == [(False, reason, "cecelia-run")]
    stats = await cluster.run(lambda tx: read_stats(tx, cluster.rules))
    assert (stats.window_1h.failed, stats.attempts.total) == (1, 0)
    assert (await cluster.run(lambda tx: tx.breakers()))["cecelia-run@host-a"].failures == 0


async def test_a_neutral_verdict_counts_nowhere(cluster: Cluster) -> None:
    task = await cluster.add(task_type="talk")
    await cluster.tick()
    retry = cluster.clock.now() + timedelta(hours=1)
    await cluster.reported(
        task.id, verdict=StartVerdict.NEUTRAL, verdict_reason="rate_limit", outcome=OutcomeClass.NOT_STARTED, retry_time=retry
    )
    assert (await cluster.run(lambda tx: read_stats(tx, cluster.rules))).window_1h.total == 0
    back = await cluster.task(task.id)
    assert (back.status, back.tries, back.next_attempt_time) == (TaskStatus.QUEUED, 0, retry)


async def test_the_window_holds_an_event_that_is_exactly_as_old_as_it_is_long(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    await cluster.completed(task.id)
    cluster.clock.advance(hours=1)
    assert (await cluster.run(lambda tx: read_stats(tx, cluster.rules))).window_1h.total == 1
    cluster.clock.advance(seconds=0.001)
    assert (await cluster.run(lambda tx: read_stats(tx, cluster.rules))).window_1h.total == 0


async def test_the_window_is_exact_within_its_edge_second(cluster: Cluster) -> None:
    for _ in range(4):
        task = await cluster.add(task_type="talk")
        await cluster.tick()
        await cluster.completed(task.id)
        cluster.clock.advance(seconds=0.2)
    oldest = cluster.clock.now()
    cluster.clock.advance(seconds=3600 - 0.5)
    total = (await cluster.run(lambda tx: read_stats(tx, cluster.rules))).window_1h.total
    since = cluster.clock.now() - timedelta(hours=1)
    times = [e.create_time for e in await cluster.run(lambda tx: tx.dispatch_events(EventFilter(), None, 10))]
    assert total == sum(1 for time in times if time >= since)
    assert 0 < total < 4, f"the edge lies inside: {oldest}"


async def test_leases_are_extended_for_what_lives_and_expire_for_what_does_not(cluster: Cluster) -> None:
    kept = await cluster.add("Kept alive")
    await cluster.tick()
    await cluster.started(kept.id)
    cluster.clock.advance(minutes=9)
    await cluster.lead()
    renewal = await cluster.run(lambda tx: extend_leases(tx, cluster.holder, cluster.term, "host-a", cluster.rules))
    assert renewal.run_ids == ((await cluster.run_of(kept.id)).run_id,)
    assert (await cluster.run_of(kept.id)).renew_seq == 1
    cluster.clock.advance(minutes=10)
    assert await cluster.run(expired_runs) == []
    cluster.clock.advance(minutes=1)
    assert [run.task_id for run in await cluster.run(expired_runs)] == [kept.id]
    await cluster.lost(kept.id)
    back = await cluster.task(kept.id)
    assert (back.status, back.tries) == (TaskStatus.QUEUED, 0)
    with pytest.raises(NotLeader):
        await cluster.run(lambda tx: extend_leases(tx, uuid4(), 99, "host-a", cluster.rules))


async def test_the_lease_changes_hands_only_when_it_has_run_out_or_was_given_back(cluster: Cluster) -> None:
    other = uuid4()

    async def ask(tx: Transaction) -> bool:
        return (await acquire_or_renew(tx, other, "there", timedelta(seconds=3))).holder == other

    assert not await cluster.run(ask)
    cluster.clock.advance(seconds=3)
    assert await cluster.run(ask)
    await cluster.run(lambda tx: resign(tx, other))
    first = cluster.term
    await cluster.lead()
    assert cluster.term == first + 2


async def test_a_clock_that_went_back_does_not_lock_the_lease(cluster: Cluster) -> None:
    cluster.clock.jump(hours=-1)
    other = uuid4()
    taken = await cluster.run(lambda tx: acquire_or_renew(tx, other, "there", timedelta(seconds=3)))
    assert taken.holder == other
