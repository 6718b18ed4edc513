"""Backends that no scheduler has heard of before: gates, breakers, slots and statistics treat them as their own, on both stores."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from scheduler_service.core.breaker import BreakerState
from scheduler_service.core.routing import DEFAULT_ROUTES, BackendKind
from scheduler_service.core.run import BackendReport, ExecutorReport
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict
from scheduler_service.rpc.conversions import set_slots
from scheduler_service.transactions.gathering import breaker_keys_of
from scheduler_service.transactions.overrides import list_breakers, reset_breaker, trip_breaker
from scheduler_service.transactions.reading import explain, read_slots, read_stats, read_task_and_usage
from tests.contract.conftest import CALLER, Cluster, report

ROUTES = {**DEFAULT_ROUTES, "sweep": "gpu"}


def with_gpu(
    executor_id: str = "host-a",
    kind: BackendKind | None = BackendKind.SHARED,
    *,
    local: bool = False,
    max_runs: int = 2,
    configured: bool = True,
    detail: str = "",
    slots: int | None = None,
) -> ExecutorReport:
    own = report(executor_id, slots=slots)
    gpu = BackendReport(
        "gpu", local, configured, configured, "" if configured else "config_error", detail, max_runs, 0, False, kind
    )
    return replace(own, backends=(*own.backends, gpu))


async def routed(cluster: Cluster, *executors: ExecutorReport, sweeps: int = 0) -> None:
    cluster.rules = replace(cluster.rules, routes=ROUTES)
    cluster.executors = executors
    for executor in executors:
        await cluster.run(lambda tx, own=executor: tx.add_breakers(breaker_keys_of(own, cluster.rules)))  # type: ignore[misc]
    for i in range(sweeps):
        await cluster.add(f"A sweep number {i}", task_type="sweep")


async def states(cluster: Cluster) -> dict[str, BreakerState]:
    _, found = await cluster.run(lambda tx: list_breakers(tx, cluster.executors, cluster.rules))
    return {key: breaker.state for key, breaker in found.items() if key.startswith("gpu")}


async def test_its_own_limit_fills_and_local_load_does_not_concern_it(cluster: Cluster) -> None:
    await routed(cluster, with_gpu("host-a", slots=0), with_gpu("host-b", slots=0), sweeps=5)
    assert sorted(order.executor_id for order in (await cluster.tick()).orders) == ["host-a", "host-a", "host-b", "host-b"]
    await cluster.tick()
    assert (await cluster.decisions())[-1] == (False, "pool_c_full", "gpu")
    view = await cluster.run(lambda tx: read_slots(tx, cluster.executors, cluster.rules))
    (gpu,) = (facts for facts in view.facts.gates.backends if facts.backend == "gpu")
    assert (gpu.local, gpu.max_runs, gpu.running) == (False, 4, 4)


async def test_a_local_one_is_bound_by_slots_and_by_its_own_limit(cluster: Cluster) -> None:
    await routed(cluster, with_gpu(local=True, max_runs=2), sweeps=3)
    assert len((await cluster.tick()).orders) == 2
    await cluster.tick()
    assert (await cluster.decisions())[-1] == (False, "pool_c_full", "gpu")
    view = await cluster.run(lambda tx: read_slots(tx, cluster.executors, cluster.rules))
    slots = pb.GetSlotsResponse()
    set_slots(slots, view, cluster.executors)
    (gpu,) = (one for one in slots.backends if one.backend == "gpu")
    assert (gpu.local, gpu.budget, gpu.used) == (True, 2, 2)
    cluster.executors = (with_gpu(local=True, max_runs=9, slots=0),)
    await cluster.tick()
    assert (await cluster.decisions())[-1] == (False, "pool_exhausted", "gpu")


async def test_its_runs_take_slots_from_other_local_ones(cluster: Cluster) -> None:
    cluster.rules = replace(cluster.rules, interactive_reserve=0)
    await routed(cluster, with_gpu(local=True, max_runs=0, slots=3), sweeps=2)
    assert len((await cluster.tick()).orders) == 2
    for i in range(3):
        await cluster.add(f"A local task {i}")
    assert [order.backend for order in (await cluster.tick()).orders] == ["cecelia-run"]


async def test_a_shared_one_has_one_breaker(cluster: Cluster) -> None:
    await routed(cluster, with_gpu("host-a"), with_gpu("host-b"), sweeps=4)
    assert await states(cluster) == {"gpu": BreakerState.CLOSED}
    for order in (await cluster.tick()).orders[:3]:
        await cluster.failed_start(order.task_id)
    assert await states(cluster) == {"gpu": BreakerState.OPEN}
    await cluster.tick()
    assert (await cluster.decisions())[-1] == (False, "circuit_breaker_open", "gpu")
    cluster.executors = ()
    assert await states(cluster) == {"gpu": BreakerState.OPEN}, "what it was is remembered while nobody has it"
    await cluster.run(lambda tx: reset_breaker(tx, "gpu", CALLER, cluster.executors, cluster.rules))
    assert await states(cluster) == {"gpu": BreakerState.CLOSED}


async def test_one_for_each_executor_has_a_breaker_on_each(cluster: Cluster) -> None:
    kind = BackendKind.PER_EXECUTOR
    await routed(cluster, with_gpu("host-a", kind, max_runs=3), sweeps=3)
    for order in (await cluster.tick()).orders:
        await cluster.failed_start(order.task_id)
    await routed(cluster, with_gpu("host-a", kind), with_gpu("host-b", kind), sweeps=1)
    assert await states(cluster) == {
        "gpu": BreakerState.CLOSED,
        "gpu@host-a": BreakerState.OPEN,
        "gpu@host-b": BreakerState.CLOSED,
    }
    cluster.clock.advance(minutes=6)
    assert {order.executor_id for order in (await cluster.tick()).orders} == {"host-b"}
    await cluster.run(lambda tx: trip_breaker(tx, "gpu", timedelta(hours=1), CALLER, cluster.executors, cluster.rules))
    assert set((await states(cluster)).values()) == {BreakerState.OPEN}


async def test_a_route_to_what_nobody_has_is_held_and_says_what_there_is(cluster: Cluster) -> None:
    await routed(cluster, report("host-a"), sweeps=1)
    await cluster.tick()
    assert await cluster.decisions() == [(False, "no_executor", "gpu")]
    said = await cluster.run(lambda tx: explain(tx, cluster.executors, cluster.rules, None))
    assert "host-a has cecelia-run, hk-minimax" in said.sentence
    assert await states(cluster) == {"gpu": BreakerState.CLOSED}


async def test_tasks_of_a_route_that_was_taken_away_are_not_forgotten(cluster: Cluster) -> None:
    await routed(cluster, with_gpu(), sweeps=3)
    cluster.rules = replace(cluster.rules, routes=DEFAULT_ROUTES)
    assert [order.backend for order in (await cluster.tick()).orders] == ["gpu", "gpu"], "its executor is still there"
    cluster.executors = (report(),)
    await cluster.tick()
    assert (await cluster.decisions())[-1] == (False, "no_executor", "gpu")


async def test_a_broken_one_is_config_error_and_no_breaker_hears_of_it(cluster: Cluster) -> None:
    words = "ModuleNotFoundError: No module named 'torch'"
    await routed(cluster, with_gpu(kind=None, configured=False, detail=words), sweeps=1)
    local = await cluster.add("A local task")
    result = await cluster.tick()
    assert [order.task_id for order in result.orders] == [local.id]
    assert [(d.reason, d.detail, d.backend) for d in result.decisions] == [("config_error", f"host-a: {words}", "gpu")]
    assert await states(cluster) == {"gpu": BreakerState.CLOSED}
    assert (await cluster.run(lambda tx: read_stats(tx, cluster.rules))).attempts.total == 0


async def test_what_it_used_is_summed_over_the_runs_of_the_task(cluster: Cluster) -> None:
    await routed(cluster, with_gpu(), sweeps=1)
    (order,) = (await cluster.tick()).orders
    assert (await cluster.run(lambda tx: read_task_and_usage(tx, order.task_id)))[1] == {}
    ends = [
        (OutcomeClass.FAILED, {"tokens": 7, "model": "a"}),
        (OutcomeClass.COMPLETED, {"tokens": 5, "model": "b", "seconds": 1.5}),
    ]
    for outcome, usage in ends:
        await cluster.reported(order.task_id, verdict=StartVerdict.SUCCESS, outcome=outcome, usage=usage)
        cluster.clock.advance(minutes=10)
        await cluster.tick()
    task, usage = await cluster.run(lambda tx: read_task_and_usage(tx, order.task_id))
    assert (task.fence, usage) == (2, {"tokens": 12, "model": "b", "seconds": 1.5})


async def test_an_answer_that_is_the_work_has_taken_its_time(cluster: Cluster) -> None:
    await routed(cluster, with_gpu(), sweeps=1)
    (order,) = (await cluster.tick()).orders
    await cluster.answered(order.task_id, True)
    accepted = cluster.clock.now()
    cluster.clock.advance(seconds=40)
    await cluster.reported(order.task_id, verdict=StartVerdict.SUCCESS, outcome=OutcomeClass.COMPLETED, start_delay=timedelta(0))
    task, run = await cluster.task(order.task_id), await cluster.run_of(order.task_id)
    assert (task.start_time, task.end_time) == (accepted, accepted + timedelta(seconds=40))
    assert (run.start_time, run.end_time) == (task.start_time, task.end_time)


async def test_a_start_is_never_later_than_its_verdict(cluster: Cluster) -> None:
    await routed(cluster, with_gpu(), sweeps=1)
    (order,) = (await cluster.tick()).orders
    cluster.clock.advance(seconds=5)
    await cluster.reported(order.task_id, verdict=StartVerdict.SUCCESS, start_delay=timedelta(hours=1))
    assert (await cluster.task(order.task_id)).start_time == cluster.clock.now()
