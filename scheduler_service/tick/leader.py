"""Leadership of this replica: takes the lease, does the leader's work while it holds, stops it when it cannot be sure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.routing import BackendKind, known_backends
from scheduler_service.core.run import LeaderIdentity
from scheduler_service.errors import NotLeader, StorageUnavailable
from scheduler_service.tick.executor_link import ExecutorLink
from scheduler_service.tick.loop import TickLoop
from scheduler_service.tick.maintenance import Maintenance
from scheduler_service.tick.ports import ExecutorClient, Observer
from scheduler_service.tick.reaper import Reaper
from scheduler_service.transactions.leading import acquire_or_renew, resign
from scheduler_service.transactions.planning import Decision, TickMemory
from scheduler_service.transactions.ports import Database, Transaction
from scheduler_service.transactions.stored import Leadership
from service_runtime.clock import Clock
from service_runtime.lifecycle import kept_going

_log = structlog.get_logger(__name__)


class Leader:
    """One replica's part in leading. `leadership` is the row as it was last seen, None before that.

    `lease_database` is for the lease alone: a renewal that waits for a connection behind the work is a leadership lost.
    """

    def __init__(
        self,
        database: Database,
        clients: Sequence[ExecutorClient],
        rules: DispatchRules,
        clock: Clock,
        observer: Observer,
        *,
        holder: UUID,
        address: str,
        lease: timedelta,
        lease_database: Database,
        maintenance: Maintenance,
    ) -> None:
        self._database = database
        self._lease_database = lease_database
        self._clients = clients
        self._rules = rules
        self._clock = clock
        self._observer = observer
        self._holder = holder
        self._address = address
        self._lease = lease
        self._maintenance = maintenance
        self._trusted_until = 0.0
        self._lease_over_in_s = 0.0
        self._loop: TickLoop | None = None
        self.links: list[ExecutorLink] = []
        self.leadership: Leadership | None = None

    # --- what others ask

    @property
    def leading(self) -> bool:
        """Whether this replica may be sure that it leads: its lease, counted from before it asked, has not run out."""
        return self._loop is not None and self._clock.monotonic() < self._trusted_until

    @property
    def tick_error(self) -> str:
        """What went wrong in the last tick."""
        return self._loop.last_error if self._loop is not None else ""

    @property
    def tick_memory(self) -> TickMemory:
        """What the last tick left for the next; a replica that does not lead knows of none."""
        return self._loop.memory if self._loop is not None else TickMemory()

    def wake(self) -> None:
        """Something may be startable now."""
        if self._loop is not None:
            self._loop.wake()

    def wake_links(self) -> None:
        """A run is to be ended."""
        for link in self.links:
            link.end_soon()

    def compare_soon(self) -> None:
        """A run has ended without its executor's knowing."""
        for link in self.links:
            link.compare_soon()

    @property
    def known_links(self) -> Sequence[ExecutorLink]:
        """The lines to executors; none while this replica does not lead."""
        return self.links

    async def run_tick(self) -> list[Decision]:
        """One tick now. Raises NotLeader, StorageUnavailable."""
        if not self.leading:
            await self._soon_leading()
        if self._loop is None or not self.leading:
            raise NotLeader(self.leadership.address if self.leadership and self.leadership.holder != self._holder else "")
        return await self._loop.run_tick()

    async def _soon_leading(self) -> None:
        """Waits for a leadership that nobody else holds: right after the start it is a matter of one lease."""
        until = self._clock.monotonic() + 2 * self._lease.total_seconds()
        while not self.leading and self._clock.monotonic() < until:
            row = self.leadership
            if row is not None and row.holder not in (None, self._holder) and row.address != self._address:
                return
            await asyncio.sleep(0.05)

    # --- leading

    async def run(self) -> None:
        """Follows and leads until cancelled."""
        while True:
            leadership = await self._ask(None)
            if leadership is not None and leadership.holder == self._holder:
                await self._lead(leadership)
            # A leader that died is replaced as soon as its lease is over, not at the next look.
            await asyncio.sleep(min(self._pause(), max(0.0, self._lease_over_in_s) + random.uniform(0.005, 0.025)))

    def _pause(self) -> float:
        return self._lease.total_seconds() / 3 * random.uniform(0.8, 1.0)

    async def _ask(self, success_time: datetime | None) -> Leadership | None:
        asked_at = self._clock.monotonic()
        self._lease_over_in_s = self._lease.total_seconds()

        async def ask(tx: Transaction) -> tuple[Leadership, float]:
            row = await acquire_or_renew(
                tx, self._holder, self._address, self._lease, tick_success_time=success_time, tick_error=self.tick_error
            )
            return row, (row.lease_until - tx.now).total_seconds() if row.lease_until is not None else 0.0

        try:
            row, self._lease_over_in_s = await self._lease_database.run(ask)
        except StorageUnavailable as error:
            _log.warning("leader_lease_not_asked", error=str(error))
            return None
        self.leadership = row
        if row.holder == self._holder:
            self._trusted_until = asked_at + self._lease.total_seconds()
        return row

    async def _lead(self, leadership: Leadership) -> None:
        try:
            identity = await self._database.run(lambda tx: self._begin(tx, leadership.term))
        except StorageUnavailable as error:
            _log.warning("leadership_not_begun", error=str(error))
            return
        self.links = [
            ExecutorLink(
                client, self._database, self._rules, self._clock, self._observer, self.wake, self._holder, lambda: self.links
            )
            for client in self._clients
        ]
        self._loop = TickLoop(
            self._database,
            self._rules,
            self.links,
            self._clock,
            self._observer,
            self._holder,
            identity,
        )
        self._observer.led(True)
        _log.info("leading", term=identity.term)
        try:
            async with asyncio.TaskGroup() as group:
                reaper = Reaper(self._database, self._rules, self._clock, self._observer, self.wake)
                kept: list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = [
                    ("reaper", reaper.run),
                    ("maintenance", self._maintenance.run),
                    ("tick", self._loop.run),
                    *((f"executor {link.target}", partial(link.run, identity)) for link in self.links),
                ]
                work = [group.create_task(kept_going(name, begin, unless=NotLeader)) for name, begin in kept]
                await self._hold(leadership.term)
                for task in work:
                    task.cancel()
        except* NotLeader:
            _log.warning("leadership_taken_over", term=identity.term)
        finally:
            self._loop = None
            self.links = []
            self._observer.led(False)
            _log.info("not_leading", term=identity.term)

    async def _begin(self, tx: Transaction, term: int) -> LeaderIdentity:
        await tx.ensure_partitions()
        await tx.add_breakers([b.name for b in known_backends(self._rules.backends).values() if b.kind is BackendKind.SHARED])
        return LeaderIdentity(await tx.cluster_id(), term)

    async def _hold(self, term: int) -> None:
        """Renews until the lease is lost, or can no longer be trusted."""
        while True:
            await asyncio.sleep(self._pause())
            renewed = await self._ask(self._tick_success())
            if renewed is not None and (renewed.holder != self._holder or renewed.term != term):
                return
            if self._clock.monotonic() >= self._trusted_until:
                return

    def _tick_success(self) -> datetime | None:
        if self._loop is None or not self._loop.succeeded:
            return None
        self._loop.succeeded = False
        return self._clock.now()

    async def resign(self) -> None:
        """Gives the lease back, so that another replica need not wait for it to run out."""
        try:
            await self._lease_database.run(lambda tx: resign(tx, self._holder))
        except StorageUnavailable as error:
            _log.warning("leader_lease_not_resigned", error=str(error))
