"""`transactions.ports.Database` over dictionaries: held to the same suite as PostgreSQL.

One transaction at a time, on a copy that replaces the state when the script has succeeded.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import msgspec
from msgspec import structs

from scheduler_service.core.breaker import Breaker, BreakerState
from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.run import Run, RunState
from scheduler_service.core.slot_budget import is_internal
from scheduler_service.core.task import EDITABLE_FIELDS, ENDED_STATUSES, LIVE_STATUSES, Priority, Task, TaskStatus, is_due
from scheduler_service.transactions import ports, stored
from scheduler_service.transactions.stored import Lock, Part

T = TypeVar("T")
_SUBMITTED = ("create_time", "task_type", "depends_on", "dependency_policy", "timeout", "max_tries", "backend")
_SHOWN = (TaskStatus.QUEUED, TaskStatus.DISPATCHING, TaskStatus.RUNNING, TaskStatus.QUARANTINED)


@dataclass
class _State:
    cluster_id: UUID = field(default_factory=uuid4)
    leadership: stored.Leadership = field(default_factory=lambda: stored.Leadership(None, "", 0, None))
    window_settings: tuple[int, int] = (3_600_000, 1_800_000)
    breakers: dict[str, Breaker] = field(default_factory=dict)
    tripped_by: dict[str, str] = field(default_factory=dict)
    backend_states: dict[str, stored.BackendState] = field(default_factory=dict)
    tasks: dict[UUID, Task] = field(default_factory=dict)
    seqs: dict[UUID, int] = field(default_factory=dict)
    runs: dict[UUID, Run] = field(default_factory=dict)
    executors: dict[str, stored.ExecutorRow] = field(default_factory=dict)
    decisions: list[stored.DispatchEvent] = field(default_factory=list)
    events: list[stored.Event] = field(default_factory=list)
    last_dispatch: stored.LastDispatch | None = None
    drains: dict[str, stored.Drain] = field(default_factory=dict)
    pauses: dict[str, stored.BillingPause] = field(default_factory=dict)
    cap: stored.BudgetCap = field(default_factory=lambda: stored.BudgetCap(None))
    requests: dict[tuple[str, str], tuple[stored.StoredRequest, datetime]] = field(default_factory=dict)
    setting_overrides: dict[str, stored.SettingOverride] = field(default_factory=dict)
    audit: list[stored.AuditEntry] = field(default_factory=list)


class MemoryTransaction:
    """One transaction on a copy of the state."""

    def __init__(self, state: _State, now: datetime, *, begins_with_standing: bool = False) -> None:
        self.state = state
        self._now = now
        self._time_is_known = not begins_with_standing
        self._decisions: list[stored.DispatchEvent] = []
        self._events: list[stored.Event] = []

    @property
    def now(self) -> datetime:
        if not self._time_is_known:
            raise RuntimeError("the time is not known before the standing has been read")
        return self._now

    async def cluster_id(self) -> UUID:
        return self.state.cluster_id

    async def leadership(self, lock: Lock = Lock.NONE) -> stored.Leadership:
        return self.state.leadership

    async def save_leadership(self, leadership: stored.Leadership) -> None:
        self.state.leadership = leadership

    async def save_window_settings(self, window_ms: int, open_duration_ms: int) -> None:
        self.state.window_settings = (window_ms, open_duration_ms)

    async def breakers(self, keys: Collection[str] | None = None, lock: Lock = Lock.NONE) -> dict[str, Breaker]:
        return {key: row for key, row in sorted(self.state.breakers.items()) if keys is None or key in keys}

    async def add_breakers(self, keys: Collection[str]) -> None:
        for key in keys:
            self.state.breakers.setdefault(key, Breaker(key))

    async def save_breakers(self, breakers: Iterable[Breaker], *, actor: str | None = None) -> None:
        for breaker in breakers:
            if breaker.key not in self.state.breakers:
                continue
            self.state.breakers[breaker.key] = breaker
            who = (
                ""
                if breaker.state is BreakerState.CLOSED
                else self.state.tripped_by.get(breaker.key, "")
                if actor is None
                else actor
            )
            self.state.tripped_by[breaker.key] = who

    async def standing(self, parts: Collection[Part], window: timedelta) -> stored.Standing:
        self._time_is_known = True
        waiting, live = self._waiting(), (TaskStatus.QUEUED, *LIVE_STATUSES)
        operator = await self.operator_settings()
        changed = operator.values.get("WINDOW_MS")
        since = self._now - (window if changed is None else timedelta(milliseconds=int(changed)))
        every: dict[Part, Any] = {
            Part.OPERATOR: operator,
            Part.BREAKERS: await self.breakers(),
            Part.BACKEND_STATES: await self.backend_states(),
            Part.DRAINS: tuple(await self.drains()),
            Part.BILLING_PAUSES: tuple(await self.billing_pauses()),
            Part.TRIPPED_BY: {key: who for key, who in sorted(self.state.tripped_by.items()) if who},
            Part.LIVE: tuple(await self.live_counts()),
            Part.HAS_INTERNAL: any(t.status in live and is_internal(t.payload) for t in self.state.tasks.values()),
            Part.QUEUED_BACKENDS: frozenset(task.backend for task in waiting),
            Part.QUEUE: tuple(self._queue()),
            Part.WINDOW: tuple(await self.window_rows(since)),
            Part.WINDOW_BY_EXECUTOR: tuple(await self.window_rows(since, by_executor=True)),
            Part.ABOUT: await self._about(),
        }
        return stored.Standing(**{part.removesuffix("_by_executor"): found for part, found in every.items() if part in parts})

    async def _about(self) -> stored.About:
        depths = Counter((task.priority, task.status) for task in self.state.tasks.values() if task.status in _SHOWN)
        oldest: dict[Priority, datetime] = {}
        for task in self._waiting():
            if task.blocked_by == 0 and task.due_time <= self.now:
                oldest[task.priority] = min(task.due_time, oldest.get(task.priority, task.due_time))
        return stored.About(
            cluster_id=await self.cluster_id(),
            leadership=await self.leadership(),
            executors=tuple(await self.executors()),
            last_dispatch=await self.last_dispatch(),
            depths=tuple(stored.QueueDepth(*key, n) for key, n in depths.items()),
            oldest_due=tuple(stored.OldestDue(*found) for found in oldest.items()),
        )

    def _queue(self) -> Iterator[stored.QueueCount]:
        for backend in sorted({task.backend for task in self._waiting()}):
            own = [task for task in self._waiting() if task.backend == backend]
            yield stored.QueueCount(backend, len(own), sum(task.blocked_by == 0 and is_due(task, self._now) for task in own))

    async def backend_states(self) -> dict[str, stored.BackendState]:
        return dict(sorted(self.state.backend_states.items()))

    async def note_start_successes(self, times: Mapping[str, datetime], last: stored.LastDispatch) -> None:
        self.state.last_dispatch = last
        for backend, time in times.items():
            known = self.state.backend_states.get(backend, stored.BackendState(backend))
            self.state.backend_states[backend] = structs.replace(known, last_start_success_time=time)

    async def note_trickles(self, times: Mapping[str, datetime]) -> None:
        for backend, time in times.items():
            known = self.state.backend_states.get(backend, stored.BackendState(backend))
            self.state.backend_states[backend] = structs.replace(known, last_trickle_time=time)

    async def add_tasks(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self.state.tasks[task.id] = task
            self.state.seqs[task.id] = len(self.state.seqs) + 1

    async def tasks(self, ids: Collection[UUID], lock: Lock = Lock.NONE) -> dict[UUID, Task]:
        return {id_: self.state.tasks[id_] for id_ in ids if id_ in self.state.tasks}

    async def tasks_to_move(self, ids: Collection[UUID]) -> dict[UUID, Task]:
        return {id_: structs.replace(task, description="", payload={}) for id_, task in (await self.tasks(ids)).items()}

    async def save_tasks(self, tasks: Iterable[Task]) -> None:
        self._save(tasks, ())

    async def save_edited_tasks(self, tasks: Iterable[Task]) -> None:
        self._save(tasks, (*EDITABLE_FIELDS, "rank_time"))

    def _save(self, tasks: Iterable[Task], edited: Collection[str]) -> None:
        """What submission fixed is not for a transition to change, and what an operator edits only for an edit."""
        fixed = {name for name in (*_SUBMITTED, *EDITABLE_FIELDS, "rank_time") if name not in edited}
        for task in tasks:
            kept = self.state.tasks[task.id]
            unchanged: dict[str, Any] = {name: getattr(kept, name) for name in fixed}
            self.state.tasks[task.id] = structs.replace(task, **unchanged)

    def _waiting(self, backend: str | None = None) -> list[Task]:
        found = [t for t in self.state.tasks.values() if t.status is TaskStatus.QUEUED and backend in (None, t.backend)]
        return sorted(found, key=lambda t: (t.rank_time, self.state.seqs[t.id]))

    async def due_tasks(
        self,
        backend: str,
        limit: int,
        *,
        skip: Collection[UUID] = (),
        unfailed_only: bool = False,
        lock: Lock = Lock.UPDATE,
    ) -> stored.DueTasks:
        found = [
            t
            for t in self._waiting(backend)
            if t.blocked_by == 0
            and is_due(t, self._now)
            and t.id not in skip
            and not (unfailed_only and t.last_start_failure_time is not None)
        ]
        return stored.DueTasks(found[:limit])

    async def quarantine_unreadable(self, tasks: Iterable[stored.UnreadableTask]) -> None:
        """Every task here can be read."""

    async def unblock_dependents(self, completed: Collection[UUID]) -> None:
        for task in self._waiting():
            freed = sum(1 for other in task.depends_on if other in completed)
            if freed:
                left = task.blocked_by - freed
                hold = HoldReason.NONE if left == 0 and task.hold_reason is HoldReason.DEPENDENCY else task.hold_reason
                self.state.tasks[task.id] = structs.replace(task, blocked_by=left, hold_reason=hold, update_time=self._now)

    async def recount_blocked(self) -> int:
        mended = 0
        for task in self._waiting():
            known = [self.state.tasks.get(other) for other in set(task.depends_on)]
            left = sum(1 for other in known if other is None or other.status is not TaskStatus.COMPLETED)
            if left < task.blocked_by:
                hold = HoldReason.NONE if left == 0 and task.hold_reason is HoldReason.DEPENDENCY else task.hold_reason
                self.state.tasks[task.id] = structs.replace(task, blocked_by=left, hold_reason=hold, update_time=self._now)
                mended += 1
        return mended

    async def waiting_dependents(self, ids: Collection[UUID]) -> dict[UUID, list[UUID]]:
        found: dict[UUID, list[UUID]] = {}
        for task in sorted(self._waiting(), key=lambda t: t.id):
            for other in task.depends_on:
                if other in ids:
                    found.setdefault(other, []).append(task.id)
        return found

    async def dependents(self, task_id: UUID, limit: int) -> tuple[list[UUID], int]:
        found = sorted(task.id for task in self.state.tasks.values() if task_id in task.depends_on)
        return found[:limit], len(found)

    async def live_counts(self) -> list[stored.LiveCount]:
        counts: dict[tuple[str, str, bool], int] = {}
        for task in self.state.tasks.values():
            if task.status in LIVE_STATUSES:
                key = (task.executor_id, task.backend, is_internal(task.payload))
                counts[key] = counts.get(key, 0) + 1
        return [stored.LiveCount(*key, n) for key, n in counts.items()]

    async def waiting_at_most(self) -> int:
        return len(self._waiting())

    async def count_waiting(self) -> int:
        return len(self._waiting())

    async def note_put_back(self, count: int) -> None: ...

    async def queue_position(self, task: Task) -> int:
        mine = (task.rank_time, self.state.seqs[task.id])
        due = (t for t in self._waiting(task.backend) if t.blocked_by == 0 and is_due(t, self._now))
        return 1 + sum((t.rank_time, self.state.seqs[t.id]) < mine for t in due)

    async def list_tasks(self, chosen: stored.TaskFilter, before_seq: int | None, limit: int) -> list[tuple[int, Task]]:
        return [
            (seq, structs.replace(task, description="", payload={}, result=""))
            for seq, task in reversed(self._chosen(chosen))
            if before_seq is None or seq < before_seq
        ][:limit]

    def _chosen(self, chosen: stored.TaskFilter) -> list[tuple[int, Task]]:
        found = [
            (self.state.seqs[task.id], task)
            for task in self.state.tasks.values()
            if (not chosen.statuses or task.status in chosen.statuses)
            and (not chosen.task_types or task.task_type in chosen.task_types)
            and (not chosen.priorities or task.priority in chosen.priorities)
        ]
        return sorted(found, key=lambda row: row[0])

    async def count_tasks(self, chosen: stored.TaskFilter, after_seq: int, limit: int) -> int:
        return min(limit, sum(1 for seq, _ in self._chosen(chosen) if seq > after_seq))

    async def task_ids(self, chosen: stored.TaskFilter, after_seq: int, limit: int) -> list[tuple[int, UUID]]:
        return [(seq, task.id) for seq, task in self._chosen(chosen) if seq > after_seq][:limit]

    async def add_runs(self, runs: Sequence[Run]) -> None:
        for run in runs:
            assert run.run_id not in self.state.runs, "a run_id is never used twice"
            assert all((r.task_id, r.fence) != (run.task_id, run.fence) for r in self.state.runs.values()), "nor a fence"
            self.state.runs[run.run_id] = run

    async def runs(self, run_ids: Collection[UUID]) -> dict[UUID, Run]:
        return {id_: self.state.runs[id_] for id_ in run_ids if id_ in self.state.runs}

    async def run_places(self, run_ids: Collection[UUID]) -> list[stored.RunPlace]:
        return [stored.RunPlace(run.task_id, run.breaker_key) for run in (await self.runs(run_ids)).values()]

    async def runs_of_task(self, task_id: UUID, limit: int = 100) -> list[Run]:
        return sorted((r for r in self.state.runs.values() if r.task_id == task_id), key=lambda r: -r.fence)[:limit]

    async def live_runs(self, executor_id: str) -> list[Run]:
        live = [r for r in self.state.runs.values() if r.state is not RunState.ENDED and r.executor_id == executor_id]
        return sorted(live, key=lambda r: (r.claim_time, r.run_id))

    async def live_leases(self) -> list[stored.RunLease]:
        live = (r for r in self.state.runs.values() if r.state is not RunState.ENDED)
        return [stored.RunLease(r.run_id, r.renew_seq, r.lease_until) for r in live]

    async def unanswered_runs(self, executor_id: str, claimed_by: datetime) -> list[Run]:
        live = await self.live_runs(executor_id)
        return [r for r in live if r.state is RunState.DISPATCHING and r.claim_time <= claimed_by]

    async def runs_to_cancel(self, executor_id: str) -> list[UUID]:
        tasks = self.state.tasks
        live = await self.live_runs(executor_id)
        return [r.run_id for r in live if r.task_id in tasks and tasks[r.task_id].cancel_requested]

    async def save_runs(self, runs: Iterable[Run]) -> None:
        self.state.runs |= {run.run_id: run for run in runs}

    async def executors(self) -> list[stored.ExecutorRow]:
        return [row for _, row in sorted(self.state.executors.items())]

    async def save_executor(self, row: stored.ExecutorRow) -> None:
        self.state.executors[row.executor_id] = row

    def record(self, event: stored.DispatchEvent) -> None:
        self._decisions.append(event)

    def emit(self, event: stored.Event) -> None:
        self._events.append(event)

    def flush(self) -> None:
        """Writes what was collected, under ids in the order of commits."""
        for decision in self._decisions:
            self.state.decisions.append(structs.replace(decision, id=len(self.state.decisions) + 1))
        for event in self._events:
            payload = msgspec.to_builtins(event.payload, enc_hook=dict)
            self.state.events.append(structs.replace(event, id=len(self.state.events) + 1, payload=payload))

    async def window_rows(self, since: datetime, *, by_executor: bool = False) -> list[stored.WindowRow]:
        rows: dict[tuple[str, str, bool, bool, str], tuple[int, datetime]] = {}
        for event in self.state.decisions:
            if event.create_time >= since:
                executor_id = event.executor_id if by_executor else ""
                key = (event.backend, executor_id, event.attempt, event.success, event.reason)
                n, last = rows.get(key, (0, event.create_time))
                rows[key] = (n + 1, max(last, event.create_time))
        return [stored.WindowRow(*key, n, last) for key, (n, last) in rows.items()]

    async def dispatch_events(self, chosen: stored.EventFilter, before_id: int | None, limit: int) -> list[stored.DispatchEvent]:
        return [
            event
            for event in reversed(self.state.decisions)
            if (before_id is None or event.id < before_id)
            and chosen.task_id in (None, event.task_id)
            and chosen.reason in ("", event.reason)
            and chosen.success in (None, event.success)
        ][:limit]

    async def events_after(self, after_id: int, types: Collection[str], limit: int) -> list[stored.Event]:
        return [e for e in self.state.events if e.id > after_id and (not types or e.type in types)][:limit]

    async def newest_event_id(self) -> int:
        return len(self.state.events)

    async def last_event_id_given(self) -> int:
        return len(self.state.events)

    async def last_dispatch(self) -> stored.LastDispatch | None:
        return self.state.last_dispatch

    async def drains(self) -> list[stored.Drain]:
        return [drain for _, drain in sorted(self.state.drains.items())]

    async def save_drain(self, drain: stored.Drain) -> None:
        before = self.state.drains.get(drain.source)
        self.state.drains[drain.source] = replace(drain, since_time=before.since_time) if before else drain

    async def delete_drain(self, source: str) -> None:
        self.state.drains.pop(source, None)

    async def billing_pauses(self) -> list[stored.BillingPause]:
        return [pause for _, pause in sorted(self.state.pauses.items())]

    async def save_billing_pause(self, pause: stored.BillingPause) -> None:
        self.state.pauses[pause.backend] = pause

    async def delete_billing_pause(self, backend: str) -> None:
        self.state.pauses.pop(backend, None)

    async def operator_settings(self) -> stored.OperatorSettings:
        return stored.OperatorSettings(
            self.state.cap, dict(sorted(self.state.setting_overrides.items())), *self.state.window_settings
        )

    async def save_setting_override(self, override: stored.SettingOverride) -> None:
        self.state.setting_overrides[override.name] = override

    async def delete_setting_override(self, name: str) -> None:
        self.state.setting_overrides.pop(name, None)

    async def save_budget_cap(self, cap: stored.BudgetCap) -> None:
        self.state.cap = cap

    async def stored_requests(self, method: str, request_ids: Collection[str]) -> dict[str, stored.StoredRequest]:
        return {id_: self.state.requests[method, id_][0] for id_ in request_ids if (method, id_) in self.state.requests}

    async def store_requests(self, method: str, requests: Mapping[str, stored.StoredRequest]) -> None:
        self.state.requests |= {(method, id_): (request, self._now) for id_, request in requests.items()}

    async def append_audit(self, entry: stored.AuditEntry) -> None:
        self.state.audit.append(replace(entry, id=self.state.audit[-1].id + 1 if self.state.audit else 1))

    async def audit_entries(self, chosen: stored.AuditFilter, before_id: int | None, limit: int) -> list[stored.AuditEntry]:
        return [
            entry
            for entry in reversed(self.state.audit)
            if (before_id is None or entry.id < before_id)
            and chosen.method in ("", entry.method)
            and (chosen.actor in ("", entry.actor) or entry.actor.startswith(f"{chosen.actor} ("))
            and chosen.target in ("", entry.target)
            and (chosen.start_time is None or entry.time >= chosen.start_time)
            and (chosen.end_time is None or entry.time < chosen.end_time)
        ][:limit]

    async def ensure_partitions(self) -> None:
        """Nothing to prepare here."""

    async def purge(self, task_retention_ms: int, event_retention_ms: int, audit_retention_ms: int, limit: int) -> int:
        state, tasks_before = self.state, self._now - timedelta(milliseconds=task_retention_ms)
        audit_before = self._now - timedelta(milliseconds=audit_retention_ms)
        kept = [entry for entry in state.audit if entry.time >= audit_before]
        purged, state.audit = len(state.audit) - len(kept), kept
        needed = {other for task in state.tasks.values() for other in task.depends_on}
        old = [
            t.id
            for t in state.tasks.values()
            if t.status in ENDED_STATUSES
            and t.status is not TaskStatus.QUARANTINED
            and t.end_time is not None
            and t.end_time < tasks_before
            and t.id not in needed
        ][:limit]
        for id_ in old:
            del state.tasks[id_]
        state.runs = {id_: run for id_, run in state.runs.items() if run.task_id not in old}
        return len(old) + purged

    async def purge_executors(self) -> int:
        before = self._now - timedelta(hours=24)
        gone = [id_ for id_, row in self.state.executors.items() if row.last_heard_time < before]
        keys = [key for key in self.state.breakers if any(key.endswith(f"@{id_}") for id_ in gone)]
        for key in keys:
            del self.state.breakers[key]
        return len(keys)


class MemoryDatabase:
    """Runs scripts one after another."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.state = _State()
        self._clock = clock
        self._lock = asyncio.Lock()

    async def run(
        self, work: Callable[[ports.Transaction], Awaitable[T]], *, read_only: bool = False, begins_with_standing: bool = False
    ) -> T:
        """See the Protocol."""
        async with self._lock:
            tx = MemoryTransaction(copy.copy(self.state), self._clock(), begins_with_standing=begins_with_standing)
            for name, value in vars(self.state).items():
                if isinstance(value, dict | list):
                    setattr(tx.state, name, copy.copy(value))
            result = await work(tx)
            if not read_only:
                tx.flush()
                self.state = tx.state
            return result

    async def vacuum(self) -> None:
        """Nothing to free."""
