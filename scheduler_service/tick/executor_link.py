"""The leader's line to one executor: its stream of runs and snapshots, and what follows from them.

There is no cursor to lose: each opening begins with every running and unacknowledged run. What a run's report changes is
committed before it is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from uuid import UUID

import structlog

from scheduler_service.core.dispatch_rules import DispatchRules
from scheduler_service.core.events import EventType
from scheduler_service.core.run import (
    CancelAnswer,
    ExecutorReport,
    LeaderIdentity,
    Run,
    RunOrder,
    RunReport,
    RunState,
    Stamp,
    WatchMessage,
)
from scheduler_service.core.task import Task
from scheduler_service.core.verdicts import OutcomeClass
from scheduler_service.errors import ExecutorUnreachable, StorageUnavailable
from scheduler_service.tick.ports import ExecutorClient, Observer
from scheduler_service.transactions.consequences import tell
from scheduler_service.transactions.gathering import breaker_keys_of
from scheduler_service.transactions.leases import extend_leases, order_is_stale
from scheduler_service.transactions.orders import order_of
from scheduler_service.transactions.ports import Database, Transaction
from scheduler_service.transactions.recording import record_answers, record_lost, record_reports
from scheduler_service.transactions.stored import ExecutorRow
from service_runtime.clock import Clock

_log = structlog.get_logger(__name__)

LIVE_FOR_S = 10.0
SILENCE_S = 15.0
RECONNECT_MAX_S = 2.0
BATCH = 250
ANSWERED_WITHIN = timedelta(seconds=2)
"""A claim that is younger is on its way, or its acceptance is: it is not sent again yet."""


class ExecutorLink:
    """One executor as the leader knows it. `report` is its newest snapshot, kept when it goes silent."""

    def __init__(
        self,
        client: ExecutorClient,
        database: Database,
        rules: DispatchRules,
        clock: Clock,
        observer: Observer,
        wake: Callable[[], None],
        holder: UUID,
        others: Callable[[], Iterable[ExecutorLink]] = tuple,
    ) -> None:
        self.client = client
        self._others = others
        self._holder = holder
        self.report: ExecutorReport | None = None
        self.first_report = asyncio.Event()
        self.in_flight: set[UUID] = set()
        self._database = database
        self._rules = rules
        self._clock = clock
        self._observer = observer
        self._wake = wake
        self._heard_at = -LIVE_FOR_S
        self._was_live = False
        self._inbox: asyncio.Queue[RunReport | _Replayed] = asyncio.Queue(maxsize=4 * BATCH)
        self._disowned: set[UUID] = set()
        self._accepted: dict[UUID, RunReport] = {}
        self._told_first: set[UUID] = set()
        self._unstored: set[UUID] = set()
        """Runs that have begun there as far as we have heard, and of which that is not in the database yet."""
        self._opening = _Opening(None)
        self._to_end = asyncio.Event()
        self._to_compare = asyncio.Event()

    @property
    def live(self) -> bool:
        """Heard within 10 s."""
        return self.report is not None and self._clock.monotonic() - self._heard_at <= LIVE_FOR_S

    @property
    def target(self) -> str:
        """Where the executor is."""
        return self.client.target

    @property
    def stamp(self) -> Stamp | None:
        """The newest stamp that was seen."""
        return None if self.report is None else Stamp(self.report.boot_id, self.report.stamp)

    async def run(self, identity: LeaderIdentity) -> None:
        """Keeps the stream open until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(identity))
            group.create_task(self._take_in(identity))
            group.create_task(self._every(1.0, lambda: self._look_after(identity), self._to_end))
            group.create_task(
                self._every(self._rules.lease_ttl.total_seconds() / 12, lambda: self.renew(identity), self._to_compare)
            )

    def take_for_full(self) -> None:
        """It has just refused a local run for want of room: no more of them until its next snapshot says otherwise."""
        if self.report is not None:
            self.report = replace(self.report, effective_slots=0)

    def end_soon(self) -> None:
        """A run is to be ended: do not wait for the next look."""
        self._to_end.set()

    def compare_soon(self) -> None:
        """The executor may hold a run that has ended here: do not wait for the next renewal, which finds it."""
        self._to_compare.set()

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]], at_once: asyncio.Event | None = None) -> None:
        at_once = at_once or asyncio.Event()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await at_once.wait()
            at_once.clear()
            try:
                await work()
            except (ExecutorUnreachable, StorageUnavailable) as error:
                _log.warning("executor_housekeeping_failed", target=self.client.target, error=str(error))

    # --- the stream

    async def _watch(self, identity: LeaderIdentity) -> None:
        pause = 0.1
        while True:
            try:
                async with asyncio.timeout(None) as silence:
                    loop = asyncio.get_running_loop()
                    silence.reschedule(loop.time() + SILENCE_S)
                    # What was accepted and is not named by the replay may live on there.
                    await self._store_accepted(identity)
                    self._opening = _Opening(await self._begun_there() if self.report is not None else None)
                    async for messages in self.client.watch(identity):
                        silence.reschedule(None)
                        for message in messages:
                            await self._hear(message, self._opening)
                        self._heard_at = self._clock.monotonic()
                        silence.reschedule(loop.time() + SILENCE_S)
                        pause = 0.1
            except (ExecutorUnreachable, TimeoutError) as error:
                _log.debug("executor_stream_lost", target=self.client.target, error=str(error))
            except StorageUnavailable as error:
                _log.warning("executor_snapshot_not_stored", target=self.client.target, error=str(error))
            except DuplicateExecutor as error:
                _log.error("executor_id_taken", target=self.client.target, error=str(error))
                pause = RECONNECT_MAX_S
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, RECONNECT_MAX_S)

    async def _hear(self, message: WatchMessage, opening: _Opening) -> None:
        if isinstance(message, ExecutorReport):
            self._only_one(message)
            if opening.begun is None:
                # Before this link can be dispatched to: what is begun from now on need not be in the replay.
                opening.begun = await self._begun_there(message.executor_id)
            await self._note(message)
        elif isinstance(message, RunReport):
            if not opening.replayed:
                opening.named.add(message.run_id)
                opening.heard += 1
            self._accepted.pop(message.run_id, None)
            self._unstored.add(message.run_id)
            if message.run_id in self.in_flight:
                self._told_first.add(message.run_id)
            await self._inbox.put(message)
        else:
            whole = opening.heard >= message.runs
            if not whole:
                # One that cannot be read has been named all the same: it must not be ended for that.
                _log.error("executor_replay_incomplete", target=self.client.target, runs=message.runs, heard=opening.heard)
            unnamed = frozenset((opening.begun or set()) - opening.named) if whole else frozenset()
            await self._inbox.put(_Replayed(opening, unnamed))
            # A stream may stay open for months: what it names from now on is not kept.
            opening.replayed, opening.named = True, set()

    def _only_one(self, report: ExecutorReport) -> None:
        """Two executors under one name would each disown the other's runs. Raises DuplicateExecutor."""
        for other in self._others():
            if other is not self and other.live and other.report is not None and other.report.executor_id == report.executor_id:
                raise DuplicateExecutor(
                    f"{other.target} is executor {report.executor_id} already: give each an EXECUTOR_ID of its own"
                )

    async def _begun_there(self, executor_id: str | None = None) -> set[UUID]:
        """The runs that the executor has accepted, as far as we know."""
        name = executor_id or (self.report.executor_id if self.report is not None else "")
        runs = await self._database.run(lambda tx: tx.live_runs(name), read_only=True)
        return {run.run_id for run in runs if run.state is not RunState.DISPATCHING}

    async def _note(self, report: ExecutorReport) -> None:
        came_up = not self._was_live or self.report is None or self.report.executor_id != report.executor_id
        changed = came_up or self.report is None or _gist(self.report) != _gist(report)
        row = ExecutorRow(report.executor_id, self.client.target, report.boot_id, asdict(report), self._clock.now())

        async def store(tx: Transaction) -> None:
            if changed:
                await tx.add_breakers(breaker_keys_of(report, self._rules))
            if came_up:
                payload = {"executor_id": report.executor_id, "target": self.client.target, "version": report.version}
                tell(tx, EventType.EXECUTOR_UP, payload)
            await tx.save_executor(ExecutorRow(row.executor_id, row.target, row.boot_id, row.snapshot, tx.now))

        await self._database.run(store)
        self.report = report
        self._was_live = True
        self.first_report.set()
        if changed:
            self._wake()

    async def _note_silence(self) -> None:
        if not self._was_live or self.live or self.report is None:
            return
        payload = {"executor_id": self.report.executor_id, "target": self.client.target}

        async def store(tx: Transaction) -> None:
            tell(tx, EventType.EXECUTOR_DOWN, payload)

        await self._database.run(store)
        self._was_live = False

    # --- reports

    def note_accepted(self, orders: Iterable[RunOrder]) -> None:
        """Has accepted runs recorded, but not at once: a short one is soon said to have ended, and is then written once."""
        for order in orders:
            if order.run_id not in self._told_first:
                self._accepted[order.run_id] = RunReport(order.run_id, order.task_id, order.fence, live=True)
                self._unstored.add(order.run_id)

    def landed(self, run_ids: Iterable[UUID]) -> None:
        """These are not in flight any more, whatever came of them."""
        for run_id in run_ids:
            self.in_flight.discard(run_id)
            self._told_first.discard(run_id)

    async def _store_accepted(self, identity: LeaderIdentity) -> None:
        accepted = list(self._accepted.values())
        await self._store(identity, accepted)
        for report in accepted:
            self._accepted.pop(report.run_id, None)
            self._unstored.discard(report.run_id)

    async def _take_in_accepted(self) -> None:
        """Of those of which the stream has said nothing yet."""
        accepted, self._accepted = self._accepted, {}
        for report in accepted.values():
            await self._inbox.put(report)

    async def _take_in(self, identity: LeaderIdentity) -> None:
        while True:
            batch = [await self._inbox.get()]
            while not self._inbox.empty() and len(batch) < BATCH:
                batch.append(self._inbox.get_nowait())
            await self._until_stored(identity, batch)

    async def _until_stored(self, identity: LeaderIdentity, batch: Sequence[RunReport | _Replayed]) -> None:
        """Stores a batch however long the database is away: nothing behind it may overtake it."""
        pause = 0.1
        reports = [message for message in batch if isinstance(message, RunReport)]
        replays = [message for message in batch if isinstance(message, _Replayed)]
        while True:
            try:
                await self._store(identity, reports)
                self._unstored.difference_update(report.run_id for report in reports)
                if replays:
                    # The newest opening knows best; what an older one missed, it has named or missed too.
                    await self._compare(identity, replays[-1].unnamed)
                    replays[-1].opening.caught_up = True
                    # Leadership that changes hands often must not put renewals off each time.
                    self.compare_soon()
            except (StorageUnavailable, ExecutorUnreachable) as error:
                _log.warning("executor_reports_not_stored", target=self.client.target, error=str(error))
                await asyncio.sleep(random.uniform(pause / 2, pause))
                pause = min(2 * pause, RECONNECT_MAX_S)
            else:
                return

    async def _store(self, identity: LeaderIdentity, reports: Sequence[RunReport]) -> None:
        if self.report is None or not reports:
            return
        executor_id = self.report.executor_id
        recorded = await self._database.run(lambda tx: record_reports(tx, executor_id, reports, self._rules, random.random))
        self._observer.recorded(recorded)
        if recorded.started or recorded.ended or recorded.decisions:
            self._wake()
        for start in range(0, len(recorded.settled), BATCH):
            await self.client.acknowledge(identity, recorded.settled[start : start + BATCH])

    async def _compare(self, identity: LeaderIdentity, unnamed: frozenset[UUID]) -> None:
        """After a replay: what we hold for begun there and the executor did not name, it may have lost."""
        if self.report is None:
            return
        executor_id = self.report.executor_id
        runs = await self._database.run(lambda tx: tx.live_runs(executor_id), read_only=True)
        missing = [r.run_id for r in runs if r.state is not RunState.DISPATCHING and r.run_id in unnamed]
        await self.end_runs(identity, missing, "not among the executor's runs after a replay")
        await self._resend(identity, [run for run in runs if run.state is RunState.DISPATCHING])

    # --- unanswered claims, cancellation, leases

    async def _look_after(self, identity: LeaderIdentity) -> None:
        await self._take_in_accepted()
        await self._note_silence()
        if not self.live or self.report is None:
            return
        executor_id, opening = self.report.executor_id, self._opening
        caught_up = opening.caught_up

        async def look(tx: Transaction) -> tuple[list[UUID], list[Run]]:
            # What looks unanswered may be in a replay that is not stored yet.
            late = await tx.unanswered_runs(executor_id, tx.now - ANSWERED_WITHIN) if caught_up else []
            return await tx.runs_to_cancel(executor_id), late

        cancelled, late = await self._database.run(look, read_only=True)
        if opening is self._opening:
            await self._resend(identity, late)
        await self.end_runs(identity, cancelled, "its task was cancelled")

    async def _resend(self, identity: LeaderIdentity, runs: Sequence[Run]) -> None:
        """Sends unanswered orders again under the same run_id: an unanswered dispatch is unknown, not failed.

        One that nobody wants any more, or that has been unanswered for too long, is called off instead.
        """
        stamp = self.stamp
        due = [run for run in runs if run.run_id not in self.in_flight and run.run_id not in self._unstored]
        if stamp is None or not due:
            return

        async def read(tx: Transaction) -> tuple[datetime, dict[UUID, Task], list[Run]]:
            tasks, current = await tx.tasks([run.task_id for run in due]), await tx.runs([run.run_id for run in due])
            return tx.now, tasks, [run for run in current.values() if run.state is RunState.DISPATCHING]

        now, tasks, unanswered = await self._database.run(read, read_only=True)
        wanted = [r for r in unanswered if _is_wanted(r, tasks.get(r.task_id)) and not order_is_stale(r, now, self._rules)]
        gone = [run.run_id for run in unanswered if run not in wanted]
        orders = [order_of(tasks[run.task_id], run.executor_id) for run in wanted]
        if orders:
            answers = await self.client.dispatch(identity, orders, stamp, self._rules.lease_ttl)
            recorded = await self._database.run(lambda tx: record_answers(tx, answers, self._rules, random.random))
            self._observer.recorded(recorded)
        await self.end_runs(identity, gone, "no answer came, or nobody waits for it any more")
        self._wake()

    async def end_runs(
        self,
        identity: LeaderIdentity,
        run_ids: Sequence[UUID],
        why: str,
        recorded: Mapping[UUID, OutcomeClass] = MappingProxyType({}),
    ) -> None:
        """Ends runs there, or lets go of those that are `recorded` as ended.

        One that was never seen is refused for good from now on, and so it is certainly lost.

        One that had been accepted and is not known any more may still live somewhere: only the end of its lease is sure.
        """
        refused = []
        for run_id in run_ids:
            answer = await self.client.cancel_run(identity, run_id, why, recorded.get(run_id))
            if answer is CancelAnswer.REFUSED:
                refused.append(run_id)
        if not refused:
            return
        runs = await self._database.run(lambda tx: tx.runs(refused), read_only=True)
        begun = {id_ for id_, run in runs.items() if run.state in (RunState.ACCEPTED, RunState.RUNNING) or id_ in self._unstored}
        never_seen = [id_ for id_ in refused if id_ in runs and runs[id_].state is RunState.DISPATCHING and id_ not in begun]
        disowned = begun.intersection(refused)
        if fresh := disowned - self._disowned:
            _log.error("executor_disowns_runs", target=self.client.target, runs=len(fresh), waiting_for="their leases to run out")
        self._disowned |= disowned
        if never_seen:
            given_up = await self._database.run(lambda tx: record_lost(tx, never_seen, why, self._rules, random.random))
            self._observer.recorded(given_up)
            self._wake()

    async def renew(self, identity: LeaderIdentity) -> None:
        """Extends the leases of this executor's runs: committed first, then told, counted from a stamp seen before both."""
        stamp = self.stamp
        if not self.live or self.report is None or stamp is None:
            return
        executor_id = self.report.executor_id
        disowned = frozenset(self._disowned)
        renewal = await self._database.run(
            lambda tx: extend_leases(tx, self._holder, identity.term, executor_id, self._rules, disowned)
        )
        answer = await self.client.renew(identity, renewal.run_ids, renewal.end_runs, stamp, self._rules.lease_ttl)
        runs = await self._database.run(lambda tx: tx.runs([*answer.unknown, *answer.unnamed]), read_only=True)
        lost = [id_ for id_ in answer.unknown if id_ in runs and runs[id_].state in (RunState.ACCEPTED, RunState.RUNNING)]
        strays = [id_ for id_ in answer.unnamed if id_ not in runs or runs[id_].state is RunState.ENDED]
        recorded = {id_: outcome for id_ in strays if id_ in runs and (outcome := runs[id_].outcome) is not None}
        await self.end_runs(identity, [*lost, *strays], "not a live run of the scheduler", recorded)


class DuplicateExecutor(Exception):
    """Another link has a live executor of this name."""


class _Opening:
    """One opening of the stream: the runs begun there before it, and those that its replay has named.

    `replayed`: the whole replay has been heard; `caught_up`: it is stored.
    """

    def __init__(self, begun: set[UUID] | None) -> None:
        self.begun = begun
        self.named: set[UUID] = set()
        self.heard = 0
        self.replayed = False
        self.caught_up = False


@dataclass(frozen=True, slots=True)
class _Replayed:
    """The end of an opening's replay, with the runs that it should have named and did not."""

    opening: _Opening
    unnamed: frozenset[UUID]


def _is_wanted(run: Run, task: Task | None) -> bool:
    return task is not None and task.run_id == run.run_id and not task.cancel_requested


def _gist(report: ExecutorReport) -> tuple[object, ...]:
    """What of a snapshot can open or close a gate."""
    slots = (report.effective_slots, report.admission_slots, report.max_seats, report.headed_sessions, report.draining)
    return (*slots, tuple((b.backend, b.configured, b.max_runs, b.kind, b.local) for b in report.backends))
