"""The end of a bridge's run by callback: recorded once; late, double and foreign ones change nothing and say so."""

from __future__ import annotations

from dataclasses import asdict, replace
from uuid import uuid4

import pytest

from scheduler_service.core.callback import Callback
from scheduler_service.core.run import ExecutorReport, Run
from scheduler_service.core.task import TaskStatus
from scheduler_service.core.verdicts import OutcomeClass
from scheduler_service.transactions.callbacks import CallbackResult, record_callback
from scheduler_service.transactions.stored import ExecutorRow
from service_runtime.errors import FailedPrecondition, NotFound
from tests.contract.conftest import EXECUTOR, Cluster, report


def bridged() -> ExecutorReport:
    """An executor whose local backend is behind an HTTP bridge."""
    own = report()
    return replace(own, backends=tuple(replace(b, ends_by_callback=b.local) for b in own.backends))


async def begun(cluster: Cluster, said: ExecutorReport) -> Run:
    """A run under way on an executor that says this of itself."""
    task = await cluster.add()
    await cluster.tick()
    now = cluster.clock.now()
    row = ExecutorRow(EXECUTOR, "target", "boot", {**asdict(said), "backends": [asdict(b) for b in said.backends]}, now)
    await cluster.run(lambda tx: tx.save_executor(row))
    return await cluster.run_of(task.id)


async def called_back(cluster: Cluster, run: Run, status: str, **changes: object) -> CallbackResult:
    callback = Callback(run.run_id, run.task_id, status, result="the result")
    return await cluster.run(lambda tx: record_callback(tx, replace(callback, **changes), cluster.rules, lambda: 0.5))  # type: ignore[arg-type]


async def test_done_completes_the_task_and_counts_as_a_start(cluster: Cluster) -> None:
    run = await begun(cluster, bridged())
    first = await called_back(cluster, run, "AI Done")
    assert first.recorded is not None
    assert first.status is TaskStatus.COMPLETED
    task = await cluster.task(run.task_id)
    assert (task.status, task.result) == (TaskStatus.COMPLETED, "the result")
    assert await cluster.decisions() == [(True, "", "cecelia-run")]
    again = await called_back(cluster, run, "completed")
    assert (again.recorded, again.status) == (None, TaskStatus.COMPLETED), "the same end once more changes nothing"
    assert await cluster.decisions() == [(True, "", "cecelia-run")]
    assert await cluster.events() == ["task_dispatched", "task_completed"]


async def test_failed_costs_a_try_and_exhausted_quota_none(cluster: Cluster) -> None:
    failed = await begun(cluster, bridged())
    await called_back(cluster, failed, "AI Failed")
    assert (await cluster.task(failed.task_id)).tries == 1
    cluster.clock.advance(minutes=10)
    quota = await begun(cluster, bridged())
    await called_back(cluster, quota, "AI Quota Exhausted")
    assert (await cluster.task(quota.task_id)).status is TaskStatus.QUEUED


@pytest.mark.parametrize("case", ["unknown", "foreign", "late", "not a bridge"])
async def test_what_does_not_fit_changes_nothing_and_says_so(cluster: Cluster, case: str) -> None:
    run = await begun(cluster, report() if case == "not a bridge" else bridged())
    if case == "late":
        await called_back(cluster, run, "AI Done")
    before = await cluster.task(run.task_id), await cluster.run_of(run.task_id), await cluster.decisions()
    reasons = {
        "unknown": ("RUN_NOT_FOUND", {"run_id": uuid4()}),
        "foreign": ("FOREIGN_RUN", {"task_id": uuid4()}),
        "late": ("RUN_ENDED", {}),
        "not a bridge": ("NOT_A_BRIDGE_RUN", {}),
    }
    reason, changes = reasons[case]
    with pytest.raises((NotFound, FailedPrecondition)) as caught:
        await called_back(cluster, run, "AI Failed", **changes)
    assert caught.value.reason == reason
    assert before == (await cluster.task(run.task_id), await cluster.run_of(run.task_id), await cluster.decisions())


async def test_a_callback_for_an_old_run_does_not_touch_the_new_one(cluster: Cluster) -> None:
    old = await begun(cluster, bridged())
    await cluster.lost(old.task_id)
    cluster.clock.advance(minutes=10)
    await cluster.tick()
    assert (await cluster.task(old.task_id)).fence == 2
    with pytest.raises(FailedPrecondition, match="lost"):
        await called_back(cluster, old, "AI Done")
    assert (await cluster.task(old.task_id)).status is TaskStatus.DISPATCHING
    assert (await cluster.run_of(old.task_id)).outcome is not OutcomeClass.COMPLETED
