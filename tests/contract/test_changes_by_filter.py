"""Cancel and requeue of all tasks that a filter chooses, on both stores."""

from __future__ import annotations

from functools import partial
from uuid import uuid4

import pytest

from scheduler_service.core.limits import TaskSpec
from scheduler_service.core.task import Priority, TaskStatus
from scheduler_service.transactions import bulk_editing
from scheduler_service.transactions.auditing import Caller
from scheduler_service.transactions.bulk_editing import BulkResult, cancel_tasks, count_chosen, requeue_tasks
from scheduler_service.transactions.editing import cancel_task
from scheduler_service.transactions.stored import AuditFilter, TaskFilter
from tests.contract.conftest import DESCRIPTION, Cluster

CALLER = Caller("ann", "cleaning up", "r-1")


async def test_all_that_a_filter_chooses_is_cancelled_and_nothing_else(cluster: Cluster) -> None:
    live = await cluster.add("Running", task_type="dev")
    await cluster.tick()
    await cluster.started(live.id)
    waiting = [await cluster.add(task_type="dev"), await cluster.add(task_type="dev")]
    other = await cluster.add("Of another type", task_type="review")
    dependent = await cluster.add("Of another type", task_type="review", depends_on=(waiting[0].id,))
    chosen = TaskFilter((TaskStatus.QUEUED, TaskStatus.RUNNING), ("dev",))
    assert await cluster.run(lambda tx: count_chosen(tx, chosen, 0)) == BulkResult(matched=3)
    assert (await cluster.task(waiting[0].id)).status is TaskStatus.QUEUED
    result = await cluster.run(lambda tx: cancel_tasks(tx, chosen, 0, CALLER))
    assert result == BulkResult(matched=3, changed=3, skipped=0, next_seq=None)
    found = [await cluster.task(task.id) for task in (live, *waiting, other, dependent)]
    assert [task.status.value for task in found] == ["running", "cancelled", "cancelled", "queued", "failed"]
    assert found[0].cancel_requested
    assert {task.error for task in found[1:3]} == {"cancelled: cleaning up"}
    assert found[4].hold_reason == "dependency_failed"
    (entry,) = await cluster.run(lambda tx: tx.audit_entries(AuditFilter(), None, 10))
    assert (entry.actor, entry.method, entry.reason, entry.request_id) == ("ann", "CancelTasks", "cleaning up", "r-1")
    assert entry.target == "statuses=queued,running task_types=dev"
    assert entry.detail == {
        "before": {"tasks": {"queued": 2, "running": 1}},
        "after": {"tasks": {"cancelled": 2, "cancel_requested": 1}},
    }
    again = await cluster.run(lambda tx: cancel_tasks(tx, chosen, 0, CALLER))
    assert again == BulkResult(matched=1, changed=0, skipped=1, next_seq=None), "the wish is noted already"
    assert len(await cluster.run(lambda tx: tx.audit_entries(AuditFilter(), None, 10))) == 1, "what changed nothing is not noted"


async def test_a_change_by_filter_goes_page_by_page_oldest_first(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_editing, "BULK_MAX_TASKS", 2)
    tasks = [await cluster.add(f"Number {i}") for i in range(5)]
    kept = await cluster.add("Urgent", priority=Priority.P0)
    chosen = TaskFilter((TaskStatus.QUEUED,), (), (Priority.P1,))
    after: int | None = 0
    pages: list[BulkResult] = []
    while after is not None:
        pages.append(await cluster.run(partial(cancel_tasks, chosen=chosen, after_seq=after, caller=CALLER)))
        after = pages[-1].next_seq
        done = sum(one.changed for one in pages)
        ended = [(await cluster.task(task.id)).status is TaskStatus.CANCELLED for task in tasks]
        assert ended == [True] * done + [False] * (5 - done)
    assert [(one.matched, one.changed) for one in pages] == [(5, 2), (3, 2), (1, 1)]
    assert (await cluster.task(kept.id)).status is TaskStatus.QUEUED
    entries = await cluster.run(lambda tx: tx.audit_entries(AuditFilter(), None, 10))
    assert [entry.detail["after"]["tasks"] for entry in entries] == [{"cancelled": 1}, {"cancelled": 2}, {"cancelled": 2}]


async def test_a_page_that_ends_with_the_last_task_is_the_last(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_editing, "BULK_MAX_TASKS", 2)
    monkeypatch.setattr(bulk_editing, "COUNTED_MAX_TASKS", 1)
    for _ in range(2):
        await cluster.add()
    result = await cluster.run(lambda tx: cancel_tasks(tx, TaskFilter((TaskStatus.QUEUED,)), 0, CALLER))
    assert result == BulkResult(matched=1, changed=2, skipped=0, next_seq=None), "counted up to a limit"


async def test_requeueing_by_filter_takes_prerequisites_along_and_passes_over_what_cannot_run(cluster: Cluster) -> None:
    first = await cluster.add("First", task_type="dev")
    outside = await cluster.add("Not chosen", task_type="review")
    second_id, third_id = uuid4(), uuid4()
    # The dependent is submitted before what it depends on.
    await cluster.submit(
        TaskSpec(title="Third", task_id=third_id, description=DESCRIPTION, depends_on=(second_id,)),
        TaskSpec(title="Second", task_id=second_id, description=DESCRIPTION, depends_on=(first.id,)),
    )
    hopeless = await cluster.add("Hopeless", depends_on=(outside.id,))
    for task in (first, outside):
        await cluster.run(partial(cancel_task, task_id=task.id, actor="me", reason="", request_id=""))
    ended = TaskFilter((TaskStatus.FAILED, TaskStatus.CANCELLED), ("dev",))
    result = await cluster.run(lambda tx: requeue_tasks(tx, ended, 0, CALLER))
    assert result == BulkResult(matched=4, changed=3, skipped=1, next_seq=None)
    found = [await cluster.task(id_) for id_ in (first.id, second_id, third_id, hopeless.id, outside.id)]
    assert [task.status.value for task in found] == ["queued", "queued", "queued", "failed", "cancelled"]
    assert [task.blocked_by for task in found[:3]] == [0, 1, 1]
    assert [task.hold_reason.value for task in found[:3]] == ["", "dependency", "dependency"]
    (newest, *_) = await cluster.run(lambda tx: tx.audit_entries(AuditFilter(), None, 10))
    assert (newest.method, newest.target) == ("RequeueTasks", "statuses=cancelled,failed task_types=dev")
    assert newest.detail == {"before": {"tasks": {"cancelled": 1, "failed": 2}}, "after": {"tasks": {"queued": 3}}}
