"""The audit log, on both stores: each override writes one entry, in its own transaction, with what was before and after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from scheduler_service.core.task import Priority, TaskStatus
from scheduler_service.settings import SchedulerSettings
from scheduler_service.transactions.auditing import AUDITED_METHODS, Caller
from scheduler_service.transactions.bulk_editing import cancel_tasks, requeue_tasks
from scheduler_service.transactions.editing import cancel_task, requeue_task, update_task
from scheduler_service.transactions.overrides import (
    clear_billing_pause,
    reset_breaker,
    set_billing_pause,
    set_budget_cap,
    set_drain,
    trip_breaker,
)
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import AuditEntry, AuditFilter, TaskFilter
from scheduler_service.transactions.tuning import reset_setting, set_setting
from service_runtime.errors import FailedPrecondition
from tests.contract.conftest import Cluster

KEY = "cecelia-run@host-a"
CAP_MS = "OPEN_DURATION_MS"
CONFIGURED = SchedulerSettings().configured()
WHO = Caller("ann (ipv4:127.0.0.1:1)", "maintenance", "a request")
Work = Callable[[Transaction], Awaitable[Any]]


async def entries(cluster: Cluster, **chosen: Any) -> list[AuditEntry]:
    return await cluster.run(lambda tx: tx.audit_entries(AuditFilter(**chosen), None, 100))


QUEUED, CANCELLED = TaskFilter((TaskStatus.QUEUED,)), TaskFilter((TaskStatus.CANCELLED,))


def overrides(cluster: Cluster, task: UUID) -> list[tuple[str, str, Work, dict[str, Any], dict[str, Any]]]:
    """Every override, each on what the ones before have left: its method, target, work, and what is before and after."""
    until = cluster.clock.now() + timedelta(hours=1)
    rules = cluster.rules
    breaker = (cluster.executors, cluster.rules)
    words = {"actor": WHO.actor, "reason": WHO.reason, "request_id": WHO.request_id}
    edited = {"actor": WHO.actor, "request_id": WHO.request_id}
    cancelled = ({"status": "queued", "cancel_requested": "False"}, {"status": "cancelled", "cancel_requested": "False"})
    shown_until = {"until_time": until.isoformat()}
    return [
        ("SetDrain", "deploy", lambda tx: set_drain(tx, True, "deploy", True, WHO), *_pair("enabled", until_idle=True)),
        (
            "SetBillingPause",
            "hk-minimax",
            lambda tx: set_billing_pause(tx, "hk-minimax", until, WHO),
            {"until_time": None},
            shown_until,
        ),
        (
            "SetBillingPause",
            "hk-minimax",
            lambda tx: set_billing_pause(tx, "hk-minimax", until - timedelta(minutes=1), WHO),
            shown_until,
            shown_until,
        ),
        (
            "ClearBillingPause",
            "hk-minimax",
            lambda tx: clear_billing_pause(tx, "hk-minimax", WHO),
            shown_until,
            {"until_time": None},
        ),
        ("SetBudgetCap", "", lambda tx: set_budget_cap(tx, 2, WHO), {"slots": None}, {"slots": 2}),
        (
            "TripBreaker",
            "cecelia-run",
            lambda tx: trip_breaker(tx, "cecelia-run", None, WHO, *breaker),
            {KEY: "CLOSED"},
            {KEY: "OPEN"},
        ),
        ("ResetBreaker", KEY, lambda tx: reset_breaker(tx, KEY, WHO, *breaker), {KEY: "OPEN"}, {KEY: "CLOSED"}),
        (
            "SetSetting",
            CAP_MS,
            lambda tx: set_setting(tx, CAP_MS, 5, WHO, CONFIGURED[CAP_MS], rules),
            {"value": "1800000", "origin": "default"},
            {"value": "5", "origin": "override"},
        ),
        (
            "ResetSetting",
            CAP_MS,
            lambda tx: reset_setting(tx, CAP_MS, WHO, CONFIGURED[CAP_MS], rules),
            {"value": "5", "origin": "override"},
            {"value": "1800000", "origin": "default"},
        ),
        (
            "UpdateTask",
            str(task),
            lambda tx: update_task(tx, task, {"title": "x" * 300, "priority": Priority.P0, "payload": {"a": 1}}, **edited),
            {"status": "queued", "title": "A good title", "priority": "P1", "payload": "{}"},
            {"status": "queued", "title": "x" * 200 + "…", "priority": "P0", "payload": '{"a": 1}'},
        ),
        ("CancelTask", str(task), lambda tx: cancel_task(tx, task, **words), *cancelled),
        ("RequeueTask", str(task), lambda tx: requeue_task(tx, task, **words), {"status": "cancelled"}, {"status": "queued"}),
        ("CancelTasks", "statuses=queued", lambda tx: cancel_tasks(tx, QUEUED, 0, WHO), *_count("queued", "cancelled")),
        ("RequeueTasks", "statuses=cancelled", lambda tx: requeue_tasks(tx, CANCELLED, 0, WHO), *_count("cancelled", "queued")),
    ]


def _count(before: str, after: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"tasks": {before: 1}}, {"tasks": {after: 1}}


def _pair(switch: str, **others: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    return {switch: False, **dict.fromkeys(others, False)}, {switch: True, **others}


async def test_every_override_writes_one_entry(cluster: Cluster) -> None:
    task = await cluster.add()
    done = overrides(cluster, task.id)
    assert {method for method, *_ in done} == set(AUDITED_METHODS)
    for number, (method, target, work, before, after) in enumerate(done, 1):
        cluster.clock.advance(seconds=1)
        await cluster.run(work)
        found = await entries(cluster)
        assert len(found) == number, method
        newest = found[0]
        assert (newest.method, newest.target, newest.actor, newest.request_id) == (method, target, WHO.actor, WHO.request_id)
        assert newest.reason == ("" if method == "UpdateTask" else WHO.reason)
        assert newest.time == cluster.clock.now()
        assert newest.detail == {"before": before, "after": after}, method


async def test_an_override_that_fails_leaves_no_entry(cluster: Cluster) -> None:
    task = await cluster.add()
    with pytest.raises(FailedPrecondition):
        await cluster.run(lambda tx: requeue_task(tx, task.id, actor="ann", reason="", request_id=""))

    async def undone(tx: Transaction) -> None:
        await set_drain(tx, True, "deploy", False, WHO)
        raise KeyError("what comes after it in the same transaction")

    with pytest.raises(KeyError):
        await cluster.run(undone)
    assert await entries(cluster) == []
    assert await cluster.run(lambda tx: tx.drains()) == []


async def test_the_cancellation_of_a_running_task_is_a_wish(cluster: Cluster) -> None:
    task = await cluster.add()
    await cluster.tick()
    await cluster.started(task.id)
    for _ in range(2):
        await cluster.run(lambda tx: cancel_task(tx, task.id, actor="ann", reason="", request_id=""))
    (entry,) = await entries(cluster)
    assert entry.detail["after"] == {"status": "running", "cancel_requested": "True"}


async def test_the_log_is_read_by_page_and_filter(cluster: Cluster) -> None:
    times = []
    for number in range(5):
        times.append(cluster.clock.now())
        who = Caller(f"ann (ipv4:127.0.0.1:{number})" if number % 2 else "ann-marie (peer)", "r", "")
        await cluster.run(lambda tx, who=who, n=number: set_drain(tx, True, f"source {n % 3}", False, who))
        cluster.clock.advance(seconds=1)
    await cluster.run(lambda tx: set_budget_cap(tx, 3, WHO))

    async def found(**chosen: Any) -> list[str]:
        return [entry.target for entry in await entries(cluster, **chosen)]

    assert await found() == ["", "source 1", "source 0", "source 2", "source 1", "source 0"]
    assert await found(method="SetBudgetCap") == [""]
    assert await found(target="source 1") == ["source 1", "source 1"]
    assert await found(actor="ann") == ["", "source 0", "source 1"]
    assert await found(actor="ann (ipv4:127.0.0.1:3)") == ["source 0"]
    assert await found(start_time=times[3]) == ["", "source 1", "source 0"]
    assert await found(end_time=times[1]) == ["source 0"]
    assert await found(start_time=times[1], end_time=times[3], target="source 2") == ["source 2"]
    whole = await entries(cluster)
    first = await cluster.run(lambda tx: tx.audit_entries(AuditFilter(), None, 4))
    rest = await cluster.run(lambda tx: tx.audit_entries(AuditFilter(), first[-1].id, 4))
    assert [*first, *rest] == whole
