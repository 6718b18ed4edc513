"""What callers do to tasks, on both stores."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

import pytest
from msgspec import structs

from scheduler_service.core.limits import TaskSpec
from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.task import DependencyPolicy, Priority, Task, TaskChanges, TaskStatus
from scheduler_service.core.verdicts import OutcomeClass
from scheduler_service.transactions import submitting
from scheduler_service.transactions.bulk_editing import requeue_tasks
from scheduler_service.transactions.editing import cancel_task, requeue_task, update_task
from scheduler_service.transactions.idempotency import AnswerForm, once, once_each
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.reading import explain
from scheduler_service.transactions.stored import TaskFilter
from service_runtime.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from tests.contract.conftest import CALLER, DESCRIPTION, Cluster
from tests.fakes.tasks import queued_task

AS_BYTES = AnswerForm[bytes](bytes, bytes)


async def test_a_stored_task_reads_back_as_it_was_submitted(cluster: Cluster) -> None:
    payload = {"text": "snow ☃", "n": 3, "deep": {"list": [1, 2.5, None, True]}}
    task = await cluster.add(payload=payload, priority=Priority.P0, skill="qa", timeout=timedelta(seconds=90))
    found = await cluster.task(task.id)
    assert found == task
    assert found.payload == payload
    assert found.backend == "cecelia-run"


async def test_every_field_of_a_new_task_is_stored(cluster: Cluster) -> None:
    """What is usual is not sent to PostgreSQL: nothing here is, but for what a queued row must be."""
    now = cluster.clock.now()
    times = ("not_before_time", "last_start_failure_time", "start_time", "end_time", "next_attempt_time")
    unusual = queued_task(
        now,
        **{name: now + timedelta(seconds=n) for n, name in enumerate(times)},
        description="Unusual",
        skill="qa",
        payload={"a": 1},
        depends_on=(uuid4(),),
        hold_reason=HoldReason.DEPENDENCY_FAILED,
        run_id=uuid4(),
        status=TaskStatus.FAILED,
        fence=2,
        tries=3,
        start_failures=4,
        executor_id="host-a",
        exit_code=5,
        result="half of it",
        error="its prerequisite failed",
        cancel_requested=True,
        blocked_by=6,
        dependency_policy=DependencyPolicy.WAIT,
        backoff_count=7,
    )
    usual = queued_task(now, id=uuid4())
    same = [name for name in Task.__struct_fields__ if getattr(usual, name) == getattr(unusual, name)]
    always_sent = {field.name for field in structs.fields(Task) if field.required}
    assert set(same) == always_sent - {"id", "status"}
    await cluster.run(lambda tx: tx.add_tasks([unusual, usual]))
    assert [await cluster.task(unusual.id), await cluster.task(usual.id)] == [unusual, usual]


async def test_a_batch_is_stored_whole_or_not_at_all(cluster: Cluster) -> None:
    taken = await cluster.add()
    with pytest.raises(AlreadyExists):
        await cluster.submit(TaskSpec(title="The first of two"), TaskSpec(title="Taken", task_id=taken.id))
    assert len(await cluster.run(lambda tx: tx.list_tasks(TaskFilter(), None, 10))) == 1


async def test_a_full_queue_takes_no_more(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "QUEUE_MAX_TASKS", 3)
    await cluster.submit(TaskSpec(title="First of two"), TaskSpec(title="Second of two"))
    with pytest.raises(ResourceExhausted, match="holds 2 waiting tasks; at most 3 fit") as refused:
        await cluster.submit(TaskSpec(title="Third"), TaskSpec(title="Fourth, one too many"))
    assert refused.value.reason == "QUEUE_FULL"
    third = await cluster.add("The last that fits")
    await cluster.run(lambda tx: cancel_task(tx, third.id, actor="me", reason="", request_id=""))
    await cluster.add("What has ended takes no room")


async def test_what_comes_back_to_the_queue_takes_room(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "QUEUE_MAX_TASKS", 3)
    by_hand, in_bulk, live = [
        await cluster.add(title) for title in ("Put back by hand", "Put back in bulk", "Put back by itself")
    ]
    for task in (by_hand, in_bulk):
        await cluster.run(lambda tx, id_=task.id: cancel_task(tx, id_, actor="me", reason="", request_id=""))
    assert len((await cluster.tick()).orders) == 1
    new = await cluster.add("Counted while nothing waits")
    await cluster.run(lambda tx: requeue_task(tx, by_hand.id, actor="me", reason="", request_id=""))
    cancelled = TaskFilter(statuses=(TaskStatus.CANCELLED,))
    assert (await cluster.run(lambda tx: requeue_tasks(tx, cancelled, 0, CALLER))).changed == 1
    await cluster.answered(live.id, accepted=False, reason="server_overloaded")
    waiting = [task for task in (by_hand, in_bulk, live, new) if (await cluster.task(task.id)).status is TaskStatus.QUEUED]
    assert len(waiting) == 4
    assert await cluster.run(lambda tx: tx.waiting_at_most()) >= 4
    with pytest.raises(ResourceExhausted, match="holds 4 waiting tasks; at most 3 fit"):
        await cluster.add("One too many")


async def test_a_quarantined_task_that_was_changed_takes_room(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "QUEUE_MAX_TASKS", 1)
    poor = await cluster.add("TODO", description="")
    await cluster.tick()
    assert (await cluster.task(poor.id)).status is TaskStatus.QUARANTINED
    await cluster.run(lambda tx: tx.count_waiting())
    changes: TaskChanges = {"title": "A good title", "description": DESCRIPTION}
    await cluster.run(lambda tx: update_task(tx, poor.id, changes, actor="me", request_id=""))
    with pytest.raises(ResourceExhausted, match="holds 1 waiting tasks"):
        await cluster.add("One too many")


async def test_a_task_waits_for_its_prerequisites_in_the_batch_and_before_it(cluster: Cluster) -> None:
    before = await cluster.add("Stored before")
    first_id = uuid4()
    _first, second = await cluster.submit(
        TaskSpec(title="First of the batch", task_id=first_id, description=DESCRIPTION),
        TaskSpec(title="Second of the batch", depends_on=(first_id, before.id), description=DESCRIPTION),
    )
    assert second.blocked_by == 2
    assert second.hold_reason == "dependency"
    result = await cluster.tick()
    assert {order.task_id for order in result.orders} == {before.id, first_id}
    await cluster.completed(before.id)
    assert (await cluster.task(second.id)).blocked_by == 1
    await cluster.completed(first_id)
    assert [order.task_id for order in (await cluster.tick()).orders] == [second.id]


async def test_a_large_batch_is_stored_in_parts_and_is_one_all_the_same(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "ADDED_AT_ONCE", 2)
    before = await cluster.add("Stored before")
    last_id, missing = uuid4(), uuid4()
    batch = await cluster.submit(
        TaskSpec(title="Waits for the last one", depends_on=(last_id, before.id), description=DESCRIPTION),
        TaskSpec(title="Waits for nothing", description=DESCRIPTION),
        TaskSpec(title="Waits in vain", depends_on=(missing,), description=DESCRIPTION),
        TaskSpec(title="Waits with patience", depends_on=(missing,), dependency_policy=DependencyPolicy.WAIT),
        TaskSpec(title="The last one", task_id=last_id, description=DESCRIPTION),
    )
    assert [(task.status, task.blocked_by) for task in batch] == [
        ("queued", 2), ("queued", 0), ("failed", 1), ("queued", 1), ("queued", 0),
    ]  # fmt: skip
    stored = await cluster.run(lambda tx: tx.list_tasks(TaskFilter(), None, 10))
    assert [task.title for _, task in reversed(stored)] == [before.title, *(task.title for task in batch)]
    assert [await cluster.task(task.id) for task in batch] == list(batch)
    assert {order.task_id for order in (await cluster.tick()).orders} == {before.id, batch[1].id, last_id}
    for task_id in (last_id, before.id):
        await cluster.completed(task_id)
    assert [order.task_id for order in (await cluster.tick()).orders] == [batch[0].id]


async def test_of_a_large_batch_nothing_stays_when_an_error_comes_behind_its_parts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "ADDED_AT_ONCE", 2)
    made = [uuid4(), uuid4(), uuid4()]

    async def work(tx: Transaction) -> None:
        await submitting.submit(tx, [TaskSpec(title=f"Task {n}") for n in range(3)], cluster.rules.routes, iter(made).__next__)
        raise NotFound("after the last part", reason="TEST")

    with pytest.raises(NotFound):
        await cluster.run(work)
    assert await cluster.run(lambda tx: tx.tasks(made)) == {}


async def test_a_missing_prerequisite_ends_the_task_at_once(cluster: Cluster) -> None:
    task = await cluster.add(depends_on=(uuid4(),))
    assert (task.status, task.hold_reason) == (TaskStatus.FAILED, "dependency_failed")
    assert await cluster.events() == ["task_failed"]


async def test_a_cancelled_prerequisite_ends_the_whole_chain_behind_it(cluster: Cluster) -> None:
    head = await cluster.add("Head of the chain")
    middle = await cluster.add("Middle of the chain", depends_on=(head.id,))
    tail = await cluster.add("Tail of the chain", depends_on=(middle.id,))
    await cluster.run(lambda tx: cancel_task(tx, head.id, actor="me", reason="", request_id=""))
    assert [(await cluster.task(t.id)).status for t in (head, middle, tail)] == ["cancelled", "failed", "failed"]
    assert (await cluster.task(tail.id)).hold_reason == "dependency_failed"


async def test_one_whose_policy_is_to_wait_outlives_a_failed_prerequisite_and_starts_after_its_better_end(
    cluster: Cluster,
) -> None:
    head = await cluster.add("Head of the chain")
    patient = await cluster.add("Waits for better times", depends_on=(head.id,), dependency_policy=DependencyPolicy.WAIT)
    behind = await cluster.add("Behind the patient one", depends_on=(patient.id,))
    await cluster.run(lambda tx: cancel_task(tx, head.id, actor="me", reason="", request_id=""))
    assert [(await cluster.task(t.id)).status for t in (patient, behind)] == ["queued", "queued"]
    assert (await cluster.task(patient.id)).dependency_policy is DependencyPolicy.WAIT
    said = await cluster.run(lambda tx: explain(tx, cluster.executors, cluster.rules, patient.id))
    assert said.sentence == f"Task {patient.id} waits for prerequisite {head.id} (cancelled) (dependency)."
    assert said.open_prerequisites == ((head.id, TaskStatus.CANCELLED),)
    await cluster.run(lambda tx: requeue_task(tx, head.id, actor="me", reason="", request_id=""))
    assert [order.task_id for order in (await cluster.tick()).orders] == [head.id]
    await cluster.completed(head.id)
    assert [order.task_id for order in (await cluster.tick()).orders] == [patient.id]


async def test_one_whose_policy_is_to_wait_may_come_before_its_prerequisite(cluster: Cluster) -> None:
    later = uuid4()
    patient = await cluster.add(depends_on=(later,), dependency_policy=DependencyPolicy.WAIT)
    said = await cluster.run(lambda tx: explain(tx, cluster.executors, cluster.rules, patient.id))
    assert said.sentence == f"Task {patient.id} waits for prerequisite {later} (does not exist) (dependency)."
    await cluster.run(lambda tx: cancel_task(tx, patient.id, actor="me", reason="", request_id=""))
    back = await cluster.run(lambda tx: requeue_task(tx, patient.id, actor="me", reason="", request_id=""))
    assert (back.status, back.blocked_by) == (TaskStatus.QUEUED, 1), "what does not exist yet is waited for again"
    await cluster.add("The prerequisite", task_id=later)
    await cluster.tick()
    await cluster.completed(later)
    assert [order.task_id for order in (await cluster.tick()).orders] == [patient.id]


async def test_what_depends_on_a_task_is_told_in_any_status_and_counted_beyond_the_limit(cluster: Cluster) -> None:
    head = await cluster.add("Head of them all")
    others = [await cluster.add(f"Depends on it {i}", depends_on=(head.id,)) for i in range(3)]
    await cluster.run(lambda tx: cancel_task(tx, others[0].id, actor="me", reason="", request_id=""))
    ids = sorted(task.id for task in others)
    assert await cluster.run(lambda tx: tx.dependents(head.id, 10)) == (ids, 3)
    assert await cluster.run(lambda tx: tx.dependents(head.id, 2)) == (ids[:2], 3)
    assert await cluster.run(lambda tx: tx.dependents(others[0].id, 2)) == ([], 0)


async def test_a_quarantined_prerequisite_keeps_its_dependents_waiting(cluster: Cluster) -> None:
    bad = await cluster.add("x")
    waiting = await cluster.add(depends_on=(bad.id,))
    await cluster.tick()
    assert (await cluster.task(bad.id)).status is TaskStatus.QUARANTINED
    assert (await cluster.task(waiting.id)).status is TaskStatus.QUEUED


async def test_a_task_that_missed_its_prerequisites_completion_is_found_by_the_housekeeping(cluster: Cluster) -> None:
    first, other = await cluster.add(), await cluster.add(task_type="talk")
    waiting = await cluster.add(depends_on=(first.id, other.id))
    await cluster.tick()
    await cluster.completed(first.id)
    missed = await cluster.task(waiting.id)
    assert missed.blocked_by == 1
    await cluster.run(lambda tx: tx.save_tasks([structs.replace(missed, blocked_by=2, hold_reason=HoldReason.DEPENDENCY)]))
    assert await cluster.run(lambda tx: tx.recount_blocked()) == 1
    assert (await cluster.task(waiting.id)).blocked_by == 1, "the other one is still under way"
    await cluster.completed(other.id)
    assert await cluster.run(lambda tx: tx.recount_blocked()) == 0
    assert [order.task_id for order in (await cluster.tick()).orders] == [waiting.id]


async def test_cancelling_a_live_task_ends_it_with_its_run(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    await cluster.started(task.id)
    after = await cluster.run(lambda tx: cancel_task(tx, task.id, actor="me", reason="enough", request_id=""))
    assert (after.status, after.hold_reason) == (TaskStatus.RUNNING, "cancel_requested")
    await cluster.reported(task.id, outcome=OutcomeClass.CANCELLED, error="cancelled")
    assert (await cluster.task(task.id)).status is TaskStatus.CANCELLED


async def test_a_cancelled_task_is_not_given_back_whatever_ended_its_run(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    await cluster.run(lambda tx: cancel_task(tx, task.id, actor="me", reason="", request_id=""))
    await cluster.lost(task.id)
    assert (await cluster.task(task.id)).status is TaskStatus.CANCELLED


async def test_what_has_ended_well_is_neither_cancelled_nor_requeued(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    await cluster.completed(task.id)
    with pytest.raises(FailedPrecondition):
        await cluster.run(lambda tx: cancel_task(tx, task.id, actor="me", reason="", request_id=""))
    with pytest.raises(FailedPrecondition):
        await cluster.run(lambda tx: requeue_task(tx, task.id, actor="me", reason="", request_id=""))
    with pytest.raises(NotFound):
        await cluster.run(lambda tx: cancel_task(tx, uuid4(), actor="me", reason="", request_id=""))


async def test_an_edit_mends_a_quarantined_task_and_requeues_it(cluster: Cluster) -> None:
    bad = await cluster.add("x")
    await cluster.tick()
    changed = await cluster.run(
        lambda tx: update_task(tx, bad.id, {"title": "A better title", "priority": Priority.P0}, actor="me", request_id="")
    )
    assert (changed.status, changed.error) == (TaskStatus.QUEUED, "")
    assert [order.title for order in (await cluster.tick()).orders] == ["A better title"]


async def test_a_requeued_task_waits_for_its_open_prerequisites_again(cluster: Cluster) -> None:
    first = await cluster.add("First of two")
    second = await cluster.add("Second of two", depends_on=(first.id,))
    await cluster.run(lambda tx: cancel_task(tx, second.id, actor="me", reason="", request_id=""))
    back = await cluster.run(lambda tx: requeue_task(tx, second.id, actor="me", reason="", request_id=""))
    assert (back.blocked_by, back.hold_reason) == (1, "dependency")
    assert (await cluster.task(second.id)).blocked_by == 1
    await cluster.run(lambda tx: cancel_task(tx, first.id, actor="me", reason="", request_id=""))
    with pytest.raises(FailedPrecondition):
        await cluster.run(lambda tx: requeue_task(tx, second.id, actor="me", reason="", request_id=""))


async def test_pages_are_newest_first_and_filtered(cluster: Cluster) -> None:
    tasks = [await cluster.add(f"Task number {i}", priority=Priority.P0 if i % 2 else Priority.P2) for i in range(5)]
    page = await cluster.run(lambda tx: tx.list_tasks(TaskFilter(), None, 2))
    assert [task.id for _, task in page] == [tasks[4].id, tasks[3].id]
    rest = await cluster.run(lambda tx: tx.list_tasks(TaskFilter(), page[-1][0], 10))
    assert [task.id for _, task in rest] == [tasks[2].id, tasks[1].id, tasks[0].id]
    urgent = await cluster.run(lambda tx: tx.list_tasks(TaskFilter(priorities=[Priority.P0]), None, 10))
    assert {task.id for _, task in urgent} == {tasks[1].id, tasks[3].id}
    assert all(task.description == "" for _, task in urgent)


async def test_a_repeated_request_gets_the_first_answer(cluster: Cluster) -> None:
    done = []

    async def work(tx: Transaction) -> bytes:
        done.append(1)
        return b"answer %d" % len(done)

    first = await cluster.run(lambda tx: once(tx, "SubmitTask", "id-1", b"body", work, AS_BYTES))
    second = await cluster.run(lambda tx: once(tx, "SubmitTask", "id-1", b"body", work, AS_BYTES))
    assert first == second == b"answer 1"
    assert await cluster.run(lambda tx: once(tx, "CancelTask", "id-1", b"body", work, AS_BYTES)) == b"answer 2"
    with pytest.raises(AlreadyExists):
        await cluster.run(lambda tx: once(tx, "SubmitTask", "id-1", b"other body", work, AS_BYTES))


async def test_calls_that_share_a_transaction_are_each_carried_out_once(cluster: Cluster) -> None:
    done: list[list[int]] = []

    async def share(*calls: tuple[str, bytes]) -> list[bytes | AlreadyExists]:
        async def work(places: Sequence[int]) -> list[bytes]:
            done.append(list(places))
            return [b"answer to " + calls[place][1] for place in places]

        return await cluster.run(lambda tx: once_each(tx, "SubmitTask", calls, work, AS_BYTES))

    assert await share(("id-1", b"one"), ("", b"two"), ("id-2", b"\x00\xff")) == [
        b"answer to one",
        b"answer to two",
        b"answer to \x00\xff",
    ]
    again = await share(("id-2", b"\x00\xff"), ("", b"two"), ("id-1", b"another"))
    assert again[:2] == [b"answer to \x00\xff", b"answer to two"]
    assert isinstance(again[2], AlreadyExists)
    assert "id-1" in str(again[2])
    assert await share(("id-1", b"one")) == [b"answer to one"]
    assert done == [[0, 1, 2], [1]]
