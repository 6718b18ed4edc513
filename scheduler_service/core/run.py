"""A run: one claim of one task, from the claim to its end, and what an executor reports of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from scheduler_service.core.routing import BackendKind
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict


class RunState(StrEnum):
    """What a run is doing, as far as the scheduler knows."""

    DISPATCHING = "dispatching"  # claimed; no executor has said yes or no yet
    ACCEPTED = "accepted"  # journalled by its executor; its start verdict is not known yet
    RUNNING = "running"  # its start succeeded
    ENDED = "ended"


class Run(msgspec.Struct, frozen=True):
    """One claim. `breaker_generation` is that of the claim: outcomes of older generations are ignored by the breaker.

    The order of the fields is that of the columns in `storage/queries/runs.sql`.
    """

    run_id: UUID
    task_id: UUID
    fence: int
    executor_id: str
    backend: str
    breaker_key: str
    breaker_generation: int
    is_probe: bool
    claim_time: datetime
    lease_until: datetime | None
    state: RunState = RunState.DISPATCHING
    verdict: StartVerdict | None = None
    verdict_reason: str = ""
    outcome: OutcomeClass | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: str = ""
    usage: Mapping[str, Any] = msgspec.field(default_factory=dict)
    accept_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    renew_seq: int = 0

    def accepted(self, now: datetime) -> Run:
        """The executor has journalled it. Never moves a run back."""
        if self.state is not RunState.DISPATCHING:
            return self
        return replace(self, state=RunState.ACCEPTED, accept_time=now)

    def judged(self, verdict: StartVerdict, reason: str, now: datetime, start_delay: timedelta | None = None) -> Run:
        """Its start verdict is known; a successful one means that it runs.

        A verdict may come long after the start: where the answer is the work, with the end.
        """
        running = verdict is StartVerdict.SUCCESS
        started = now if start_delay is None else min(now, (self.accept_time or self.claim_time) + start_delay)
        return replace(
            self,
            verdict=verdict,
            verdict_reason=reason,
            state=RunState.RUNNING if running else self.state,
            accept_time=self.accept_time or now,
            start_time=started if running else self.start_time,
        )

    def ended(
        self,
        outcome: OutcomeClass,
        now: datetime,
        *,
        exit_code: int | None = None,
        signal: int | None = None,
        error: str = "",
        usage: Mapping[str, Any] = MappingProxyType({}),
    ) -> Run:
        """It is over."""
        return replace(
            self,
            state=RunState.ENDED,
            outcome=outcome,
            end_time=now,
            exit_code=exit_code,
            signal=signal,
            error=error,
            usage=dict(usage),
        )


def total_usage(runs: Sequence[Run]) -> dict[str, Any]:
    """What runs, newest first, have used in all: numbers are summed, anything else is the newest's."""
    total: dict[str, Any] = {}
    for run in runs:
        for name, figure in run.usage.items():
            if name not in total:
                total[name] = figure
            elif _is_number(figure) and _is_number(total[name]):
                total[name] += figure
    return total


def _is_number(figure: Any) -> bool:
    return isinstance(figure, int | float) and not isinstance(figure, bool)


class RunReport(msgspec.Struct, frozen=True):
    """What an executor says of a run. `verdict` and `outcome` are None until they are known.

    `start_delay`: how long after its acceptance it started, by the executor's clock.
    """

    run_id: UUID
    task_id: UUID
    fence: int
    live: bool
    verdict: StartVerdict | None = None
    verdict_reason: str = ""
    verdict_detail: str = ""
    outcome: OutcomeClass | None = None
    exit_code: int | None = None
    signal: int | None = None
    result: str = ""
    error: str = ""
    error_class: str = ""
    retry_time: datetime | None = None
    usage: Mapping[str, Any] = msgspec.field(default_factory=dict)
    start_delay: timedelta | None = None


@dataclass(frozen=True, slots=True)
class BackendReport:
    """One backend of an executor. `max_runs` 0: no limit besides the machine's slots. `kind` None: the executor does not know.

    `ends_by_callback`: the ends of its runs come by the bridge's callback, not from the executor.
    """

    backend: str
    local: bool
    configured: bool
    available: bool
    reason: str
    detail: str
    max_runs: int
    running: int
    ends_by_callback: bool = False
    kind: BackendKind | None = None


@dataclass(frozen=True, slots=True)
class ExecutorReport:
    """An executor's snapshot: its capacity and backends, with the boot and the stamp that leases count from."""

    executor_id: str
    boot_id: str
    stamp: int
    draining: bool
    version: str
    resources_ok: bool
    resources_reason: str
    max_seats: int
    physical_capacity: int
    effective_slots: int
    max_pressure: float
    headed_sessions: int
    backends: Sequence[BackendReport] = ()
    admission_slots: int | None = None  # an executor that does not tell has no more to say than effective_slots
    admission_reason: str = ""


class RunOrder(msgspec.Struct, frozen=True):
    """What an executor is sent to start a run."""

    run_id: UUID
    task_id: UUID
    fence: int
    executor_id: str
    backend: str
    title: str
    description: str
    task_type: str
    payload: Mapping[str, Any]
    timeout: timedelta
    skill: str
    permission_mode: str
    model: str
    provider: str


class DispatchAnswer(msgspec.Struct, frozen=True):
    """An executor's answer to one order: accepted, or rejected with the executor's own code."""

    run_id: UUID
    accepted: bool
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LeaderIdentity:
    """What every mutating call to an executor carries."""

    cluster_id: UUID
    term: int


@dataclass(frozen=True, slots=True)
class Stamp:
    """An executor's own boot and clock, as it last sent them; leases count from it. `stamp` in nanoseconds."""

    boot_id: str
    stamp: int


@dataclass(frozen=True, slots=True)
class ReplayEnd:
    """Every running and unacknowledged run has been reported on this opening of the stream."""

    runs: int


WatchMessage = ExecutorReport | RunReport | ReplayEnd
"""What an executor's stream carries."""


@dataclass(frozen=True, slots=True)
class RenewAnswer:
    """`unknown`: named runs that the executor does not know; `unnamed`: live runs of our cluster that were not named."""

    unknown: tuple[UUID, ...]
    unnamed: tuple[UUID, ...]


class CancelAnswer(StrEnum):
    """What an executor says to CancelRun."""

    ENDING = "ending"  # its end will be reported, or has been
    REFUSED = "refused"  # never seen, and never to be begun
