"""Runs from their acceptance to their acknowledgement.

A run is journalled before it is accepted, begun by its backend, reported to whoever watches, and kept until its final is
acknowledged, over a restart too. Nothing is queued here: what cannot begin at once is rejected.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import structlog

from executor_service.core.run import EndReport, RunOutcome, RunRecord, RunSpec, RunState, StartReport
from executor_service.errors import BackendError, JournalError
from executor_service.runs.door import Answer, CallerIdentity, Door
from executor_service.runs.journal import Journal
from executor_service.runs.output import read_output
from executor_service.runs.ports import Backend, Resources
from executor_service.runs.table import RunTable
from executor_service.runs.watching import Watchers
from service_runtime.clock import Clock

_log = structlog.get_logger(__name__)
T = TypeVar("T")

DISK_THREADS = 4
UNCUT_S = 5.0
KNOWN_MAX = 10_000
STOPPING = "the executor stops"
ENDED_ELSEWHERE = "its end was reported to the scheduler, which knows more"


class StaleTerm(Exception):
    """A leader with a higher term has called before."""


class RunManager:
    """Every run of this executor. `now_stamp` gives CLOCK_BOOTTIME in nanoseconds.

    `make_backend` makes one that is not offered, for runs that are still there of a time when it was.
    """

    def __init__(
        self,
        journal: Journal,
        backends: Mapping[str, Backend],
        resources: Resources,
        clock: Clock,
        *,
        boot_id: str,
        now_stamp: Callable[[], int],
        on_end: Callable[[RunRecord], None] = lambda _record: None,
        make_backend: Callable[[str], Backend | None] = lambda _name: None,
    ) -> None:
        self._journal = journal
        self.backends = dict(backends)
        self._make_backend = make_backend
        self.resources = resources
        self._clock = clock
        self.boot_id = boot_id
        self.now_stamp = now_stamp
        self._on_end = on_end
        self.watchers = Watchers()
        self._runs = RunTable()
        self._rejected: dict[str, Answer] = {}
        self._acknowledged: dict[str, None] = {}
        self._refused: set[str] = set()
        self.door = Door(self._runs, self._refused, self.backends, resources, boot_id, now_stamp)
        self._terms: dict[str, int] = {}
        self._work: dict[str, asyncio.Task[None]] = {}
        self._uncut: set[asyncio.Task[Any]] = set()
        self._disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="journal")
        self._stopping: set[str] = set()
        self._ended_elsewhere: dict[str, RunOutcome] = {}
        self._one_at_a_time = asyncio.Lock()

    # --- start

    def load(self) -> None:
        """Takes the journal up again: runs that live are found again, or known to be lost. Raises JournalError."""
        self._terms = self._journal.terms()
        self._refused |= self._journal.refused()
        for record, acknowledged in self._journal.load():
            self._runs.put(record)
            if acknowledged:
                self._acknowledged[record.spec.run_id] = None
            if record.live:
                self._look_after(record.spec.backend)
                self._begin(record, None)

    def _look_after(self, name: str) -> None:
        """A backend that is not offered any more is still needed for its runs: they may go on, and must not be called lost."""
        if name not in self.backends and (made := self._make_backend(name)) is not None:
            self.backends[name] = made
            self.door.not_offered.add(name)

    # --- what is known

    def record(self, run_id: str) -> RunRecord | None:
        """One run; a refused one has no record."""
        return self._runs.get(run_id)

    def is_refused(self, run_id: str) -> bool:
        """Whether a run is refused for good."""
        return run_id in self._refused

    def records(self, *, live_only: bool = False) -> list[RunRecord]:
        """Every known run, newest first, at most 10,000."""
        chosen = self._runs.live if live_only else self._runs
        return sorted(chosen, key=lambda record: record.accept_time, reverse=True)[:KNOWN_MAX]

    def output(self, run_id: str, offset: int, *, tail_bytes: int = 0, follow: bool) -> AsyncGenerator[tuple[int, bytes], None]:
        """The output of a known run from a byte on: see runs/output.py."""

        def live() -> bool:
            record = self._runs.get(run_id)
            return record is not None and record.live

        return read_output(self._journal.run_dir(run_id), offset, live, tail_bytes=tail_bytes, follow=follow)

    def open_records(self, cluster_id: str) -> list[RunRecord]:
        """Every running and unacknowledged run of a cluster ('': of all)."""
        return [
            record
            for record in self._runs
            if record.spec.run_id not in self._acknowledged and cluster_id in ("", record.spec.cluster_id)
        ]

    def local_run_dirs(self) -> dict[str, Path]:
        """The folders of the live local runs, by run id."""
        return {run.run_id: self._journal.run_dir(run.run_id) for run in self.door.local_runs()}

    # --- dispatch

    async def dispatch(self, specs: Sequence[RunSpec], caller: CallerIdentity) -> list[Answer]:
        """Accepts or rejects each run, in the order given. Accepted means durable in the journal. Raises JournalError.

        The same run_id gets the same answer: a delivery that was on its way for long must not be let in after it was refused.
        """
        return await self._to_its_end(self._dispatch(specs, caller))

    async def _dispatch(self, specs: Sequence[RunSpec], caller: CallerIdentity) -> list[Answer]:
        async with self._one_at_a_time:
            try:
                await self._note_term(caller)
            except StaleTerm as error:
                return [Answer(spec.run_id, False, "stale_term", str(error)) for spec in specs]
            answers: dict[str, Answer] = {}
            let_in = RunTable()
            for spec in specs:
                if spec.run_id in answers:
                    continue
                answer = answers[spec.run_id] = self._rejected.get(spec.run_id) or self.door.decide(spec, caller, let_in)
                if answer.accepted and spec.run_id not in self._runs:
                    let_in.put(RunRecord(spec, RunState.ACCEPTED, self._clock.now()))
            failed = await self._in_thread(self._write_down, let_in.live) if let_in.live else {}
            for run_id, detail in failed.items():
                answers[run_id] = Answer(run_id, False, "config_error", detail)
            lease_from = caller.stamp or self.now_stamp()
            for record in let_in.live:
                if record.spec.run_id not in failed:
                    self._runs.put(record)
                    self.watchers.publish(record)
                    self._begin(record, lease_from)
            self._remember_rejections(answers.values())
            first = {spec.run_id: spec for spec in reversed(specs)}
            other = Answer("", False, "config_error", "another run of this batch has this run_id")
            return [answers[spec.run_id] if first[spec.run_id] == spec else replace(other, run_id=spec.run_id) for spec in specs]

    def _remember_rejections(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            if not answer.accepted and answer.run_id not in self._runs:
                self._rejected[answer.run_id] = answer
        while len(self._rejected) > KNOWN_MAX:
            del self._rejected[next(iter(self._rejected))]

    def _write_down(self, records: Iterable[RunRecord]) -> dict[str, str]:
        """Journals runs, all or (JournalError) none; what a backend cannot prepare is returned with the reason."""
        failed: dict[str, str] = {}
        made: list[str] = []
        try:
            for record in records:
                spec = record.spec
                made.append(spec.run_id)
                try:
                    self.backends[spec.backend].prepare(spec, self._journal.new_run(spec.run_id))
                    self._journal.add(record)
                except BackendError as error:
                    failed[spec.run_id] = str(error)
                    self._journal.remove([made.pop()])
                except OSError as error:
                    raise JournalError(f"run {spec.run_id} cannot be prepared: {error.strerror}") from error
            self._journal.sync()
        except BaseException:
            self._journal.remove(made)
            raise
        return failed

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Carries work out whole, also when its caller goes away: half a journal entry must not be left behind."""
        task = asyncio.get_running_loop().create_task(work)
        self._uncut.add(task)
        task.add_done_callback(self._uncut.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_look_at_its_error)
            raise

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Work on the disk, in threads of our own: name look-ups that hang fill the event loop's."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, partial(work, *arguments))

    async def note_term(self, caller: CallerIdentity) -> None:
        """Remembers the highest term of a cluster. Raises StaleTerm for a lower one, JournalError."""
        if caller.cluster_id and caller.term != self._terms.get(caller.cluster_id):
            await self._to_its_end(self._note_new_term(caller))

    async def _note_new_term(self, caller: CallerIdentity) -> None:
        async with self._one_at_a_time:
            await self._note_term(caller)

    async def _note_term(self, caller: CallerIdentity) -> None:
        if not caller.cluster_id:
            return
        highest = self._terms.get(caller.cluster_id, 0)
        if caller.term < highest:
            raise StaleTerm(f"term {caller.term} is over; the leader's term is {highest}")
        if caller.term > highest:
            terms = {**self._terms, caller.cluster_id: caller.term}
            await self._in_thread(self._journal.save_terms, terms)
            self._terms = terms

    # --- a run's life

    def _begin(self, record: RunRecord, lease_from: int | None) -> None:
        run_id = record.spec.run_id
        work = asyncio.get_running_loop().create_task(self._carry_out(record, lease_from), name=f"run {run_id}")
        self._work[run_id] = work
        work.add_done_callback(lambda _task: self._carried_out(run_id))

    def _carried_out(self, run_id: str) -> None:
        self._work.pop(run_id, None)
        self._ended_elsewhere.pop(run_id, None)

    async def _carry_out(self, record: RunRecord, lease_from: int | None) -> None:
        spec = record.spec
        backend = self.backends.get(spec.backend)
        folder = self._journal.run_dir(spec.run_id)
        reporter = _Reporter(self, spec.run_id)
        try:
            if backend is None:
                end = EndReport(RunOutcome.LOST, error=f"the backend {spec.backend} is not configured any more")
            elif lease_from is None:
                end = await backend.reattach(spec, folder, reporter)
            else:
                end = await backend.execute(spec, folder, lease_from, reporter)
        except Exception as error:  # noqa: BLE001 - a backend is a plug-in; whatever it raises, its run must end
            _log.error("backend_failed", backend=spec.backend, task_id=spec.task_id, run_id=spec.run_id, exc_info=error)
            await self._let_nothing_live(record)
            end = EndReport(RunOutcome.LOST, error=f"the backend {spec.backend} broke off")
        if spec.run_id in self._stopping and end.outcome is RunOutcome.CANCELLED:
            end = replace(end, outcome=RunOutcome.LOST, error=STOPPING)
        recorded = self._ended_elsewhere.get(spec.run_id)
        if recorded is not None and end.outcome is RunOutcome.CANCELLED:
            end = replace(end, outcome=recorded, error="" if recorded is RunOutcome.COMPLETED else ENDED_ELSEWHERE)
        await self._finish(spec.run_id, end)

    async def _let_nothing_live(self, record: RunRecord) -> None:
        """Before a run is called lost: whoever is told so may start its task elsewhere at once."""
        backend = self.backends.get(record.spec.backend)
        if backend is None:
            return
        try:
            await backend.make_sure_gone(record.spec, self._journal.run_dir(record.spec.run_id))
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
        self.watchers.publish(record)

    async def _finish(self, run_id: str, end: EndReport) -> None:
        known = self._runs.get(run_id)
        if known is None:
            return
        now = self._clock.now()
        record = known.ended(end.tidied(now), now)
        try:
            await self._in_thread(self._journal.save, record)
        except JournalError as error:
            # It is still reported from memory; only a restart before the acknowledgement would look again.
            _log.error("final_not_journalled", task_id=known.spec.task_id, run_id=run_id, error=str(error))
        self._runs.put(record)
        self.watchers.publish(record)
        self._on_end(record)

    async def cancel(
        self, run_id: str, reason: str, caller: CallerIdentity, recorded: RunOutcome | None = None
    ) -> RunRecord | None:
        """Asks for a run's end; None when it was never seen, which refuses it for good. Raises StaleTerm, JournalError.

        `recorded` is the end that the caller knows already, where ends come by callback.
        """
        record = await self._to_its_end(self._known_or_refused(run_id, caller))
        if record is not None and record.live:
            if recorded is not None and self._goes_on_elsewhere(record):
                self._ended_elsewhere[run_id] = recorded
            await self._cancel(record, reason)
        return self._runs.get(run_id)

    async def _known_or_refused(self, run_id: str, caller: CallerIdentity) -> RunRecord | None:
        async with self._one_at_a_time:
            await self._note_term(caller)
            record = self._runs.get(run_id)
            if record is None and run_id not in self._refused:
                await self._in_thread(self._journal.refuse, run_id)
                self._refused.add(run_id)
                self._rejected.pop(run_id, None)
            return record

    async def _cancel(self, record: RunRecord, reason: str) -> None:
        backend = self.backends.get(record.spec.backend)
        if backend is not None:
            await backend.cancel(record.spec, self._journal.run_dir(record.spec.run_id), reason or "cancelled")

    async def renew(
        self, run_ids: Sequence[str], end_runs: Sequence[str], lease_ttl: timedelta, caller: CallerIdentity
    ) -> tuple[list[str], list[str], list[str]]:
        """Lets leases count from the caller's stamp; returns renewed, unknown, unnamed runs. Raises StaleTerm, JournalError."""
        await self.note_term(caller)
        same_boot = caller.boot_id in ("", self.boot_id)
        lease_from = caller.stamp or self.now_stamp()
        renewed, unknown, ending = [], [], frozenset(end_runs)
        for run_id in run_ids:
            record = self._runs.get(run_id)
            if record is None:
                unknown.append(run_id)
            elif record.live and same_boot and run_id not in ending and self._renew(record, lease_ttl, lease_from):
                renewed.append(run_id)
        for run_id in end_runs:
            record = self._runs.get(run_id)
            if record is not None and record.live:
                await self._cancel(record, "ended by the scheduler")
        named = {*run_ids, *end_runs}
        unnamed = [
            r.spec.run_id for r in self._runs.live if r.spec.cluster_id == caller.cluster_id and r.spec.run_id not in named
        ]
        return renewed, unknown, unnamed

    def _renew(self, record: RunRecord, lease_ttl: timedelta, lease_from: int) -> bool:
        spec = replace(record.spec, lease_ttl=lease_ttl or record.spec.lease_ttl)
        backend = self.backends.get(spec.backend)
        if backend is None:
            return False
        try:
            backend.renew(spec, self._journal.run_dir(spec.run_id), lease_from)
        except BackendError as error:
            # The others' leases must not suffer for it.
            _log.warning("lease_not_renewed", task_id=spec.task_id, run_id=spec.run_id, error=str(error))
            return False
        return True

    async def acknowledge(self, run_ids: Sequence[str], caller: CallerIdentity) -> int:
        """Marks finals as stored elsewhere; returns how many were known and ended. Raises StaleTerm, JournalError."""
        await self.note_term(caller)
        done = 0
        for run_id in run_ids:
            record = self._runs.get(run_id)
            if record is not None and not record.live:
                done += 1
                if run_id not in self._acknowledged:
                    self._journal.acknowledge(run_id)
                    self._acknowledged[run_id] = None
        return done

    # --- housekeeping and stop

    async def forget(self, before: datetime) -> int:
        """Forgets acknowledged runs that ended before a time, and the oldest beyond 10,000; returns how many."""
        old = {run_id for run_id in self._acknowledged if self._ended_before(run_id, before)}
        beyond = max(0, len(self._acknowledged) - len(old) - KNOWN_MAX)
        old.update(list(islice((run_id for run_id in self._acknowledged if run_id not in old), beyond)))
        for run_id in old:
            del self._acknowledged[run_id]
            self._runs.remove(run_id)
        await self._in_thread(self._journal.remove, list(old))
        self._refused.difference_update(await self._in_thread(self._journal.forget_refusals, before))
        return len(old)

    def _ended_before(self, run_id: str, before: datetime) -> bool:
        record = self._runs.get(run_id)
        return record is not None and record.end_time is not None and record.end_time < before

    def drain(self) -> None:
        """Takes no new runs from now on."""
        self.door.draining = True
        self.watchers.publish_snapshot()

    async def stop(self, *, end_runs: bool, drain: timedelta, kill_s: float = 15.0, deliver_s: float = 3.0) -> None:
        """Stops taking runs and waits for those that end with us: the remote ones, which have no guard, or with `end_runs` all.

        With `end_runs` it then ends the rest as lost, and lets watchers take the finals.
        """
        self.drain()
        waited_for = [r for r in self._runs.live if not self._outlives_us(r) or (end_runs and not self._goes_on_elsewhere(r))]
        await self._wait(waited_for, drain.total_seconds())
        if end_runs:
            ours = [record for record in self._runs.live if not self._goes_on_elsewhere(record)]
            for record in ours:
                self._stopping.add(record.spec.run_id)
                await self._cancel(record, STOPPING)
            await self._wait(ours, kill_s)
            await self._wait_delivered(deliver_s)
        if self._uncut:
            await asyncio.wait(list(self._uncut), timeout=UNCUT_S)
        for work in list(self._work.values()):
            work.cancel()
        if self._work:
            await asyncio.wait(list(self._work.values()), timeout=2.0)
        for backend in self.backends.values():
            await backend.close()
        self._disk.shutdown(wait=False, cancel_futures=True)

    def _goes_on_elsewhere(self, record: RunRecord) -> bool:
        """What a bridge has launched cannot be ended: called lost, its task would run twice."""
        backend = self.backends.get(record.spec.backend)
        return backend is not None and backend.ends_by_callback

    def _outlives_us(self, record: RunRecord) -> bool:
        backend = self.backends.get(record.spec.backend)
        return backend is not None and backend.outlives_executor

    async def _wait(self, records: Iterable[RunRecord], seconds: float) -> None:
        work = [self._work[record.spec.run_id] for record in records if record.spec.run_id in self._work]
        if work and seconds > 0:
            await asyncio.wait(work, timeout=seconds)

    async def _wait_delivered(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self.watchers.any and self.open_records("") and loop.time() < until:
            await asyncio.sleep(0.02)


def _look_at_its_error(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.warning("call_failed_after_its_caller_had_gone", error=f"{type(error).__name__}: {error}")


class _Reporter:
    """Tells the manager of one run's start verdict."""

    def __init__(self, manager: RunManager, run_id: str) -> None:
        self._manager = manager
        self._run_id = run_id

    def started(self, report: StartReport) -> None:
        self._manager.started(self._run_id, report)
