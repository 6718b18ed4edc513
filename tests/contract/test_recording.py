"""What executors say of runs: recorded once, and late, double and foreign news changes nothing, on both stores."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler_service.core.breaker import BreakerState
from scheduler_service.core.run import DispatchAnswer, RunReport, RunState
from scheduler_service.core.task import TaskStatus
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict
from scheduler_service.errors import NotLeader
from scheduler_service.transactions.leading import acquire_or_renew, resign
from scheduler_service.transactions.leases import extend_leases, has_run_out
from scheduler_service.transactions.overrides import clear_billing_pause
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.reading import read_stats
from scheduler_service.transactions.recording import record_answers
from scheduler_service.transactions.stored import EventFilter, TaskFilter
from tests.contract.conftest import CALLER, Cluster, report
from tests.fakes.memory_database import MemoryDatabase


async def overdue(cluster: Cluster) -> list[UUID]:
    """The live runs whose lease has run out by the database's clock."""

    async def look(tx: Transaction) -> list[UUID]:
        return [lease.run_id for lease in await tx.live_leases() if has_run_out(lease, tx.now, cluster.rules)]

    return await cluster.run(look)


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


async def test_windows_of_other_lengths_and_attempts_by_executor_are_told_when_asked_for(cluster: Cluster) -> None:
    cluster.executors = (report("host-a"), report("host-b"))
    await cluster.lead()
    for _ in range(3):
        task = await cluster.add()
        await cluster.tick()
        await cluster.completed(task.id)
        cluster.clock.advance(minutes=10)
    lengths = [timedelta(minutes=15), timedelta(hours=24)]
    stats = await cluster.run(lambda tx: read_stats(tx, cluster.rules, lengths, by_executor=True))
    assert [(length, found.attempts.success) for length, found in stats.windows] == list(zip(lengths, (1, 3), strict=True))
    assert sum(window.success for window in stats.attempts_by_executor.values()) == 3
    assert set(stats.attempts_by_executor) <= {"host-a", "host-b"}
    assert (await cluster.run(lambda tx: read_stats(tx, cluster.rules))).attempts_by_executor == {}


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
    assert await overdue(cluster) == []
    cluster.clock.advance(minutes=1)
    assert await overdue(cluster) == [(await cluster.run_of(kept.id)).run_id]
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


async def test_a_leader_whose_lease_has_run_out_goes_on_under_its_term_if_nobody_took_it(cluster: Cluster) -> None:
    before = cluster.term
    cluster.clock.advance(hours=1)
    await cluster.lead()
    assert cluster.term == before


async def test_a_clock_that_went_back_does_not_lock_the_lease(cluster: Cluster) -> None:
    cluster.clock.jump(hours=-1)
    other = uuid4()
    taken = await cluster.run(lambda tx: acquire_or_renew(tx, other, "there", timedelta(seconds=3)))
    assert taken.holder == other


async def test_a_lease_from_before_the_clock_went_back_is_left_to_the_other_clock(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    await cluster.started(task.id)
    cluster.clock.jump(days=-1)
    assert await overdue(cluster) == [(await cluster.run_of(task.id)).run_id]


async def test_an_order_that_nobody_answers_is_not_kept_alive(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    for minutes, kept in ((2, 1), (1, 0)):
        cluster.clock.advance(minutes=minutes)
        await cluster.lead()
        renewal = await cluster.run(lambda tx: extend_leases(tx, cluster.holder, cluster.term, "host-a", cluster.rules))
        assert len(renewal.run_ids) == kept, "a quarter of the lease, and no longer"
    assert (await cluster.task(task.id)).status is TaskStatus.DISPATCHING


async def test_a_run_that_its_executor_disowns_is_not_kept_alive(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    await cluster.started(task.id)
    run = await cluster.run_of(task.id)
    renewal = await cluster.run(lambda tx: extend_leases(tx, cluster.holder, cluster.term, "host-a", cluster.rules, [run.run_id]))
    assert renewal.run_ids == ()


@pytest.mark.parametrize("end", ["lost", "quota"])
async def test_runs_that_start_well_and_come_to_nothing_come_less_and_less_often(cluster: Cluster, end: str) -> None:
    cluster.fraction = 0.999
    task = await cluster.add()
    pauses = []
    for _ in range(6):
        await cluster.tick()
        await cluster.started(task.id)
        if end == "lost":
            await cluster.lost(task.id)
        else:
            await cluster.reported(task.id, outcome=OutcomeClass.FAILED, error_class="billing_cap")
            await cluster.run(lambda tx: clear_billing_pause(tx, "cecelia-run", CALLER))
        waiting = await cluster.task(task.id)
        assert (waiting.status, waiting.tries) == (TaskStatus.QUEUED, 0)
        assert waiting.next_attempt_time is not None
        pause = (waiting.next_attempt_time - cluster.clock.now()).total_seconds()
        pauses.append(pause)
        cluster.clock.advance(seconds=pause)
        await cluster.lead()
    assert pauses == pytest.approx([0.999 * 2**n for n in range(6)])


async def test_a_task_that_cannot_be_started_anywhere_fails_at_once(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    await cluster.reported(
        task.id,
        verdict=StartVerdict.NEUTRAL,
        verdict_reason="task",
        verdict_detail="its environment is too large",
        outcome=OutcomeClass.FAILED_FOR_GOOD,
    )
    failed = await cluster.task(task.id)
    assert (failed.status, failed.tries, failed.error) == (TaskStatus.FAILED, 1, "its environment is too large")
    assert await cluster.decisions() == []


async def test_a_draining_executor_is_recorded_once_for_a_whole_batch(cluster: Cluster) -> None:
    tasks = [await cluster.add(f"Refused {i}") for i in range(4)]
    await cluster.tick()
    runs = [await cluster.run_of(task.id) for task in tasks]
    answers = [DispatchAnswer(run.run_id, False, "draining", "words") for run in runs]
    await cluster.run(lambda tx: record_answers(tx, answers, cluster.rules, lambda: 0.5))
    assert await cluster.decisions() == [(False, "no_executor", "cecelia-run")]
    assert {(await cluster.task(task.id)).status for task in tasks} == {TaskStatus.QUEUED}


async def test_a_probe_whose_task_has_vanished_lets_the_next_one_go(cluster: Cluster) -> None:
    for i in range(3):
        await cluster.add(f"Fails to start {i}")
    await cluster.tick()
    for task in await cluster.run(lambda tx: tx.list_tasks(TaskFilter(), None, 10)):
        await cluster.failed_start(task[1].id)
    cluster.clock.advance(minutes=31)
    await cluster.lead()
    (probe,) = (await cluster.tick()).orders
    if isinstance(cluster.database, MemoryDatabase):
        del cluster.database.state.tasks[probe.task_id]
    else:
        await cluster.run(lambda tx: tx._connection.execute("DELETE FROM tasks WHERE id = %s", [probe.task_id]))  # type: ignore[attr-defined]  # by hand
    recorded = await cluster.take_in(
        RunReport(probe.run_id, probe.task_id, 1, False, StartVerdict.SUCCESS, outcome=OutcomeClass.COMPLETED)
    )
    assert recorded.settled == [probe.run_id]
    breaker = (await cluster.run(lambda tx: tx.breakers()))["cecelia-run@host-a"]
    assert (breaker.state, breaker.probe_run_id) == (BreakerState.OPEN, None), "not HALF_OPEN for ever"
    assert (await cluster.decisions())[-1] == (False, "task_not_found", "cecelia-run")


async def test_outcomes_count_also_where_the_breakers_row_was_forgotten(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    if isinstance(cluster.database, MemoryDatabase):
        del cluster.database.state.breakers["cecelia-run@host-a"]
    else:
        await cluster.run(lambda tx: tx._connection.execute("DELETE FROM circuit_breaker_states WHERE key LIKE '%@%'"))  # type: ignore[attr-defined]  # by hand
    await cluster.failed_start(task.id)
    assert (await cluster.run(lambda tx: tx.breakers()))["cecelia-run@host-a"].failures == 1


QUOTA: dict[str, Any] = {
    "verdict": StartVerdict.NEUTRAL,
    "verdict_detail": "HTTP 429: quota exceeded",
    "outcome": OutcomeClass.NOT_STARTED,
}


async def pauses_of(cluster: Cluster) -> dict[str, timedelta]:
    """The pauses in force, by backend, and how long they still last."""
    now = cluster.clock.now()
    return {pause.backend: pause.until_time - now for pause in await cluster.run(lambda tx: tx.billing_pauses())}


@pytest.mark.parametrize(
    ("reason", "named", "length"),
    [
        ("billing_cap", None, timedelta(hours=1)),
        ("billing_cap", timedelta(hours=5), timedelta(hours=5)),
        ("billing_cap", timedelta(seconds=-1), timedelta(hours=1)),
        ("billing_cap", timedelta(days=400), timedelta(hours=1)),
        ("rate_limit", None, timedelta(minutes=2)),
        ("rate_limit", timedelta(seconds=20), timedelta(seconds=20)),
        ("auth", None, timedelta(minutes=30)),
    ],
)
async def test_an_answer_about_quota_pauses_its_backend_until_the_time_it_names(
    cluster: Cluster, reason: str, named: timedelta | None, length: timedelta
) -> None:
    task, other = await cluster.add(task_type="talk"), await cluster.add()
    await cluster.tick()
    retry_time = None if named is None else cluster.clock.now() + named
    await cluster.reported(task.id, **QUOTA, verdict_reason=reason, error_class=reason, retry_time=retry_time)
    assert await pauses_of(cluster) == {"hk-minimax": length}
    (pause,) = await cluster.run(lambda tx: tx.billing_pauses())
    assert (pause.actor, pause.reason) == ("scheduler", f"{reason}: HTTP 429: quota exceeded")
    assert await cluster.events() == ["billing_pause_started"]
    await cluster.started(other.id)
    waiting = await cluster.add("Waits for the account", task_type="talk")
    assert (await cluster.tick()).orders == ()
    cluster.clock.advance(seconds=length.total_seconds() + 1)
    await cluster.lead()
    assert {order.task_id for order in (await cluster.tick()).orders} & {task.id, waiting.id}


async def test_of_many_answers_the_latest_time_counts_and_one_event_tells_it(cluster: Cluster) -> None:
    first, second = await cluster.add(task_type="talk"), await cluster.add(task_type="talk")
    await cluster.tick()
    for task, hours in ((first, 3), (second, 2)):
        retry_time = cluster.clock.now() + timedelta(hours=hours)
        await cluster.reported(task.id, **QUOTA, verdict_reason="billing_cap", retry_time=retry_time)
    assert await pauses_of(cluster) == {"hk-minimax": timedelta(hours=3)}
    assert (await cluster.events()).count("billing_pause_started") == 1


async def test_a_command_that_says_quota_pauses_its_backend_and_its_credentials_are_its_own(cluster: Cluster) -> None:
    for error_class, expected in (("auth", {}), ("task", {}), ("billing_cap", {"cecelia-run": timedelta(hours=1)})):
        task = await cluster.add()
        await cluster.tick()
        await cluster.started(task.id)
        await cluster.reported(task.id, outcome=OutcomeClass.FAILED, error_class=error_class, error="spending cap reached")
        assert await pauses_of(cluster) == expected, error_class
    (pause,) = await cluster.run(lambda tx: tx.billing_pauses())
    assert pause.reason == f"billing_cap: said by a run of task {task.id}", "what a command writes may be secret"


async def test_news_of_a_run_that_is_over_pauses_nothing(cluster: Cluster) -> None:
    task = await cluster.add(task_type="talk")
    await cluster.tick()
    await cluster.completed(task.id)
    await cluster.reported(task.id, **QUOTA, verdict_reason="billing_cap")
    assert await pauses_of(cluster) == {}
