"""What the leader's work needs besides a database: executors to talk to, and somebody to tell what happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from scheduler_service.core.breaker import Breaker
from scheduler_service.core.run import (
    CancelAnswer,
    DispatchAnswer,
    LeaderIdentity,
    RenewAnswer,
    RunOrder,
    Stamp,
    WatchMessage,
)
from scheduler_service.core.verdicts import OutcomeClass
from scheduler_service.transactions.recording import Recorded
from scheduler_service.transactions.ticking import TickResult


class ExecutorClient(Protocol):
    """One executor. Every call has a deadline; every call raises ExecutorUnreachable when no answer came."""

    @property
    def target(self) -> str:
        """Its gRPC target."""
        ...

    def watch(self, identity: LeaderIdentity) -> AsyncIterator[Sequence[WatchMessage]]:
        """What it says, as much at a time as has gathered there."""
        ...

    async def dispatch(
        self, identity: LeaderIdentity, orders: Sequence[RunOrder], stamp: Stamp, lease_ttl: timedelta
    ) -> list[DispatchAnswer]: ...

    async def acknowledge(self, identity: LeaderIdentity, run_ids: Sequence[UUID]) -> None: ...

    async def renew(
        self,
        identity: LeaderIdentity,
        run_ids: Sequence[UUID],
        end_runs: Sequence[UUID],
        stamp: Stamp,
        lease_ttl: timedelta,
    ) -> RenewAnswer: ...

    async def cancel_run(
        self, identity: LeaderIdentity, run_id: UUID, reason: str, recorded: OutcomeClass | None = None
    ) -> CancelAnswer:
        """`recorded` is how the run is known to have ended, if it is."""
        ...


class Observer(Protocol):
    """Is told what happened, after it was committed."""

    def ticked(self, seconds: float, result: TickResult) -> None: ...
    def tick_failed(self) -> None: ...
    def recorded(self, recorded: Recorded) -> None: ...
    def breakers_moved(self, breakers: Iterable[Breaker]) -> None: ...
    def drains_ended(self, took: Iterable[timedelta]) -> None: ...
    def led(self, leading: bool) -> None: ...
