"""Carries accepted runs to their finals: begun or taken up again by their backend, journalled, told to who watches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import structlog
from msgspec.structs import replace

from executor_service.core.run import EndReport, RunOutcome, RunRecord, StartReport
from executor_service.errors import JournalError
from executor_service.runs.journal import Journal
from executor_service.runs.ports import Backend
from executor_service.runs.table import RunTable
from executor_service.runs.watching import Watchers
from service_runtime.clock import Clock

_log = structlog.get_logger(__name__)

STOPPING = "the executor stops"
ENDED_ELSEWHERE = "its end was reported to the scheduler, which knows more"


class Carrier:
    """One task a run, in `work` until its final is told. `runs` and `backends` are the manager's.

    `ended_elsewhere`: the ends that the scheduler knows already, by run.
    """

    def __init__(
        self,
        journal: Journal,
        runs: RunTable,
        backends: Mapping[str, Backend],
        watchers: Watchers,
        clock: Clock,
        on_end: Callable[[RunRecord], None],
    ) -> None:
        self._journal = journal
        self._folders = journal.folders
        self._runs = runs
        self._backends = backends
        self._watchers = watchers
        self._clock = clock
        self._on_end = on_end
        self.work: dict[str, asyncio.Task[None]] = {}
        self.ended_elsewhere: dict[str, RunOutcome] = {}
        self._stopping: set[str] = set()

    def begin(self, record: RunRecord, lease_from: int | None) -> None:
        """Begins a run whose lease counts from a stamp; None: takes up one that an earlier process has begun."""
        run_id = record.spec.run_id
        self.work[run_id] = asyncio.get_running_loop().create_task(self._to_its_final(record, lease_from), name=f"run {run_id}")

    async def _to_its_final(self, record: RunRecord, lease_from: int | None) -> None:
        run_id = record.spec.run_id
        try:
            end, now = await self._carry_out(record, lease_from)
            await self._finish(run_id, self._as_known_here(run_id, end), now)
        finally:
            self.work.pop(run_id, None)
            self.ended_elsewhere.pop(run_id, None)

    async def _carry_out(self, record: RunRecord, lease_from: int | None) -> tuple[EndReport, datetime]:
        """The end that the backend gives, tidied, and when it came."""
        spec = record.spec
        backend = self._backends.get(spec.backend)
        reporter = _Reporter(self, spec.run_id)
        try:
            if backend is None:
                end = EndReport(RunOutcome.LOST, error=f"the backend {spec.backend} is not configured any more")
            elif lease_from is None:
                end = await backend.reattach(spec, self._folders.of(spec.run_id), reporter)
            else:
                end = await backend.execute(spec, self._folders.of(spec.run_id), lease_from, reporter)
            now = self._clock.now()
            return end.tidied(now), now
        except Exception as error:  # noqa: BLE001 - a backend is a plug-in; whatever it raises, its run must end
            _log.error("backend_failed", backend=spec.backend, task_id=spec.task_id, run_id=spec.run_id, exc_info=error)
            await self._let_nothing_live(record)
            return EndReport(RunOutcome.LOST, error=f"the backend {spec.backend} broke off"), self._clock.now()

    def _as_known_here(self, run_id: str, end: EndReport) -> EndReport:
        """A cancelled run's end, by what it was cancelled for."""
        if end.outcome is not RunOutcome.CANCELLED:
            return end
        if run_id in self._stopping:
            return replace(end, outcome=RunOutcome.LOST, error=STOPPING)
        recorded = self.ended_elsewhere.get(run_id)
        if recorded is None:
            return end
        return replace(end, outcome=recorded, error="" if recorded is RunOutcome.COMPLETED else ENDED_ELSEWHERE)

    async def _let_nothing_live(self, record: RunRecord) -> None:
        """Before a run is called lost: whoever is told so may start its task elsewhere at once."""
        backend = self._backends.get(record.spec.backend)
        if backend is None:
            return
        try:
            await backend.make_sure_gone(record.spec, self._folders.of(record.spec.run_id))
        except Exception as error:  # noqa: BLE001 - the same plug-in that has just failed
            spec = record.spec
            _log.error("run_not_ended", backend=spec.backend, task_id=spec.task_id, run_id=spec.run_id, exc_info=error)

    def started(self, run_id: str, report: StartReport) -> None:
        """A start verdict is known. Not journalled: after a restart the backend finds it again, or it counts as lost."""
        record = self._runs.get(run_id)
        if record is None or record.start is not None:
            return
        record = record.started(report.tidied(), self._clock.now())
        self._runs.put(record)
        if not report.known_at_end:
            # Else the end comes at once, and says it too.
            self._watchers.publish(record)

    async def _finish(self, run_id: str, end: EndReport, now: datetime) -> None:
        known = self._runs.get(run_id)
        if known is None:
            return
        record = known.ended(end, now)
        try:
            await self._journal.save_final(record)
        except JournalError as error:
            # It is still reported from memory; only a restart before the acknowledgement would look again.
            _log.error("final_not_journalled", task_id=known.spec.task_id, run_id=run_id, error=str(error))
        self._runs.put(record)
        self._watchers.publish(record)
        self._on_end(record)

    async def cancel(self, record: RunRecord, reason: str) -> None:
        """Asks its backend for a run's end."""
        backend = self._backends.get(record.spec.backend)
        if backend is not None:
            await backend.cancel(record.spec, self._folders.of(record.spec.run_id), reason or "cancelled")

    def goes_on_elsewhere(self, record: RunRecord) -> bool:
        """What a bridge has launched cannot be ended: called lost, its task would run twice."""
        backend = self._backends.get(record.spec.backend)
        return backend is not None and backend.ends_by_callback

    def outlives_us(self, record: RunRecord) -> bool:
        """Whether a run goes on without us, so that a stop need not wait for it."""
        backend = self._backends.get(record.spec.backend)
        return backend is not None and backend.outlives_executor

    async def end_as_lost(self, records: Iterable[RunRecord]) -> None:
        """Asks for the ends of runs that are nobody's fault: the executor stops."""
        for record in records:
            self._stopping.add(record.spec.run_id)
            await self.cancel(record, STOPPING)

    async def wait(self, records: Iterable[RunRecord], seconds: float) -> None:
        """Waits for the finals of runs."""
        work = [self.work[record.spec.run_id] for record in records if record.spec.run_id in self.work]
        if work and seconds > 0:
            await asyncio.wait(work, timeout=seconds)

    async def break_off(self) -> None:
        """Lets go of what is still under way; it is taken up again by the next process."""
        for work in list(self.work.values()):
            work.cancel()
        if self.work:
            await asyncio.wait(list(self.work.values()), timeout=2.0)


class _Reporter:
    """Tells the carrier of one run's start verdict."""

    def __init__(self, carrier: Carrier, run_id: str) -> None:
        self._carrier = carrier
        self._run_id = run_id

    def started(self, report: StartReport) -> None:
        self._carrier.started(self._run_id, report)
