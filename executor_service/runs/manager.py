"""Runs from their acceptance to their acknowledgement.

A run is journalled before it is accepted, begun by its backend, reported to whoever watches, and kept until its final is
acknowledged, over a restart too. Nothing is queued here: what cannot begin at once is rejected.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import structlog
from msgspec.structs import replace

from executor_service.core.run import RunOutcome, RunRecord, RunSpec
from executor_service.errors import BackendError, JournalError
from executor_service.runs.carrier import Carrier
from executor_service.runs.door import Answer, CallerIdentity, Door, Sitting
from executor_service.runs.journal import Journal
from executor_service.runs.output import read_output
from executor_service.runs.ports import Backend, Resources
from executor_service.runs.recovery import recover
from executor_service.runs.table import RunTable
from executor_service.runs.terms import StaleTerm, Terms
from executor_service.runs.watching import Watchers
from service_runtime.clock import Clock

_log = structlog.get_logger(__name__)
T = TypeVar("T")

DISK_THREADS = 4
UNCUT_S = 5.0
KNOWN_MAX = 10_000


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
        self._folders = journal.folders
        self.backends = dict(backends)
        self._make_backend = make_backend
        self.resources = resources
        self._clock = clock
        self.boot_id = boot_id
        self.now_stamp = now_stamp
        self.watchers = Watchers()
        self._runs = RunTable()
        self._rejected: dict[str, Answer] = {}
        self._acknowledged: dict[str, None] = {}
        self._refused: dict[str, datetime] = {}
        self.door = Door(self._runs, self._refused.keys(), self.backends, resources, boot_id, now_stamp)
        self._terms = Terms(journal)
        self._carrier = Carrier(journal, self._runs, self.backends, self.watchers, clock, on_end)
        self._uncut: set[asyncio.Task[Any]] = set()
        self._disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk")
        self._one_at_a_time = asyncio.Lock()

    def load(self) -> None:
        """Takes the journal up again: runs that live are found again, or known to be lost. Raises JournalError."""
        self._terms.load()
        self._refused |= self._journal.refused()
        found = recover(self._journal, self.backends, self._make_backend)
        self.door.not_offered |= found.not_offered
        for record in found.records:
            self._runs.put(record)
        self._acknowledged |= dict.fromkeys(found.acknowledged)
        for record in self._runs.live:
            self._carrier.begin(record, None)

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

        return read_output(self._folders.of(run_id), offset, live, tail_bytes=tail_bytes, follow=follow)

    def open_records(self, cluster_id: str) -> list[RunRecord]:
        """Every running and unacknowledged run of a cluster ('': of all)."""
        return [
            record
            for record in self._runs
            if record.spec.run_id not in self._acknowledged and cluster_id in ("", record.spec.cluster_id)
        ]

    def local_run_dirs(self) -> dict[str, Path]:
        """The folders of the live local runs, by run id."""
        return {run.run_id: self._folders.of(run.run_id) for run in self.door.local_runs()}

    # --- dispatch

    async def dispatch(self, specs: Sequence[RunSpec], caller: CallerIdentity) -> list[Answer]:
        """Accepts or rejects each run, in the order given. Accepted means durable in the journal. Raises JournalError.

        The same run_id gets the same answer: a delivery that was on its way for long must not be let in after it was refused.
        """
        return await self._to_its_end(self._dispatch(specs, caller))

    async def _dispatch(self, specs: Sequence[RunSpec], caller: CallerIdentity) -> list[Answer]:
        async with self._one_at_a_time:
            try:
                await self._terms.note(caller)
            except StaleTerm as error:
                return [Answer(spec.run_id, False, "stale_term", str(error)) for spec in specs]
            first: dict[str, RunSpec] = {}
            answers: dict[str, Answer] = {}
            sitting = Sitting(self.door, caller, self._clock.now())
            for spec in specs:
                if spec.run_id not in answers:
                    first[spec.run_id] = spec
                    answers[spec.run_id] = self._rejected.get(spec.run_id) or sitting.decide(spec)
            for run_id, detail in (await self._let_in(sitting.let_in, caller)).items():
                answers[run_id] = Answer(run_id, False, "config_error", detail)
            self._remember_rejections(answers.values())
            other = Answer("", False, "config_error", "another run of this batch has this run_id")
            return [answers[spec.run_id] if first[spec.run_id] == spec else replace(other, run_id=spec.run_id) for spec in specs]

    async def _let_in(self, records: Sequence[RunRecord], caller: CallerIdentity) -> dict[str, str]:
        """Journals runs, all or (JournalError) none, and begins them; what cannot be prepared is returned with the reason."""
        if not records:
            return {}
        failed = await self._in_thread(self._prepare, records)
        prepared = [record for record in records if record.spec.run_id not in failed]
        try:
            await self._journal.add(prepared)
        except JournalError:
            await self._in_thread(self._folders.remove, [record.spec.run_id for record in prepared])
            raise
        lease_from = caller.stamp or self.now_stamp()
        for record in prepared:
            self._runs.put(record)
            self.watchers.publish(record)
            self._carrier.begin(record, lease_from)
        return failed

    def _prepare(self, records: Iterable[RunRecord]) -> dict[str, str]:
        """Lets backends make the files that runs need, of all or (JournalError) of none."""
        failed: dict[str, str] = {}
        seen: list[str] = []
        try:
            for record in records:
                spec = record.spec
                seen.append(spec.run_id)
                try:
                    self.backends[spec.backend].prepare(spec, self._folders.of(spec.run_id))
                except BackendError as error:
                    failed[spec.run_id] = str(error)
                except OSError as error:
                    raise JournalError(f"run {spec.run_id} cannot be prepared: {error.strerror}") from error
        except BaseException:
            self._folders.remove(seen)
            raise
        if failed:
            self._folders.remove(failed)
        return failed

    def _remember_rejections(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            if not answer.accepted and answer.run_id not in self._runs:
                self._rejected[answer.run_id] = answer
        while len(self._rejected) > KNOWN_MAX:
            del self._rejected[next(iter(self._rejected))]

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
        if not self._terms.is_known(caller):
            await self._to_its_end(self._note_new_term(caller))

    async def _note_new_term(self, caller: CallerIdentity) -> None:
        async with self._one_at_a_time:
            await self._terms.note(caller)

    async def cancel(
        self, run_id: str, reason: str, caller: CallerIdentity, recorded: RunOutcome | None = None
    ) -> RunRecord | None:
        """Asks for a run's end; None when it was never seen, which refuses it for good. Raises StaleTerm, JournalError.

        `recorded` is the end that the caller knows already, where ends come by callback.
        """
        record = await self._to_its_end(self._known_or_refused(run_id, caller))
        if record is not None and record.live:
            if recorded is not None and self._carrier.goes_on_elsewhere(record):
                self._carrier.ended_elsewhere[run_id] = recorded
            await self._carrier.cancel(record, reason)
        return self._runs.get(run_id)

    async def _known_or_refused(self, run_id: str, caller: CallerIdentity) -> RunRecord | None:
        async with self._one_at_a_time:
            await self._terms.note(caller)
            record = self._runs.get(run_id)
            if record is None and run_id not in self._refused:
                now = self._clock.now()
                await self._journal.refuse(run_id, now)
                self._refused[run_id] = now
                self._rejected.pop(run_id, None)
            return record

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
                await self._carrier.cancel(record, "ended by the scheduler")
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
            backend.renew(spec, self._folders.of(spec.run_id), lease_from)
        except BackendError as error:
            # The others' leases must not suffer for it.
            _log.warning("lease_not_renewed", task_id=spec.task_id, run_id=spec.run_id, error=str(error))
            return False
        return True

    async def acknowledge(self, run_ids: Sequence[str], caller: CallerIdentity) -> int:
        """Marks finals as stored elsewhere; returns how many were known and ended. Raises StaleTerm, JournalError."""
        await self.note_term(caller)
        ended = [run_id for run_id in run_ids if (record := self._runs.get(run_id)) is not None and not record.live]
        new = [run_id for run_id in ended if run_id not in self._acknowledged]
        self._acknowledged.update(dict.fromkeys(new))
        if new:
            self._journal.acknowledge(new)
        if len(self._acknowledged) > 2 * KNOWN_MAX:
            # Short runs come by the thousand: memory must not wait for the housekeeping.
            await self._forget(self._oldest_beyond(frozenset()))
        return len(ended)

    # --- housekeeping and stop

    async def forget(self, before: datetime) -> int:
        """Forgets acknowledged runs that ended before a time, and the oldest beyond 10,000; returns how many."""
        old = frozenset(run_id for run_id in self._acknowledged if self._ended_before(run_id, before))
        forgotten = [*old, *self._oldest_beyond(old)]
        await self._forget(forgotten)
        for run_id in [run_id for run_id, refuse_time in self._refused.items() if refuse_time < before]:
            del self._refused[run_id]
        self._journal.forget_refusals(before)
        return len(forgotten)

    def _oldest_beyond(self, old: AbstractSet[str]) -> list[str]:
        """The runs that were acknowledged first, beyond the 10,000 that are kept besides those that are old anyway."""
        beyond = max(0, len(self._acknowledged) - len(old) - KNOWN_MAX)
        return list(islice((run_id for run_id in self._acknowledged if run_id not in old), beyond))

    async def _forget(self, run_ids: Sequence[str]) -> None:
        if not run_ids:
            return
        for run_id in run_ids:
            del self._acknowledged[run_id]
            self._runs.remove(run_id)
        self._journal.forget(run_ids)
        await self._in_thread(self._folders.remove, run_ids)

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
        carrier = self._carrier
        with_us = [r for r in self._runs.live if not carrier.outlives_us(r) or (end_runs and not carrier.goes_on_elsewhere(r))]
        await carrier.wait(with_us, drain.total_seconds())
        if end_runs:
            ours = [record for record in self._runs.live if not carrier.goes_on_elsewhere(record)]
            await carrier.end_as_lost(ours)
            await carrier.wait(ours, kill_s)
            await self._wait_delivered(deliver_s)
        if self._uncut:
            await asyncio.wait(list(self._uncut), timeout=UNCUT_S)
        await carrier.break_off()
        for backend in self.backends.values():
            await backend.close()
        self._disk.shutdown(wait=False, cancel_futures=True)

    async def _wait_delivered(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self.watchers.any and self.open_records("") and loop.time() < until:
            await asyncio.sleep(0.02)


def _look_at_its_error(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.warning("call_failed_after_its_caller_had_gone", error=f"{type(error).__name__}: {error}")
