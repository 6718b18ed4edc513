"""An executor that answers as it is told, behind `tick.ports.ExecutorClient`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from uuid import UUID

from scheduler_service.core.run import (
    CancelAnswer,
    DispatchAnswer,
    LeaderIdentity,
    RenewAnswer,
    ReplayEnd,
    RunOrder,
    RunReport,
    Stamp,
    WatchMessage,
)
from scheduler_service.core.verdicts import OutcomeClass
from scheduler_service.errors import ExecutorUnreachable


class ScriptedExecutor:
    """`news` is what its stream says next; `answer` decides each order; everything asked is kept."""

    def __init__(self) -> None:
        self.target = "scripted:1"
        self.news: asyncio.Queue[WatchMessage | None] = asyncio.Queue()
        self.answer: Callable[[RunOrder], DispatchAnswer] = lambda order: DispatchAnswer(order.run_id, True)
        self.reachable = True
        self.ordered: list[RunOrder] = []
        self.acknowledged: list[UUID] = []
        self.cancelled: list[UUID] = []
        self.known: set[UUID] = set()
        self.let_go_as: dict[UUID, OutcomeClass] = {}
        self.openings = 0
        self.renewed: list[UUID] = []

    async def watch(self, identity: LeaderIdentity) -> AsyncIterator[Sequence[WatchMessage]]:
        self.openings += 1
        while True:
            message = await self.news.get()
            if message is None:
                raise ExecutorUnreachable("the stream breaks off, as told")
            yield [message]

    async def dispatch(
        self, identity: LeaderIdentity, orders: Sequence[RunOrder], stamp: Stamp, lease_ttl: timedelta
    ) -> list[DispatchAnswer]:
        self.ordered += orders
        if not self.reachable:
            raise ExecutorUnreachable("as told")
        return [self.answer(order) for order in orders]

    async def acknowledge(self, identity: LeaderIdentity, run_ids: Sequence[UUID]) -> None:
        self.acknowledged += run_ids

    async def renew(
        self, identity: LeaderIdentity, run_ids: Sequence[UUID], end_runs: Sequence[UUID], stamp: Stamp, lease_ttl: timedelta
    ) -> RenewAnswer:
        self.renewed += run_ids
        unnamed = self.known - {*run_ids, *end_runs, *self.cancelled}
        return RenewAnswer(tuple(id_ for id_ in run_ids if id_ not in self.known), tuple(unnamed))

    async def cancel_run(
        self, identity: LeaderIdentity, run_id: UUID, reason: str, recorded: OutcomeClass | None = None
    ) -> CancelAnswer:
        self.cancelled.append(run_id)
        if recorded is not None:
            self.let_go_as[run_id] = recorded
        return CancelAnswer.ENDING if run_id in self.known else CancelAnswer.REFUSED

    def break_off(self) -> None:
        """The stream ends; the link opens it anew."""
        self.news.put_nowait(None)

    def replay(self, *reports: RunReport) -> None:
        """What a fresh stream begins with, after its snapshot."""
        for report in reports:
            self.news.put_nowait(report)
        self.news.put_nowait(ReplayEnd(len(reports)))
