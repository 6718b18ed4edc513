"""`transactions.ports.Transaction` on one PostgreSQL connection inside a transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any, LiteralString
from uuid import UUID

import msgspec
import structlog
from psycopg import DataError, sql
from psycopg.types.json import Jsonb

from scheduler_service.core.breaker import Breaker
from scheduler_service.core.run import Run
from scheduler_service.core.task import Priority, Task, TaskStatus
from scheduler_service.storage.rows import (
    EDITED_TASK,
    MOVED_RUN,
    MOVED_TASK,
    NEW_RUN,
    as_json,
    breaker_of,
    breaker_row,
    run_of,
    task_of,
    uuids,
)
from scheduler_service.storage.statements import Connection, Statements, aware_utc
from scheduler_service.transactions import stored
from scheduler_service.transactions.stored import Lock

_log = structlog.get_logger(__name__)

_LOCK_SUFFIX = {lock: f"_for_{lock.value}" if lock is not Lock.NONE else "" for lock in Lock}
_UNREADABLE = (DataError, ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError)
"""What a row raises that holds what no transaction of ours has written."""

_EXECUTOR_RETENTION = timedelta(hours=24)
_REQUEST_RETENTION = timedelta(hours=24)
_COUNTER_RETENTION = timedelta(days=14)

_COUNTED = ("create_time", "backend", "executor_id", "attempt", "success", "reason")
"""What decisions are counted by."""


@lru_cache(maxsize=32)
def _standing_query(parts: tuple[stored.Part, ...], statements: tuple[LiteralString, ...]) -> LiteralString:
    """A statement for each choice of parts: one with all of them, told which to leave out, was planned anew each time.

    Kept, as to put it together took longer than to look it up by its texts.
    """
    named: list[LiteralString] = [
        f"'{part.removesuffix('_by_executor')}', ({statement})" for part, statement in zip(parts, statements, strict=True)
    ]
    return f"SELECT now() AS now, json_build_object({', '.join(named)}) AS standing"


class PostgresTransaction(Statements):
    """One open transaction. What it records and emits is written just before it commits."""

    def __init__(
        self, connection: Connection, queries: Mapping[str, LiteralString], now: datetime | None, *, sends_ahead: bool
    ) -> None:
        super().__init__(connection, queries, now, sends_ahead=sends_ahead)
        self._decisions: list[stored.DispatchEvent] = []
        self._events: list[stored.Event] = []

    async def commit(self) -> None:
        """Writes collected decisions and events, which come last by lock order, and commits behind all that was written.

        Raises NotCommitted.
        """
        await self._write_collected()
        await self._commit()

    # --- cluster and leader

    async def cluster_id(self) -> UUID:
        found: UUID = (await self._one("cluster_id"))["cluster_id"]
        return found

    async def leadership(self, lock: Lock = Lock.NONE) -> stored.Leadership:
        row = (await self._all("get_leader" + _LOCK_SUFFIX[lock]))[0]
        return stored.Leadership(**row)

    async def save_leadership(self, leadership: stored.Leadership) -> None:
        await self._write("save_leader", **asdict(leadership))

    async def save_window_settings(self, window_ms: int, open_duration_ms: int) -> None:
        await self._write("save_window_settings", window_ms=window_ms, open_duration_ms=open_duration_ms)

    async def standing(self, parts: Collection[stored.Part], window: timedelta) -> stored.Standing:
        await self._written()
        query = _standing_query(tuple(parts), tuple([self._queries[f"part_{part}"] for part in parts]))
        cursor = await self._connection.execute(query, {"now": self._now, "window": window}, binary=True)
        (row,) = await cursor.fetchall()
        if self._now is None:
            self._now = aware_utc(row["now"])
        return msgspec.convert({part: found for part, found in row["standing"].items() if found is not None}, stored.Standing)

    # --- breakers and backends

    async def breakers(self, keys: Collection[str] | None = None, lock: Lock = Lock.NONE) -> dict[str, Breaker]:
        wanted = None if keys is None else list(keys)
        rows = await self._all("get_breakers" + _LOCK_SUFFIX[lock], keys=wanted)
        return {row["key"]: breaker_of(row) for row in rows}

    async def add_breakers(self, keys: Collection[str]) -> None:
        for key in sorted(keys):
            await self._write("add_breaker", key=key)

    async def save_breakers(self, breakers: Iterable[Breaker], *, actor: str | None = None) -> None:
        for breaker in sorted(breakers, key=lambda breaker: breaker.key):
            await self._write("save_breaker", **breaker_row(breaker), actor=actor)

    async def backend_states(self) -> dict[str, stored.BackendState]:
        return {row["backend"]: stored.BackendState(**row) for row in await self._all("get_backend_states")}

    async def note_start_successes(self, times: Mapping[str, datetime], last: stored.LastDispatch) -> None:
        rows = [{"backend": name, "last_start_success_time": time} for name, time in times.items()]
        await self._write("note_start_successes", rows=as_json(rows), **asdict(last))

    async def note_trickles(self, times: Mapping[str, datetime]) -> None:
        for name in sorted(times):
            await self._write("note_trickle", backend=name, time=times[name])

    # --- tasks

    async def add_tasks(self, tasks: Sequence[Task]) -> None:
        await self._rows("add_tasks", tasks)
        await self._rows(
            "add_dependencies",
            ({"task_id": task.id, "depends_on_id": other} for task in tasks for other in task.depends_on),
        )

    async def tasks(self, ids: Collection[UUID], lock: Lock = Lock.NONE) -> dict[UUID, Task]:
        return await self._tasks("get_tasks" + _LOCK_SUFFIX[lock], ids)

    async def tasks_to_move(self, ids: Collection[UUID]) -> dict[UUID, Task]:
        return await self._tasks("get_tasks_to_move", ids)

    async def _tasks(self, query: str, ids: Collection[UUID]) -> dict[UUID, Task]:
        if not ids:
            return {}
        tasks, unreadable = await self._readable(query, list(ids))
        for id_, why in unreadable.items():
            _log.error("task_row_unreadable", task_id=str(id_), error=why)
        return tasks

    async def _readable(self, query: str, ids: list[UUID]) -> tuple[dict[UUID, Task], dict[UUID, str]]:
        """Tasks by id; and why those cannot be read that cannot: one such row must not hide the others."""
        await self._written()
        try:
            return {task.id: task for task in await self._values(query, task_of, ids=uuids(ids))}, {}
        except _UNREADABLE as error:
            if len(ids) == 1:
                return {}, {ids[0]: f"{type(error).__name__}: {error}"[:500]}
        tasks: dict[UUID, Task] = {}
        unreadable: dict[UUID, str] = {}
        for id_ in sorted(ids):
            one, why = await self._readable(query, [id_])
            tasks |= one
            unreadable |= why
        return tasks, unreadable

    async def quarantine_unreadable(self, tasks: Iterable[stored.UnreadableTask]) -> None:
        for task in tasks:
            await self._write("quarantine_unreadable", id=task.id, why=task.why)

    async def save_tasks(self, tasks: Iterable[Task]) -> None:
        await self._rows("save_tasks", MOVED_TASK.rows(tasks))

    async def save_edited_tasks(self, tasks: Iterable[Task]) -> None:
        edited = list(tasks)
        await self._rows("save_edited_tasks", EDITED_TASK.rows(edited))
        await self.save_tasks(edited)

    async def due_tasks(
        self,
        backend: str,
        limit: int,
        *,
        skip: Collection[UUID] = (),
        unfailed_only: bool = False,
        lock: Lock = Lock.UPDATE,
    ) -> stored.DueTasks:
        given = {"backend": backend, "limit": limit, "skip": uuids(skip), "unfailed_only": unfailed_only}
        # An error of what was written before is none of these rows'.
        await self._written()
        try:
            return stored.DueTasks(await self._values("due_tasks" + _LOCK_SUFFIX[lock], task_of, **given))
        except _UNREADABLE:
            ids = [row["id"] for row in await self._all("due_task_ids" + _LOCK_SUFFIX[lock], **given)]
        tasks, unreadable = await self._readable("get_tasks", ids)
        told = [
            stored.UnreadableTask(**{**row, "priority": Priority(row["priority"])}, why=why)
            for id_, why in unreadable.items()
            for row in await self._all("describe_task", id=id_)
        ]
        # Not locked, one may have been claimed between the two reads: it is not queued any more.
        found = [task for id_ in ids if (task := tasks.get(id_)) is not None and task.status is TaskStatus.QUEUED]
        return stored.DueTasks(found, told)

    async def unblock_dependents(self, completed: Collection[UUID]) -> None:
        if completed:
            await self._write("unblock_dependents", ids=uuids(completed))

    async def recount_blocked(self) -> int:
        return await self._count("recount_blocked")

    async def waiting_dependents(self, ids: Collection[UUID]) -> dict[UUID, list[UUID]]:
        found: dict[UUID, list[UUID]] = {}
        for row in await self._all("waiting_dependents", ids=uuids(ids)) if ids else ():
            found.setdefault(row["depends_on_id"], []).append(row["task_id"])
        return found

    async def dependents(self, task_id: UUID, limit: int) -> tuple[list[UUID], int]:
        rows = await self._all("dependents", id=task_id, limit=limit)
        return [row["task_id"] for row in rows], rows[0]["total"] if rows else 0

    async def live_counts(self) -> list[stored.LiveCount]:
        return [stored.LiveCount(**row) for row in await self._all("live_counts")]

    async def waiting_at_most(self) -> int:
        return int((await self._one("waiting_at_most"))["n"])

    async def count_waiting(self) -> int:
        return int((await self._one("count_waiting"))["n"])

    async def note_put_back(self, count: int) -> None:
        await self._write("note_put_back", count=count)

    async def queue_position(self, task: Task) -> int:
        return int((await self._one("queue_position", id=task.id, backend=task.backend))["n"])

    async def list_tasks(self, chosen: stored.TaskFilter, before_seq: int | None, limit: int) -> list[tuple[int, Task]]:
        def numbered(values: Sequence[Any]) -> tuple[int, Task]:
            return values[0], task_of(values[1:])

        return await self._values("list_tasks", numbered, before_seq=before_seq, limit=limit, **_filter(chosen))

    async def count_tasks(self, chosen: stored.TaskFilter, after_seq: int, limit: int) -> int:
        return int((await self._one("count_tasks", after_seq=after_seq, limit=limit, **_filter(chosen)))["n"])

    async def task_ids(self, chosen: stored.TaskFilter, after_seq: int, limit: int) -> list[tuple[int, UUID]]:
        rows = await self._all("task_ids", after_seq=after_seq, limit=limit, **_filter(chosen))
        return [(row["seq"], row["id"]) for row in rows]

    # --- runs

    async def add_runs(self, runs: Sequence[Run]) -> None:
        await self._rows("add_runs", NEW_RUN.rows(runs))

    async def runs(self, run_ids: Collection[UUID]) -> dict[UUID, Run]:
        runs = await self._values("get_runs", run_of, run_ids=uuids(run_ids)) if run_ids else []
        return {run.run_id: run for run in runs}

    async def run_places(self, run_ids: Collection[UUID]) -> list[stored.RunPlace]:
        return await self._values("run_places", lambda values: stored.RunPlace(*values), run_ids=uuids(run_ids))

    async def runs_of_task(self, task_id: UUID, limit: int = 100) -> list[Run]:
        return await self._values("runs_of_task", run_of, task_id=task_id, limit=limit)

    async def live_runs(self, executor_id: str) -> list[Run]:
        return await self._values("live_runs", run_of, executor_id=executor_id)

    async def live_leases(self) -> list[stored.RunLease]:
        return [stored.RunLease(**row) for row in await self._all("live_leases")]

    async def unanswered_runs(self, executor_id: str, claimed_by: datetime) -> list[Run]:
        return await self._values("unanswered_runs", run_of, executor_id=executor_id, claimed_by=claimed_by)

    async def runs_to_cancel(self, executor_id: str) -> list[UUID]:
        return [row["run_id"] for row in await self._all("runs_to_cancel", executor_id=executor_id)]

    async def save_runs(self, runs: Iterable[Run]) -> None:
        await self._rows("save_runs", MOVED_RUN.rows(runs))

    # --- executors

    async def executors(self) -> list[stored.ExecutorRow]:
        return [stored.ExecutorRow(**row) for row in await self._all("get_executors")]

    async def save_executor(self, row: stored.ExecutorRow) -> None:
        await self._write("save_executor", **{**asdict(row), "snapshot": Jsonb(dict(row.snapshot))})

    # --- statistics and events

    def record(self, event: stored.DispatchEvent) -> None:
        self._decisions.append(event)

    def emit(self, event: stored.Event) -> None:
        self._events.append(event)

    async def _write_collected(self) -> None:
        if not self._decisions and not self._events:
            return
        counted = Counter(map(attrgetter(*_COUNTED), self._decisions))
        counts = [{**dict(zip(_COUNTED, key, strict=True)), "n": n} for key, n in counted.items()]
        await self._write("record", decisions=as_json(self._decisions), counted=as_json(counts), events=as_json(self._events))

    @property
    def emitted(self) -> bool:
        """Whether there is news for those who watch."""
        return bool(self._events)

    async def window_rows(self, since: datetime, *, by_executor: bool = False) -> list[stored.WindowRow]:
        if by_executor:
            return [stored.WindowRow(**row) for row in await self._all("window_rows_by_executor", since=since)]
        return [stored.WindowRow(**row) for row in await self._all("window_rows", since=since)]

    async def dispatch_events(self, chosen: stored.EventFilter, before_id: int | None, limit: int) -> list[stored.DispatchEvent]:
        rows = await self._all("list_dispatch_events", **asdict(chosen), before_id=before_id, limit=limit)
        return [stored.DispatchEvent(**row) for row in rows]

    async def events_after(self, after_id: int, types: Collection[str], limit: int) -> list[stored.Event]:
        rows = await self._all("events_after", after_id=after_id, types=list(types) or None, limit=limit)
        return [stored.Event(**row) for row in rows]

    async def newest_event_id(self) -> int:
        return int((await self._one("newest_event_id"))["id"])

    async def last_event_id_given(self) -> int:
        return int((await self._one("last_event_id_given"))["id"])

    async def last_dispatch(self) -> stored.LastDispatch | None:
        rows = await self._all("get_last_dispatch")
        return stored.LastDispatch(**rows[0]) if rows else None

    async def working_memory(self) -> list[stored.MemoryRow]:
        """The view's rows. PostgreSQL's own: the memory store has no view."""
        return [stored.MemoryRow(**row) for row in await self._all("working_memory")]

    # --- overrides

    async def drains(self) -> list[stored.Drain]:
        return [stored.Drain(**row) for row in await self._all("get_drains")]

    async def save_drain(self, drain: stored.Drain) -> None:
        await self._write("save_drain", **asdict(drain))

    async def delete_drain(self, source: str) -> None:
        await self._write("delete_drain", source=source)

    async def billing_pauses(self) -> list[stored.BillingPause]:
        return [stored.BillingPause(**row) for row in await self._all("get_billing_pauses")]

    async def save_billing_pause(self, pause: stored.BillingPause) -> None:
        await self._write("save_billing_pause", **asdict(pause))

    async def delete_billing_pause(self, backend: str) -> None:
        await self._write("delete_billing_pause", backend=backend)

    async def operator_settings(self) -> stored.OperatorSettings:
        rows = await self._all("operator_settings")
        first = rows[0]
        names = ("name", "value", "actor", "reason", "since_time")
        return stored.OperatorSettings(
            stored.BudgetCap(first["slots"], first["cap_actor"], first["cap_reason"], first["cap_time"]),
            {row["name"]: stored.SettingOverride(*(row[name] for name in names)) for row in rows if row["name"] is not None},
            first["window_ms"],
            first["open_duration_ms"],
        )

    async def save_budget_cap(self, cap: stored.BudgetCap) -> None:
        await self._write("save_budget_cap", **asdict(cap))

    async def save_setting_override(self, override: stored.SettingOverride) -> None:
        await self._write("save_setting_override", **{**asdict(override), "value": Jsonb(override.value)})

    async def delete_setting_override(self, name: str) -> None:
        await self._write("delete_setting_override", name=name)

    # --- requests and audit

    async def stored_requests(self, method: str, request_ids: Collection[str]) -> dict[str, stored.StoredRequest]:
        rows = await self._all("get_requests", method=method, request_ids=list(request_ids)) if request_ids else []
        return {row.pop("request_id"): stored.StoredRequest(**row) for row in rows}

    async def store_requests(self, method: str, requests: Mapping[str, stored.StoredRequest]) -> None:
        named = ({"method": method, "request_id": id_, **asdict(request)} for id_, request in requests.items())
        await self._rows("add_requests", named)

    async def append_audit(self, entry: stored.AuditEntry) -> None:
        await self._write("add_audit_entry", **{**asdict(entry), "detail": Jsonb(dict(entry.detail))})

    async def audit_entries(self, chosen: stored.AuditFilter, before_id: int | None, limit: int) -> list[stored.AuditEntry]:
        rows = await self._all("list_audit_entries", **asdict(chosen), before_id=before_id, limit=limit)
        return [stored.AuditEntry(**row) for row in rows]

    # --- housekeeping

    async def ensure_partitions(self) -> None:
        await self._write("ensure_partitions")

    async def purge(self, task_retention_ms: int, event_retention_ms: int, audit_retention_ms: int, limit: int) -> int:
        deleted = await self._count("purge_tasks", before=self.now - timedelta(milliseconds=task_retention_ms), limit=limit)
        events_before = self.now - timedelta(milliseconds=event_retention_ms)
        audit_before = self.now - timedelta(milliseconds=audit_retention_ms)
        deleted += await self._count("purge_audit_entries", before=audit_before, limit=limit)
        deleted += await self._count("purge_requests", before=self.now - _REQUEST_RETENTION)
        deleted += await self._count("purge_second_counts", before=self.now - _COUNTER_RETENTION)
        deleted += await self._count("purge_minute_counts", before=self.now - _COUNTER_RETENTION)
        for row in await self._all("old_partitions", before=events_before):
            await self._connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(row["name"])))
            deleted += 1
        return deleted

    async def purge_executors(self) -> int:
        before = self.now - _EXECUTOR_RETENTION
        return await self._count("purge_breakers", before=before) + await self._count("purge_executors", before=before)


def _filter(chosen: stored.TaskFilter) -> dict[str, object]:
    return {
        "statuses": [status.value for status in chosen.statuses] or None,
        "task_types": list(chosen.task_types) or None,
        "priorities": [int(priority) for priority in chosen.priorities] or None,
    }
