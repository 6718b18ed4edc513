"""An executor that is a model: its runs live, end, and die with their leases, by a clock that never jumps.

It keeps the executor's side of the contract: a run_id gets the same answer again, orders of an old term or stamp are refused, a run
that was called off unseen is never begun, finals are told until they are acknowledged, and a run dies before its lease is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from scheduler_service.core.run import BackendReport, CancelAnswer, DispatchAnswer, ExecutorReport, RunOrder, RunReport
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict

KILLED_AT = 0.9
STALE_AT = 0.25
"""Shares of a lease: when a run's guard kills it, and when an order is too old to be taken."""


@dataclass(slots=True)
class SimulatedRun:
    """One run. `live`: something of it may be running; `lease_end` in seconds of the clock that never jumps."""

    order: RunOrder
    lease_end: float
    live: bool = True
    report: RunReport = field(init=False)

    def __post_init__(self) -> None:
        self.report = RunReport(self.order.run_id, self.order.task_id, self.order.fence, live=True)

    def tell(self, verdict: StartVerdict | None = None, outcome: OutcomeClass | None = None, **words: object) -> None:
        """What is known of it from now on; an outcome ends it. A verdict that was told stays."""
        first = self.report
        self.live = self.live and outcome is None
        told = {**_as_words(first), **words, "live": self.live}
        self.report = RunReport(
            **{**told, "verdict": first.verdict or verdict, "outcome": first.outcome or outcome}  # type: ignore[arg-type]
        )


def _as_words(report: RunReport) -> dict[str, object]:
    return {name: getattr(report, name) for name in RunReport.__struct_fields__}


class SimulatedExecutor:
    """`reachable`: the scheduler hears it. `slots` is what its load leaves."""

    def __init__(self, name: str, seats: int, max_runs: int, lease_s: float) -> None:
        self.name = name
        self.seats = self.slots = seats
        self.sessions = 0
        self.max_runs = max_runs
        self.lease_s = lease_s
        self.reachable = True
        self.draining = False
        self.sampled = True
        self.configured = True
        self.runs: dict[UUID, SimulatedRun] = {}
        self.answers: dict[UUID, DispatchAnswer] = {}
        self.refused: set[UUID] = set()
        self.term = 0
        self.begun_at = 0.0

    def report(self) -> ExecutorReport:
        """Its snapshot."""
        return ExecutorReport(
            executor_id=self.name,
            boot_id="boot",
            stamp=1,
            draining=self.draining,
            version="1",
            resources_ok=self.slots > 0,
            resources_reason="" if self.sampled else "no_sample",
            max_seats=self.seats,
            physical_capacity=self.seats,
            effective_slots=self.slots if self.sampled else 0,
            max_pressure=0.1,
            headed_sessions=self.sessions,
            backends=(
                BackendReport("cecelia-run", True, self.configured, True, "", "", 0, 0),
                BackendReport("hk-minimax", False, True, True, "", "", self.max_runs, 0),
            ),
        )

    def dispatch(self, order: RunOrder, stamp: float, term: int, now: float, rejection: str) -> DispatchAnswer:
        """Answers one order that counts its lease from `stamp`; `rejection`: the code it is refused with, '' for none."""
        if order.run_id in self.runs:
            return DispatchAnswer(order.run_id, True)
        if order.run_id not in self.answers:
            code = self._refusal(order, stamp, term, now) or rejection
            if not code:
                self.term = max(self.term, term)
                self.runs[order.run_id] = SimulatedRun(order, stamp + self.lease_s)
                return DispatchAnswer(order.run_id, True)
            self.answers[order.run_id] = DispatchAnswer(order.run_id, False, code, f"refused as {code}")
        return self.answers[order.run_id]

    def _refusal(self, order: RunOrder, stamp: float, term: int, now: float) -> str:
        if order.run_id in self.refused:
            return "refused"
        if term < self.term:
            return "stale_term"
        if stamp < self.begun_at or now - stamp > STALE_AT * self.lease_s:
            return "stale_request"
        if self.draining:
            return "draining"
        same_task = any(run.live and run.order.task_id == order.task_id for run in self.runs.values())
        return "already_running" if same_task else ""

    def cancel(self, run_id: UUID) -> CancelAnswer:
        """Ends a run, or refuses it for good when it was never seen."""
        run = self.runs.get(run_id)
        if run is None:
            self.refused.add(run_id)
            self.answers.pop(run_id, None)
            return CancelAnswer.REFUSED
        if run.live:
            run.tell(StartVerdict.NEUTRAL, OutcomeClass.CANCELLED, verdict_reason="cancelled", error="ended on request")
        return CancelAnswer.ENDING

    def renew(self, run_ids: tuple[UUID, ...], stamp: float) -> list[UUID]:
        """Extends leases; returns the runs that it does not know."""
        for run_id in run_ids:
            if run_id in self.runs:
                self.runs[run_id].lease_end = max(self.runs[run_id].lease_end, stamp + self.lease_s)
        return [run_id for run_id in run_ids if run_id not in self.runs]

    def enforce_leases(self, now: float) -> None:
        """Each run's guard kills it before its lease is over."""
        for run in self.runs.values():
            if run.live and now >= run.lease_end - (1 - KILLED_AT) * self.lease_s:
                run.tell(StartVerdict.NEUTRAL, OutcomeClass.LOST, verdict_reason="lost", error="its lease ran out")

    def acknowledge(self, run_ids: list[UUID]) -> None:
        """Forgets runs whose end is stored; they are not begun again."""
        for run_id in run_ids:
            if run_id in self.runs and not self.runs[run_id].live:
                del self.runs[run_id]
                self.refused.add(run_id)

    def lose_everything(self, now: float) -> None:
        """The machine is gone with all that ran on it, and an empty one comes in its place."""
        self.begun_at = now
        self.runs.clear()
        self.answers.clear()
        self.refused.clear()
