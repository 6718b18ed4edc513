"""What transaction scripts and a database give each other, besides tasks, runs and breakers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from scheduler_service.core.breaker import Breaker
from scheduler_service.core.task import Priority, Task, TaskStatus
from scheduler_service.core.tuning import SettingValue


class Lock(StrEnum):
    """How rows are locked while they are read. UPDATE keeps others from changing them.

    KEY_SHARE and NO_KEY_UPDATE do not wait for each other: they are for the leader row (transactions/leading.py).
    """

    NONE = "none"
    KEY_SHARE = "key_share"
    SHARE = "share"
    NO_KEY_UPDATE = "no_key_update"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Leadership:
    """The leader row. `term` grows with each change of holder."""

    holder: UUID | None
    address: str
    term: int
    lease_until: datetime | None
    tick_success_time: datetime | None = None
    tick_error: str = ""


class DispatchEvent(msgspec.Struct, frozen=True):
    """A decision behind the window. `id` is 0 until it is stored."""

    create_time: datetime
    success: bool
    reason: str
    detail: str
    attempt: bool
    backend: str
    task_id: UUID | None = None
    run_id: UUID | None = None
    executor_id: str = ""
    id: int = 0


class Event(msgspec.Struct, frozen=True):
    """Something that happened. `id` is 0 until it is stored; ids grow in the order of commits.

    `payload`: as stored it is JSON; before, ids and words may stand in it that become texts there.
    """

    type: str
    time: datetime
    source: str
    payload: Mapping[str, Any]
    id: int = 0


class WindowRow(msgspec.Struct, frozen=True):
    """Decisions of the window that agree in everything but their time."""

    backend: str
    executor_id: str
    attempt: bool
    success: bool
    reason: str
    n: int
    last_time: datetime


@dataclass(frozen=True, slots=True)
class Drain:
    """One source that drains."""

    source: str
    reason: str
    actor: str
    until_idle: bool
    since_time: datetime


@dataclass(frozen=True, slots=True)
class BillingPause:
    """A pause of one backend, or of all (backend '')."""

    backend: str
    until_time: datetime
    since_time: datetime
    reason: str
    actor: str


@dataclass(frozen=True, slots=True)
class BudgetCap:
    """The operator's ceiling on local slots; `slots` None means that there is none."""

    slots: int | None
    actor: str = ""
    reason: str = ""
    since_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class SettingOverride:
    """A setting that was changed at run time."""

    name: str
    value: SettingValue
    actor: str
    reason: str
    since_time: datetime


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """What operators have set and every decision reads: the ceiling on slots, and changed settings by name.

    `shown_window_ms` and `shown_open_duration_ms` are what the view `working_memory` counts with.
    """

    cap: BudgetCap = BudgetCap(None)
    overrides: Mapping[str, SettingOverride] = field(default_factory=dict)
    shown_window_ms: int = 3_600_000
    shown_open_duration_ms: int = 1_800_000

    @property
    def values(self) -> dict[str, SettingValue]:
        """The changed values by name."""
        return {name: override.value for name, override in self.overrides.items()}


class BackendState(msgspec.Struct, frozen=True):
    """What is remembered of a backend as a whole."""

    backend: str
    last_start_success_time: datetime | None = None
    last_trickle_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExecutorRow:
    """An executor as it was last heard by a leader; `snapshot` is the ExecutorReport as a JSON object."""

    executor_id: str
    target: str
    boot_id: str
    snapshot: Mapping[str, Any]
    last_heard_time: datetime


@dataclass(frozen=True, slots=True)
class LastDispatch:
    """The newest successful start."""

    task_id: UUID
    task_title: str
    run_id: UUID
    dispatched_time: datetime


class LiveCount(msgspec.Struct, frozen=True):
    """Tasks dispatching or running that agree in executor, backend and kind."""

    executor_id: str
    backend: str
    internal: bool
    n: int


class QueueCount(msgspec.Struct, frozen=True):
    """Queued tasks of a backend, and how many of them are due and unblocked."""

    backend: str
    queued: int
    due: int


class QueueDepth(msgspec.Struct, frozen=True):
    """Tasks of a priority in a status that is no end."""

    priority: Priority
    status: TaskStatus
    n: int


class OldestDue(msgspec.Struct, frozen=True):
    """Since when the oldest due, unblocked task of a priority is due."""

    priority: Priority
    due_time: datetime


class About(msgspec.Struct, frozen=True):
    """What people are shown besides. A priority without a due task is missing in `oldest_due`."""

    cluster_id: UUID
    leadership: Leadership
    executors: tuple[ExecutorRow, ...]
    last_dispatch: LastDispatch | None
    depths: tuple[QueueDepth, ...]
    oldest_due: tuple[OldestDue, ...]


class Part(StrEnum):
    """A part of `Standing`: one of its fields, WINDOW_BY_EXECUTOR the field `window` with the executors in it."""

    OPERATOR = "operator"
    BREAKERS = "breakers"
    TRIPPED_BY = "tripped_by"
    BACKEND_STATES = "backend_states"
    DRAINS = "drains"
    BILLING_PAUSES = "billing_pauses"
    LIVE = "live"
    HAS_INTERNAL = "has_internal"
    QUEUED_BACKENDS = "queued_backends"
    QUEUE = "queue"
    WINDOW = "window"
    WINDOW_BY_EXECUTOR = "window_by_executor"
    ABOUT = "about"


class Standing(msgspec.Struct, frozen=True):
    """What the gates look at and what people are shown; what was not asked for is empty.

    `live` counts tasks dispatching or running; mappings go by key, name or backend. `has_internal`: an internal task is queued,
    dispatching or running. `tripped_by`: of the breakers that were tripped by hand. `queue` counts all that is queued,
    `queued_backends` costs the same however much that is.
    """

    operator: OperatorSettings = msgspec.field(default_factory=OperatorSettings)
    breakers: Mapping[str, Breaker] = msgspec.field(default_factory=dict)
    backend_states: Mapping[str, BackendState] = msgspec.field(default_factory=dict)
    drains: tuple[Drain, ...] = ()
    billing_pauses: tuple[BillingPause, ...] = ()
    tripped_by: Mapping[str, str] = msgspec.field(default_factory=dict)
    live: tuple[LiveCount, ...] = ()
    has_internal: bool = False
    queued_backends: frozenset[str] = frozenset()
    queue: tuple[QueueCount, ...] = ()
    window: tuple[WindowRow, ...] = ()
    about: About | None = None


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """The first answer to a request_id."""

    body_hash: bytes
    response: bytes


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who overrode what, and why; `detail` has what was `before` and what is `after`. `id` is 0 until it is stored."""

    time: datetime
    actor: str
    method: str
    target: str
    reason: str
    request_id: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries a page shows; '' and None mean all. `start_time` is included, `end_time` is not.

    `actor` is all of it, or the name that a caller gave itself.
    """

    method: str = ""
    actor: str = ""
    target: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks a page shows; empty means all."""

    statuses: Collection[TaskStatus] = ()
    task_types: Collection[str] = ()
    priorities: Collection[Priority] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableTask:
    """A task whose row holds what no task can, with what can be read of it. `why` is the error."""

    id: UUID
    title: str
    task_type: str
    priority: Priority
    backend: str
    tries: int
    why: str


@dataclass(frozen=True, slots=True)
class DueTasks:
    """Due tasks in rank order, and those whose rows cannot be read."""

    tasks: Sequence[Task]
    unreadable: Sequence[UnreadableTask] = ()


@dataclass(frozen=True, slots=True)
class RunPlace:
    """What of a run never changes, and is locked before it is read."""

    task_id: UUID
    breaker_key: str


@dataclass(frozen=True, slots=True)
class RunLease:
    """The lease of a live run."""

    run_id: UUID
    renew_seq: int
    lease_until: datetime | None


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which decisions a page shows; None and '' mean all."""

    task_id: UUID | None = None
    reason: str = ""
    success: bool | None = None


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """A row of the view `working_memory`, which shows operators what the reference showed them."""

    key: str
    value_json: Mapping[str, Any]
    updated_at: datetime
