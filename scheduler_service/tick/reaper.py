"""Gives up runs whose lease has certainly run out: by the database's clock and by this replica's own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from uuid import UUID

import structlog

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.errors import StorageUnavailable
from scheduler_service.tick.ports import Observer
from scheduler_service.transactions.leases import has_run_out
from scheduler_service.transactions.ports import Database, Transaction
from scheduler_service.transactions.recording import record_lost
from scheduler_service.transactions.stored import RunLease
from service_runtime.clock import Clock

_log = structlog.get_logger(__name__)

FASTEST_S = 0.2
SLOWEST_S = 10.0


class Reaper:
    """Watches the leases of one leadership.

    A run is given up when its lease is over by the database's time and this replica has seen its renew_seq unchanged for a whole
    lease on its own monotonic clock: a clock that jumps, or an outage, expires nothing by itself.
    """

    def __init__(
        self, database: Database, rules: DispatchRules, clock: Clock, observer: Observer, wake: Callable[[], None]
    ) -> None:
        self._database = database
        self._rules = rules
        self._clock = clock
        self._observer = observer
        self._wake = wake
        self._seen: dict[UUID, tuple[int, float]] = {}

    async def run(self) -> None:
        """Looks until cancelled."""
        pause = min(SLOWEST_S, max(FASTEST_S, self._rules.lease_ttl.total_seconds() / 24))
        while True:
            await asyncio.sleep(pause)
            try:
                await self.look()
            except StorageUnavailable as error:
                # What was seen before an outage says nothing about the time after it.
                self._seen.clear()
                _log.warning("leases_not_looked_at", error=str(error))

    async def look(self) -> list[UUID]:
        """One look; returns the runs that were given up."""
        leases, expired = await self._database.run(self._leases, read_only=True)
        now = self._clock.monotonic()
        seen = {}
        for lease in leases:
            before = self._seen.get(lease.run_id)
            seen[lease.run_id] = before if before is not None and before[0] == lease.renew_seq else (lease.renew_seq, now)
        self._seen = seen
        whole = self._rules.lease_ttl.total_seconds()
        lost = [run_id for run_id in expired if now - seen[run_id][1] >= whole]
        if lost:
            detail = "its lease ran out: its executor was not heard of for too long"
            recorded = await self._database.run(lambda tx: record_lost(tx, lost, detail, self._rules, random.random))
            self._observer.recorded(recorded)
            self._wake()
        return lost

    async def _leases(self, tx: Transaction) -> tuple[list[RunLease], list[UUID]]:
        """The leases of all live runs, and the runs of those that have run out by the database's clock."""
        leases = await tx.live_leases()
        return leases, [lease.run_id for lease in leases if has_run_out(lease, tx.now, self._rules)]
