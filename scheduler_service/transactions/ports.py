"""What a transaction script needs of a database.

Locks are taken in one order everywhere: leader row, breaker rows by key, tasks by id (skipping locked ones when claiming),
then, at the commit, the event lock, and under it the counters. Scripts call the methods in that order; `record` and `emit`
only collect, and the database writes what they collected just before it commits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar
from uuid import UUID

from scheduler_service.core.breaker import Breaker
from scheduler_service.core.run import Run
from scheduler_service.core.task import Task
from scheduler_service.transactions.stored import (
    AuditEntry,
    AuditFilter,
    BackendState,
    BillingPause,
    BudgetCap,
    DispatchEvent,
    Drain,
    DueTasks,
    Event,
    EventFilter,
    ExecutorRow,
    LastDispatch,
    Leadership,
    LiveCount,
    Lock,
    OperatorSettings,
    Part,
    RunLease,
    RunPlace,
    SettingOverride,
    Standing,
    StoredRequest,
    TaskFilter,
    UnreadableTask,
    WindowRow,
)

T = TypeVar("T")


class Transaction(Protocol):
    """One open transaction. Everything read is current; everything written is seen by later reads of the same transaction."""

    @property
    def now(self) -> datetime:
        """The transaction's time by the database's clock, aware UTC."""
        ...

    # --- cluster and leader
    async def cluster_id(self) -> UUID: ...
    async def leadership(self, lock: Lock = Lock.NONE) -> Leadership: ...
    async def save_leadership(self, leadership: Leadership) -> None: ...
    async def save_window_settings(self, window_ms: int, open_duration_ms: int) -> None: ...

    async def standing(self, parts: Collection[Part], window: timedelta) -> Standing:
        """These parts at one instant, nothing of them locked. `window` is as long as it is without an override."""
        ...

    # --- breakers and backends
    async def breakers(self, keys: Collection[str] | None = None, lock: Lock = Lock.NONE) -> dict[str, Breaker]:
        """By key, in the order of keys; all when `keys` is None. Unknown keys are left out."""
        ...

    async def add_breakers(self, keys: Collection[str]) -> None:
        """Adds CLOSED rows for keys that have none."""
        ...

    async def save_breakers(self, breakers: Iterable[Breaker], *, actor: str | None = None) -> None:
        """Saves rows; `actor` None keeps who tripped them, '' says that nobody did."""
        ...

    async def backend_states(self) -> dict[str, BackendState]: ...
    async def note_start_successes(self, times: Mapping[str, datetime], last: LastDispatch) -> None:
        """The newest successful start of each backend, and of all."""
        ...

    async def note_trickles(self, times: Mapping[str, datetime]) -> None:
        """When the single try of each backend was spent."""
        ...

    # --- tasks
    async def add_tasks(self, tasks: Sequence[Task]) -> None: ...
    async def tasks(self, ids: Collection[UUID], lock: Lock = Lock.NONE) -> dict[UUID, Task]:
        """By id. Unknown ids are left out, and so are rows that cannot be read, which is logged."""
        ...

    async def tasks_to_move(self, ids: Collection[UUID]) -> dict[UUID, Task]:
        """The same, locked for update, without description and payload, which no transition looks at."""
        ...

    async def save_tasks(self, tasks: Iterable[Task]) -> None:
        """Saves what transitions change: the status and what goes with it."""
        ...

    async def save_edited_tasks(self, tasks: Iterable[Task]) -> None:
        """Saves also what an operator may edit."""
        ...

    async def due_tasks(
        self,
        backend: str,
        limit: int,
        *,
        skip: Collection[UUID] = (),
        unfailed_only: bool = False,
        lock: Lock = Lock.UPDATE,
    ) -> DueTasks:
        """Due, unblocked, queued tasks of a backend in rank order; while they are locked, what others have locked is passed over.

        `unfailed_only` leaves out tasks whose last start failed.
        """
        ...

    async def quarantine_unreadable(self, tasks: Iterable[UnreadableTask]) -> None:
        """Puts queued tasks aside whose rows cannot be read, so that no transition can."""
        ...

    async def unblock_dependents(self, completed: Collection[UUID]) -> None:
        """One prerequisite less for every queued task that waits for one of these."""
        ...

    async def recount_blocked(self) -> int:
        """Mends tasks that wait for a prerequisite which has completed without their hearing of it; how many."""
        ...

    async def waiting_dependents(self, ids: Collection[UUID]) -> dict[UUID, list[UUID]]:
        """Queued tasks by the prerequisite, of `ids`, that they wait for."""
        ...

    async def dependents(self, task_id: UUID, limit: int) -> tuple[list[UUID], int]:
        """Tasks that depend on this one, in any status, at most `limit` of them by id; and how many there are in all."""
        ...

    async def live_counts(self) -> list[LiveCount]: ...
    async def waiting_at_most(self) -> int:
        """No fewer than the queued tasks that are committed, at a cost that does not grow with them."""
        ...

    async def count_waiting(self) -> int:
        """Queued tasks, counted; `waiting_at_most` reckons on from there."""
        ...

    async def note_put_back(self, count: int) -> None:
        """Tasks that had ended or were quarantined wait again: `waiting_at_most` would not see that by itself."""
        ...

    async def queue_position(self, task: Task) -> int:
        """Place among the due, unblocked tasks of the same backend, from 1; of one that is not due, the place it would have."""
        ...

    async def list_tasks(self, chosen: TaskFilter, before_seq: int | None, limit: int) -> list[tuple[int, Task]]:
        """Newest first, with their sequence numbers, below `before_seq`; without description, payload and result."""
        ...

    async def count_tasks(self, chosen: TaskFilter, after_seq: int, limit: int) -> int:
        """Tasks above `after_seq`, counted up to `limit`."""
        ...

    async def task_ids(self, chosen: TaskFilter, after_seq: int, limit: int) -> list[tuple[int, UUID]]:
        """Oldest first, with their sequence numbers, above `after_seq`."""
        ...

    # --- runs
    async def add_runs(self, runs: Sequence[Run]) -> None: ...
    async def runs(self, run_ids: Collection[UUID]) -> dict[UUID, Run]: ...
    async def run_places(self, run_ids: Collection[UUID]) -> list[RunPlace]: ...
    async def runs_of_task(self, task_id: UUID, limit: int = 100) -> list[Run]: ...
    async def live_runs(self, executor_id: str) -> list[Run]: ...
    async def live_leases(self) -> list[RunLease]: ...
    async def unanswered_runs(self, executor_id: str, claimed_by: datetime) -> list[Run]:
        """Runs that were claimed by a time, and of which nothing has been heard."""
        ...

    async def runs_to_cancel(self, executor_id: str) -> list[UUID]:
        """Live runs whose task is to be cancelled."""
        ...

    async def save_runs(self, runs: Iterable[Run]) -> None: ...

    # --- executors
    async def executors(self) -> list[ExecutorRow]: ...
    async def save_executor(self, row: ExecutorRow) -> None: ...

    # --- statistics and events
    def record(self, event: DispatchEvent) -> None: ...
    def emit(self, event: Event) -> None: ...
    async def window_rows(self, since: datetime, *, by_executor: bool = False) -> list[WindowRow]:
        """Decisions at or after `since`; there is no upper edge. `executor_id` is '' unless they are told by executor."""
        ...

    async def dispatch_events(self, chosen: EventFilter, before_id: int | None, limit: int) -> list[DispatchEvent]: ...
    async def events_after(self, after_id: int, types: Collection[str], limit: int) -> list[Event]: ...
    async def newest_event_id(self) -> int: ...
    async def last_event_id_given(self) -> int:
        """At least the newest event's id, also when its event is not committed yet, or forgotten."""
        ...

    async def last_dispatch(self) -> LastDispatch | None: ...

    # --- overrides
    async def drains(self) -> list[Drain]: ...
    async def save_drain(self, drain: Drain) -> None: ...
    async def delete_drain(self, source: str) -> None: ...
    async def billing_pauses(self) -> list[BillingPause]:
        """All rows, over or not, by backend."""
        ...

    async def save_billing_pause(self, pause: BillingPause) -> None: ...
    async def delete_billing_pause(self, backend: str) -> None: ...
    async def operator_settings(self) -> OperatorSettings: ...
    async def save_budget_cap(self, cap: BudgetCap) -> None: ...
    async def save_setting_override(self, override: SettingOverride) -> None: ...
    async def delete_setting_override(self, name: str) -> None: ...

    # --- requests and audit
    async def stored_requests(self, method: str, request_ids: Collection[str]) -> dict[str, StoredRequest]: ...
    async def store_requests(self, method: str, requests: Mapping[str, StoredRequest]) -> None: ...
    async def append_audit(self, entry: AuditEntry) -> None: ...
    async def audit_entries(self, chosen: AuditFilter, before_id: int | None, limit: int) -> list[AuditEntry]:
        """Newest first, below `before_id`."""
        ...

    # --- housekeeping
    async def ensure_partitions(self) -> None: ...
    async def purge(self, task_retention_ms: int, event_retention_ms: int, audit_retention_ms: int, limit: int) -> int:
        """Deletes what its retention is over, at most `limit` rows a kind; tasks still depended on stay. Returns rows deleted."""
        ...

    async def purge_executors(self) -> int:
        """Forgets executors that were not heard for 24 h, with their breakers. Returns rows deleted."""
        ...


class Database(Protocol):
    """Carries out transaction scripts."""

    async def run(
        self, work: Callable[[Transaction], Awaitable[T]], *, read_only: bool = False, begins_with_standing: bool = False
    ) -> T:
        """Runs `work` in one transaction and commits; `read_only`: work that only reads, and takes no locks.

        `begins_with_standing`: it reads a standing before it needs the time, which then need not be asked for by itself.

        `work` may be run again as a whole after a serialization failure, deadlock or lock time-out. Raises StorageUnavailable
        (errors.py) when the database cannot be reached or does not answer in time; the commit may then have happened.
        """
        ...

    async def vacuum(self) -> None:
        """Frees the room of the many rows that housekeeping has deleted. Raises StorageUnavailable."""
        ...
