"""The decisions behind the window: newest first, by each filter, page by page, on both stores."""

from __future__ import annotations

from uuid import uuid4

from scheduler_service.transactions.stored import DispatchEvent, EventFilter
from scheduler_service.transactions.ticking import TickMemory
from tests.contract.conftest import Cluster

FAILED = "executor_failed"


async def listed(cluster: Cluster, chosen: EventFilter, before: int | None = None, limit: int = 100) -> list[DispatchEvent]:
    return await cluster.run(lambda tx: tx.dispatch_events(chosen, before, limit))


async def paged(cluster: Cluster, chosen: EventFilter) -> list[DispatchEvent]:
    """The same, one by one."""
    found: list[DispatchEvent] = []
    while page := await listed(cluster, chosen, found[-1].id if found else None, 1):
        assert not found or page[0].id < found[-1].id, "each page goes on where the one before it ended"
        found += page
    return found


async def test_decisions_are_listed_by_each_filter_alone_and_by_all_together(cluster: Cluster) -> None:
    good, bad, aside = await cluster.add(), await cluster.add(), await cluster.add("x")
    cluster.memory = TickMemory()
    await cluster.tick()
    await cluster.started(good.id)
    await cluster.failed_start(bad.id)
    cluster.clock.advance(minutes=10)
    await cluster.tick()
    await cluster.failed_start(bad.id)
    everything = await listed(cluster, EventFilter())
    told = [(bad.id, FAILED, False), (bad.id, FAILED, False), (good.id, "", True), (aside.id, "pre_flight_check_failed", False)]
    assert [(event.task_id, event.reason, event.success) for event in everything] == told
    for chosen in (
        EventFilter(),
        EventFilter(task_id=bad.id),
        EventFilter(task_id=uuid4()),
        EventFilter(reason=FAILED),
        EventFilter(success=True),
        EventFilter(success=False),
        EventFilter(bad.id, FAILED, False),
        EventFilter(bad.id, FAILED, True),
        EventFilter(good.id, FAILED),
        EventFilter(aside.id, FAILED),
    ):
        wanted = [
            event
            for event in everything
            if chosen.task_id in (None, event.task_id)
            and chosen.reason in ("", event.reason)
            and chosen.success in (None, event.success)
        ]
        assert await listed(cluster, chosen) == wanted
        assert await paged(cluster, chosen) == wanted
