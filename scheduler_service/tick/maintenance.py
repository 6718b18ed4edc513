"""Housekeeping by the leader: partitions ahead of time, and what its retention is over."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from scheduler_service.errors import StorageUnavailable
from scheduler_service.transactions.ports import Database
from service_runtime.clock import Clock

_log = structlog.get_logger(__name__)

INTERVAL_S = 600.0
EXECUTORS_GONE_S = 24 * 3600.0
BATCH = 1_000


class Maintenance:
    """Keeps the tables in shape while this replica leads."""

    def __init__(self, database: Database, clock: Clock, task_retention: timedelta, event_retention: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._task_retention_ms = int(task_retention.total_seconds() * 1000)
        self._event_retention_ms = int(event_retention.total_seconds() * 1000)

    async def run(self) -> None:
        """Works until cancelled."""
        began = self._clock.monotonic()
        while True:
            # After an outage every executor looks as if it were gone: it is we who have not listened.
            listened = self._clock.monotonic() - began >= EXECUTORS_GONE_S
            try:
                await self.once(forget_executors=listened)
            except StorageUnavailable as error:
                _log.info("maintenance_put_off", error=str(error))
            await asyncio.sleep(INTERVAL_S)

    async def once(self, *, forget_executors: bool = False) -> int:
        """One round in small transactions; returns the rows deleted."""
        await self._database.run(lambda tx: tx.ensure_partitions())
        total = 0
        while True:
            deleted = await self._database.run(lambda tx: tx.purge(self._task_retention_ms, self._event_retention_ms, BATCH))
            total += deleted
            if deleted < BATCH:
                break
            await asyncio.sleep(0.05)
        if forget_executors:
            total += await self._database.run(lambda tx: tx.purge_executors())
        return total
