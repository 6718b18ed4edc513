"""The executors as this replica knows them: from their streams while it leads, else from what the leader stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

from scheduler_service.core.routing import BackendKind
from scheduler_service.core.run import BackendReport, ExecutorReport
from scheduler_service.transactions.ports import Database, Transaction
from scheduler_service.transactions.stored import ExecutorRow

FRESH = timedelta(seconds=15)


class Link(Protocol):
    """An executor's line, as far as it matters here."""

    @property
    def live(self) -> bool: ...
    @property
    def report(self) -> ExecutorReport | None: ...
    @property
    def target(self) -> str: ...


class LeaderView(Protocol):
    """What is asked of this replica's leading."""

    @property
    def leading(self) -> bool: ...
    @property
    def known_links(self) -> Sequence[Link]: ...


class Fleet:
    """Answers from memory while leading, from the database otherwise."""

    def __init__(self, database: Database, leader: LeaderView, targets: Sequence[str]) -> None:
        self._database = database
        self._leader = leader
        self._targets = tuple(targets)

    async def reports(self) -> list[ExecutorReport]:
        """Live executors, those that drain included. Raises StorageUnavailable."""
        if self._leader.leading:
            return [link.report for link in self._leader.known_links if link.live and link.report is not None]
        return [_report(row.snapshot) for row in await self._fresh_rows()]

    async def silent_targets(self) -> list[str]:
        """Configured targets that are not heard. Raises StorageUnavailable."""
        if self._leader.leading:
            return [link.target for link in self._leader.known_links if not link.live]
        heard = {row.target for row in await self._fresh_rows()}
        return [target for target in self._targets if target not in heard]

    async def _fresh_rows(self) -> list[ExecutorRow]:
        async def read(tx: Transaction) -> list[ExecutorRow]:
            return [row for row in await tx.executors() if tx.now - row.last_heard_time <= FRESH]

        return await self._database.run(read, read_only=True)


def _report(snapshot: Any) -> ExecutorReport:
    backends = tuple(
        BackendReport(**{**backend, "kind": BackendKind(backend["kind"]) if backend.get("kind") else None})
        for backend in snapshot["backends"]
    )
    return ExecutorReport(**{**snapshot, "backends": backends})
