"""A task's moves: which are legal, and what each clears and keeps."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from scheduler_service.core import task as tasks
from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.task import (
    EDITABLE_FIELDS,
    LEGAL_MOVES,
    IllegalTransition,
    Move,
    Priority,
    Task,
    TaskStatus,
    claim,
    complete,
    due_time,
    edit,
    fail,
    quarantine,
    rank_time,
    requeue,
    return_to_queue,
    start,
    waiting_hold,
)

NOW = datetime(2026, 2, 25, 13, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
RUN = UUID(int=7)
MakeTask = Callable[..., Task]

CALLS: dict[Move, Callable[[Task], Task]] = {
    Move.CLAIM: lambda task: tasks.claim(task, RUN, "alpha", NOW),
    Move.START: lambda task: tasks.start(task, NOW),
    Move.RETURN_TO_QUEUE: lambda task: tasks.return_to_queue(task, NOW, NOW + HOUR),
    Move.COMPLETE: lambda task: tasks.complete(task, 0, "done", NOW),
    Move.FAIL: lambda task: tasks.fail(task, "no", 1, "", NOW),
    Move.CANCEL: lambda task: tasks.cancel(task, NOW, "asked for"),
    Move.QUARANTINE: lambda task: tasks.quarantine(task, HoldReason.MAX_TRIES, "no", NOW),
    Move.REQUEUE: lambda task: tasks.requeue(task, NOW),
    Move.REQUEST_CANCEL: lambda task: tasks.request_cancel(task, NOW),
    Move.EDIT: lambda task: tasks.edit(task, NOW, title="Another title"),
}

LEGAL = {
    "claim": "queued>dispatching",
    "start": "dispatching>running",
    "return_to_queue": "dispatching>queued running>queued",
    "complete": "dispatching>completed running>completed",
    "fail": "queued>failed dispatching>failed running>failed",
    "cancel": "queued>cancelled dispatching>cancelled running>cancelled quarantined>cancelled",
    "quarantine": "queued>quarantined dispatching>quarantined running>quarantined",
    "requeue": "failed>queued cancelled>queued quarantined>queued",
    "request_cancel": "dispatching>dispatching running>running",
    "edit": "queued>queued quarantined>queued",
}


@pytest.mark.parametrize("status", list(TaskStatus))
@pytest.mark.parametrize("move", list(Move))
def test_every_move_from_every_status(make_task: MakeTask, move: Move, status: TaskStatus) -> None:
    before = make_task(status=status)
    target = dict(pair.split(">") for pair in LEGAL[move].split()).get(status)
    if target is None:
        with pytest.raises(IllegalTransition, match=f"is {status}; {move} needs"):
            CALLS[move](before)
        return
    after = CALLS[move](before)
    assert (after.status, after.update_time) == (target, NOW)


def test_the_table_has_every_move() -> None:
    assert set(LEGAL_MOVES) == set(Move)


def test_a_claim_is_a_new_attempt(make_task: MakeTask) -> None:
    before = make_task(fence=4, hold_reason=HoldReason.BACKOFF, next_attempt_time=NOW, start_time=NOW)
    after = claim(before, RUN, "alpha", NOW)
    assert (after.run_id, after.executor_id, after.fence) == (RUN, "alpha", 5)
    assert (after.hold_reason, after.next_attempt_time, after.start_time) == (HoldReason.NONE, None, None)


def test_return_to_queue_clears_the_attempt_together(make_task: MakeTask) -> None:
    running = start(claim(make_task(), RUN, "alpha", NOW), NOW)
    back = return_to_queue(running, NOW, NOW + HOUR)
    assert (back.run_id, back.executor_id, back.start_time, back.end_time) == (None, "", None, None)
    assert (back.fence, back.hold_reason, back.due_time) == (1, HoldReason.BACKOFF, NOW + HOUR)
    assert back.backoff_count == 1


def test_return_to_queue_at_once_holds_nothing(make_task: MakeTask) -> None:
    back = return_to_queue(claim(make_task(), RUN, "alpha", NOW), NOW, None)
    assert (back.hold_reason, back.next_attempt_time, back.backoff_count) == (HoldReason.NONE, None, 0)
    assert back.due_time == back.create_time


def test_a_start_forgets_neither_the_back_off_nor_the_failed_starts(make_task: MakeTask) -> None:
    before = claim(make_task(start_failures=2, backoff_count=5), RUN, "alpha", NOW)
    after = start(before, NOW)
    assert (after.start_time, after.start_failures, after.backoff_count) == (NOW, 2, 5)


def test_complete_before_the_start_verdict(make_task: MakeTask) -> None:
    done = complete(claim(make_task(error="refused"), RUN, "alpha", NOW), 0, "42", NOW)
    assert (done.exit_code, done.result, done.error) == (0, "42", "")
    assert (done.start_time, done.end_time, done.run_id) == (NOW, NOW, RUN)


def test_complete_keeps_the_start_time(make_task: MakeTask) -> None:
    running = start(claim(make_task(), RUN, "alpha", NOW), NOW)
    assert complete(running, 0, "", NOW + HOUR).start_time == NOW


def test_fail_for_a_dependency(make_task: MakeTask) -> None:
    failed = fail(make_task(blocked_by=1), "prerequisite failed", None, "", NOW, HoldReason.DEPENDENCY_FAILED)
    assert (failed.hold_reason, failed.end_time) == (HoldReason.DEPENDENCY_FAILED, NOW)


def test_quarantine_keeps_the_last_outcome(make_task: MakeTask) -> None:
    aside = quarantine(make_task(exit_code=3, result="log"), HoldReason.MAX_TRIES, "exit status 3", NOW)
    assert (aside.exit_code, aside.result, aside.error) == (3, "log", "exit status 3")
    assert aside.hold_reason is HoldReason.MAX_TRIES


def test_requeue_is_as_new_but_for_the_fence(make_task: MakeTask) -> None:
    ended = make_task(
        status=TaskStatus.QUARANTINED,
        hold_reason=HoldReason.MAX_TRIES,
        fence=9,
        tries=3,
        start_failures=2,
        last_start_failure_time=NOW,
        backoff_count=4,
        run_id=RUN,
        executor_id="alpha",
        exit_code=1,
        result="log",
        error="exit status 1",
        cancel_requested=True,
        start_time=NOW,
        end_time=NOW,
        next_attempt_time=NOW + HOUR,
        due_time=NOW + HOUR,
    )
    assert requeue(ended, NOW) == make_task(fence=9, update_time=NOW)


def test_requeue_goes_on_waiting_for_what_it_waits_for(make_task: MakeTask) -> None:
    ended = make_task(status=TaskStatus.CANCELLED, not_before_time=NOW + HOUR)
    again = requeue(ended, NOW)
    assert (again.hold_reason, again.due_time) == (HoldReason.NOT_BEFORE, NOW + HOUR)


def test_edit_moves_the_rank_and_the_due_time(make_task: MakeTask, created: datetime) -> None:
    after = edit(make_task(), NOW, priority=Priority.P0, not_before_time=NOW + HOUR, description="", skill="qa")
    assert (after.rank_time, after.due_time) == (created, NOW + HOUR)
    assert (after.hold_reason, after.skill, after.description) == (HoldReason.NOT_BEFORE, "qa", "")


def test_edit_leaves_a_back_off_alone(make_task: MakeTask) -> None:
    waiting = make_task(next_attempt_time=NOW + HOUR, due_time=NOW + HOUR, start_failures=2, error="refused")
    after = edit(waiting, NOW, title="Another title")
    assert (after.due_time, after.hold_reason) == (NOW + HOUR, HoldReason.BACKOFF)
    assert (after.start_failures, after.error) == (2, "refused")


def test_edit_requeues_a_quarantined_task(make_task: MakeTask) -> None:
    aside = quarantine(make_task(), HoldReason.PRE_FLIGHT_CHECK_FAILED, "no description", NOW)
    after = edit(aside, NOW, payload={"prd_content": "x" * 30})
    assert (after.status, after.hold_reason, after.error) == (TaskStatus.QUEUED, HoldReason.NONE, "")
    assert after.payload == {"prd_content": "x" * 30}


def test_edit_refuses_other_fields(make_task: MakeTask) -> None:
    changes: Any = {"title": "Another title", "task_type": "qa", "status": "running"}
    with pytest.raises(ValueError, match="cannot change status, task_type"):
        edit(make_task(), NOW, **changes)


def test_the_editable_fields_are_the_contracts() -> None:
    assert {"title", "description", "priority", "skill", "payload", "not_before_time"} == EDITABLE_FIELDS


@pytest.mark.parametrize(("priority", "hours"), [(Priority.P0, 0), (Priority.P1, 1), (Priority.P2, 4)])
def test_rank_time(priority: Priority, hours: int) -> None:
    assert rank_time(NOW, priority) == NOW + hours * HOUR


def test_an_old_low_priority_overtakes_in_the_end() -> None:
    old = rank_time(NOW - 4 * HOUR - timedelta(seconds=1), Priority.P2)
    assert old < rank_time(NOW, Priority.P0) < rank_time(NOW - 4 * HOUR + timedelta(seconds=1), Priority.P2)


@pytest.mark.parametrize(
    ("not_before", "next_attempt", "due"),
    [(None, None, 0), (2, None, 2), (None, 3, 3), (2, 3, 3), (3, 2, 3), (-5, -6, 0)],
)
def test_due_time(not_before: int | None, next_attempt: int | None, due: int) -> None:
    def at(hours: int | None) -> datetime | None:
        return None if hours is None else NOW + hours * HOUR

    assert due_time(NOW, at(not_before), at(next_attempt)) == NOW + due * HOUR


def test_the_waiting_hold_goes_by_the_clock(make_task: MakeTask) -> None:
    later = NOW + HOUR
    task = make_task(blocked_by=1, next_attempt_time=later, not_before_time=later, hold_reason=HoldReason.BACKOFF)
    assert waiting_hold(task, NOW) is HoldReason.DEPENDENCY
    free = replace(task, blocked_by=0)
    assert waiting_hold(free, NOW) is HoldReason.BACKOFF
    assert waiting_hold(free, later) is HoldReason.NONE
    assert waiting_hold(replace(free, next_attempt_time=None), NOW) is HoldReason.NOT_BEFORE
    ended = replace(free, status=TaskStatus.QUARANTINED, hold_reason=HoldReason.MAX_TRIES)
    assert waiting_hold(ended, later) is HoldReason.MAX_TRIES
