"""Housekeeping by the leader: partitions ahead of time, and what its retention is over."""

from __future__ import annotations

import asyncio

import structlog

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.errors import StorageUnavailable
from scheduler_service.transactions.gathering import MILLISECOND, rules_in_force
from scheduler_service.transactions.ports import Database, Transaction
from service_runtime.clock import Clock

_log = structlog.get_logger(__name__)

INTERVAL_S = 600.0
EXECUTORS_GONE_S = 24 * 3600.0
BATCH = 1_000


class Maintenance:
    """Keeps the tables in shape while this replica leads. `rules` are those of the environment."""

    def __init__(self, database: Database, clock: Clock, rules: DispatchRules) -> None:
        self._database = database
        self._clock = clock
        self._rules = rules

    async def run(self) -> None:
        """Works until cancelled."""
        began = self._clock.monotonic()
        while True:
            # After an outage every executor looks as if it were gone: it is we who have not listened.
            listened = self._clock.monotonic() - began >= EXECUTORS_GONE_S
            try:
                await self.once(forget_executors=listened)
            except StorageUnavailable as error:
                _log.warning("maintenance_put_off", error=str(error))
            await asyncio.sleep(INTERVAL_S)

    async def once(self, *, forget_executors: bool = False) -> int:
        """One round in small transactions; returns the rows deleted."""
        await self._database.run(lambda tx: tx.ensure_partitions())
        mended = await self._database.run(lambda tx: tx.recount_blocked())
        if mended:
            _log.warning("waiting_tasks_mended", tasks=mended)
        total = 0
        while True:
            deleted = await self._database.run(self._purge)
            total += deleted
            if deleted < BATCH:
                break
            await asyncio.sleep(0.05)
        if forget_executors:
            total += await self._database.run(lambda tx: tx.purge_executors())
        if total >= BATCH:
            # Left to autovacuum, ticks would read past them until it comes.
            await self._database.vacuum()
        return total

    async def _purge(self, tx: Transaction) -> int:
        rules = await rules_in_force(tx, self._rules)
        retentions = (rules.task_retention, rules.event_retention, rules.audit_retention)
        tasks, events, audit = (retention // MILLISECOND for retention in retentions)
        return await tx.purge(tasks, events, audit, BATCH)
