"""A task's life: its states, the moves between them, and one function for each move.

    queued -> dispatching -> running -> completed | failed | cancelled | quarantined

A completion may come before the start verdict was recorded, so every end is legal from `dispatching` too. Only these
functions write a status; a move that `LEGAL_MOVES` does not list raises `IllegalTransition` and changes nothing.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any, TypedDict, Unpack
from uuid import UUID

import msgspec
from msgspec.structs import replace

from scheduler_service.core.reasons import HoldReason


class Priority(IntEnum):
    """A task's priority: lower goes first."""

    P0 = 0
    P1 = 1
    P2 = 2


class DependencyPolicy(StrEnum):
    """What a prerequisite that failed, was cancelled or does not exist does to a task: ends it, or leaves it waiting."""

    FAIL = "fail"
    WAIT = "wait"


class TaskStatus(StrEnum):
    """What a task is doing."""

    QUEUED = "queued"
    DISPATCHING = "dispatching"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    QUARANTINED = "quarantined"


class Move(StrEnum):
    """The moves of a task; each has a function of the same name."""

    CLAIM = "claim"
    START = "start"
    RETURN_TO_QUEUE = "return_to_queue"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"
    QUARANTINE = "quarantine"
    REQUEUE = "requeue"
    REQUEST_CANCEL = "request_cancel"
    EDIT = "edit"


LIVE_STATUSES: frozenset[TaskStatus] = frozenset({TaskStatus.DISPATCHING, TaskStatus.RUNNING})
ENDED_STATUSES: frozenset[TaskStatus] = frozenset(
    {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.QUARANTINED}
)

LEGAL_MOVES: Mapping[Move, Mapping[TaskStatus, TaskStatus]] = MappingProxyType(
    {
        Move.CLAIM: {TaskStatus.QUEUED: TaskStatus.DISPATCHING},
        Move.START: {TaskStatus.DISPATCHING: TaskStatus.RUNNING},
        Move.RETURN_TO_QUEUE: dict.fromkeys(LIVE_STATUSES, TaskStatus.QUEUED),
        Move.COMPLETE: dict.fromkeys(LIVE_STATUSES, TaskStatus.COMPLETED),
        Move.FAIL: dict.fromkeys({TaskStatus.QUEUED, *LIVE_STATUSES}, TaskStatus.FAILED),
        Move.CANCEL: dict.fromkeys({TaskStatus.QUEUED, TaskStatus.QUARANTINED, *LIVE_STATUSES}, TaskStatus.CANCELLED),
        Move.QUARANTINE: dict.fromkeys({TaskStatus.QUEUED, *LIVE_STATUSES}, TaskStatus.QUARANTINED),
        Move.REQUEUE: dict.fromkeys((TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.QUARANTINED), TaskStatus.QUEUED),
        Move.REQUEST_CANCEL: {status: status for status in LIVE_STATUSES},
        Move.EDIT: dict.fromkeys((TaskStatus.QUEUED, TaskStatus.QUARANTINED), TaskStatus.QUEUED),
    }
)
"""For each move: from which status to which. What is missing is illegal."""

RANK_DELAYS: Mapping[Priority, timedelta] = MappingProxyType(
    {Priority.P0: timedelta(0), Priority.P1: timedelta(hours=1), Priority.P2: timedelta(hours=4)}
)


class IllegalTransition(Exception):
    """A state machine was asked for a move that its table does not list; nothing was changed."""


class Task(msgspec.Struct, frozen=True, omit_defaults=True):
    """One task as stored; every time is aware UTC.

    The defaults are what is usual of a new one, and not sent to be stored: the statement `add_tasks` puts them in again.
    A Struct, as a move makes a new one: of a record this wide a dataclass takes forty times as long to copy. The order of the
    fields is that of the columns in `storage/queries/tasks.sql`.
    """

    id: UUID
    title: str
    task_type: str
    priority: Priority
    max_tries: int
    timeout: timedelta
    backend: str
    status: TaskStatus
    rank_time: datetime
    due_time: datetime
    create_time: datetime
    update_time: datetime
    description: str = ""
    skill: str = ""
    payload: Mapping[str, Any] = msgspec.field(default_factory=dict)
    depends_on: tuple[UUID, ...] = ()
    not_before_time: datetime | None = None
    hold_reason: HoldReason = HoldReason.NONE
    run_id: UUID | None = None
    fence: int = 0
    tries: int = 0
    start_failures: int = 0
    last_start_failure_time: datetime | None = None
    executor_id: str = ""
    exit_code: int | None = None
    result: str = ""
    error: str = ""
    cancel_requested: bool = False
    blocked_by: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    next_attempt_time: datetime | None = None
    dependency_policy: DependencyPolicy = DependencyPolicy.FAIL
    backoff_count: int = 0  # returns to the queue with a back-off since the last end that the task was to blame for


class TaskChanges(TypedDict, total=False):
    """What `edit` may change."""

    title: str
    description: str
    priority: Priority
    skill: str
    payload: Mapping[str, Any]
    not_before_time: datetime | None


EDITABLE_FIELDS: frozenset[str] = frozenset(TaskChanges.__annotations__)


def rank_time(create_time: datetime, priority: Priority) -> datetime:
    """The key by which the queue is ordered, oldest first: priority first, ageing without starvation."""
    return create_time + RANK_DELAYS[priority]


def due_time(create_time: datetime, not_before_time: datetime | None, next_attempt_time: datetime | None) -> datetime:
    """From when on a queued task may be claimed."""
    due = create_time if not_before_time is None else max(create_time, not_before_time)
    return due if next_attempt_time is None else max(due, next_attempt_time)


def is_due(task: Task, now: datetime) -> bool:
    """Whether nothing of the task's own times is in the way. Its creation is none of them: a clock may go back."""
    return all(time is None or time <= now for time in (task.not_before_time, task.next_attempt_time))


def waiting_hold(task: Task, now: datetime) -> HoldReason:
    """Why a queued task is not due at `now` by itself; a task in another status keeps the hold reason it has.

    The stored hold reason is as of the last write, and a back-off ends without one: answers show this instead.
    """
    if task.status is not TaskStatus.QUEUED:
        return task.hold_reason
    if task.blocked_by > 0:
        return HoldReason.DEPENDENCY
    if task.next_attempt_time is not None and task.next_attempt_time > now:
        return HoldReason.BACKOFF
    if task.not_before_time is not None and task.not_before_time > now:
        return HoldReason.NOT_BEFORE
    return HoldReason.NONE


def _target(task: Task, move: Move) -> TaskStatus:
    target = LEGAL_MOVES[move].get(task.status)
    if target is None:
        legal = ", ".join(sorted(LEGAL_MOVES[move]))
        raise IllegalTransition(f"task {task.id} is {task.status}; {move} needs {legal}")
    return target


def claim(task: Task, run_id: UUID, executor_id: str, now: datetime) -> Task:
    """Take a queued task for one attempt: a new run, the fence one higher."""
    return replace(
        task,
        status=_target(task, Move.CLAIM),
        hold_reason=HoldReason.NONE,
        run_id=run_id,
        fence=task.fence + 1,
        executor_id=executor_id,
        start_time=None,
        end_time=None,
        next_attempt_time=None,
        update_time=now,
    )


def start(task: Task, now: datetime, start_time: datetime | None = None) -> Task:
    """Record a successful start verdict; the failed one before it is forgotten, but not `start_failures`.

    The back-off is not: a run that starts and is lost, again and again, must come less and less often.
    """
    return replace(
        task,
        status=_target(task, Move.START),
        start_time=start_time or now,
        last_start_failure_time=None,
        update_time=now,
    )


def return_to_queue(
    task: Task,
    now: datetime,
    next_attempt_time: datetime | None,
    *,
    hold_reason: HoldReason = HoldReason.BACKOFF,
) -> Task:
    """Give a live task back to the queue; run, executor and start time are cleared together.

    `next_attempt_time` None means at once. The error of the last attempt stays, so that a waiting task says why.
    """
    return replace(
        task,
        status=_target(task, Move.RETURN_TO_QUEUE),
        hold_reason=hold_reason if next_attempt_time is not None else HoldReason.NONE,
        run_id=None,
        executor_id="",
        start_time=None,
        end_time=None,
        next_attempt_time=next_attempt_time,
        due_time=due_time(task.create_time, task.not_before_time, next_attempt_time),
        backoff_count=task.backoff_count + 1 if next_attempt_time is not None else task.backoff_count,
        update_time=now,
    )


def complete(task: Task, exit_code: int | None, result: str, now: datetime) -> Task:
    """End a live task well."""
    return replace(
        task,
        status=_target(task, Move.COMPLETE),
        hold_reason=HoldReason.NONE,
        exit_code=exit_code,
        result=result,
        error="",
        start_time=task.start_time or now,
        end_time=now,
        update_time=now,
    )


def fail(
    task: Task,
    error: str,
    exit_code: int | None,
    result: str,
    now: datetime,
    hold_reason: HoldReason = HoldReason.NONE,
) -> Task:
    """End a task for good: another try cannot mend it, or (`dependency_failed`) a prerequisite ended badly."""
    return replace(
        task,
        status=_target(task, Move.FAIL),
        hold_reason=hold_reason,
        exit_code=exit_code,
        result=result,
        error=error,
        next_attempt_time=None,
        end_time=now,
        update_time=now,
    )


def cancel(task: Task, now: datetime, error: str) -> Task:
    """End a task on request; of a live one only when its process tree is known to be gone."""
    return replace(
        task,
        status=_target(task, Move.CANCEL),
        hold_reason=HoldReason.NONE,
        error=error,
        next_attempt_time=None,
        end_time=now,
        update_time=now,
    )


def quarantine(task: Task, hold_reason: HoldReason, error: str, now: datetime) -> Task:
    """Put a task aside for a person; exit code and result of its last run stay."""
    return replace(
        task,
        status=_target(task, Move.QUARANTINE),
        hold_reason=hold_reason,
        error=error,
        next_attempt_time=None,
        end_time=now,
        update_time=now,
    )


def _fresh_in_queue(task: Task, status: TaskStatus, now: datetime) -> Task:
    fresh = replace(
        task,
        status=status,
        run_id=None,
        executor_id="",
        tries=0,
        start_failures=0,
        last_start_failure_time=None,
        backoff_count=0,
        exit_code=None,
        result="",
        error="",
        cancel_requested=False,
        start_time=None,
        end_time=None,
        next_attempt_time=None,
        due_time=due_time(task.create_time, task.not_before_time, None),
        update_time=now,
    )
    return replace(fresh, hold_reason=waiting_hold(fresh, now))


def requeue(task: Task, now: datetime) -> Task:
    """Put an ended task back as if new: counters and outcome cleared, the fence kept."""
    return _fresh_in_queue(task, _target(task, Move.REQUEUE), now)


def request_cancel(task: Task, now: datetime) -> Task:
    """Note that a live task is to be cancelled; its status follows when its run has ended."""
    return replace(
        task,
        status=_target(task, Move.REQUEST_CANCEL),
        hold_reason=HoldReason.CANCEL_REQUESTED,
        cancel_requested=True,
        update_time=now,
    )


def edit(task: Task, now: datetime, **changes: Unpack[TaskChanges]) -> Task:
    """Change a queued task, or a quarantined one, which is requeued by it.

    Raises ValueError for a field that is not in `EDITABLE_FIELDS`.
    """
    unknown = changes.keys() - EDITABLE_FIELDS
    if unknown:
        raise ValueError(f"cannot change {', '.join(sorted(unknown))}; only {', '.join(sorted(EDITABLE_FIELDS))}")
    target = _target(task, Move.EDIT)
    changed = replace(task, **changes)
    changed = replace(
        changed,
        rank_time=rank_time(changed.create_time, changed.priority),
        due_time=due_time(changed.create_time, changed.not_before_time, changed.next_attempt_time),
        update_time=now,
    )
    if task.status is TaskStatus.QUARANTINED:
        return _fresh_in_queue(changed, target, now)
    return replace(changed, hold_reason=waiting_hold(changed, now))
