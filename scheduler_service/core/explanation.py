"""What the next tick would do, in one sentence: about the queue as a whole, or about one task.

The same sentence is shown by the rpc, on the page, in the CLI and in alerts. It tells a plan (transactions/ticking.py) that was
made and thrown away, so it cannot promise what the tick does not do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from scheduler_service.core.dispatch_checks import GateFacts, Verdict, first_hold
from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.task import LIVE_STATUSES, Task, TaskStatus

PLACEMENT = "placement"
"""The name of the verdict about a backend that no gate holds and that has no room on any executor all the same."""


class StartLimit(StrEnum):
    """What bounds how many tasks of a backend a tick starts."""

    ROOM = "room"
    RAMP = "ramp"
    SINGLE_TRY = "single_try"
    PROBE = "probe"
    TICK = "tick"


_LIMIT_WORDS = {
    StartLimit.ROOM: "as many as there is room for",
    StartLimit.RAMP: "as starts ramp up after a hold",
    StartLimit.SINGLE_TRY: "a single try, as too few starts succeed",
    StartLimit.PROBE: "as a probe, as its breaker is open",
    StartLimit.TICK: "as many as one tick may",
}


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """A plan in short. `starts`: tasks that the tick starts, by backend; `limits`: what bounds them.

    `verdicts` are the gates' in chain order, then those of backends without room on any executor. `starting`: by task, on which
    executor it starts; `put_aside`: by task, what pre-flight has found.
    """

    verdicts: Sequence[Verdict]
    starts: Mapping[str, int] = msgspec.field(default_factory=dict)
    limits: Mapping[str, StartLimit] = msgspec.field(default_factory=dict)
    starting: Mapping[UUID, str] = msgspec.field(default_factory=dict)
    put_aside: Mapping[UUID, str] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskSaying:
    """`reason` is its own hold or the gate that holds it, '' when nothing does; `clears_time` is its end."""

    starts: bool
    reason: str
    sentence: str
    clears_time: datetime | None = None


def about_queue(facts: GateFacts, outlook: Outlook) -> str:
    """The one sentence that says why nothing starts, or what does."""
    concerned = [b for b in facts.backends if b.queued]
    if not concerned:
        hold = first_hold(outlook.verdicts, "")
        return f"Nothing is queued; a new task would be held: {_words(hold)}." if hold else "Nothing is queued."
    holds = {b.backend: first_hold(outlook.verdicts, b.backend) for b in concerned}
    distinct = [hold for hold in dict.fromkeys(holds.values()) if hold is not None]
    parts = [f"{hold.backend} is held, {_words(hold)}" if hold.backend else _words(hold) for hold in distinct]
    if outlook.put_aside:
        parts.insert(0, f"{_tasks(len(outlook.put_aside))} put aside, as pre-flight finds fault (pre_flight_check_failed)")
    if outlook.starts:
        starts = ", ".join(f"{_tasks(n)} on {backend}" for backend, n in sorted(outlook.starts.items()))
        return "; ".join([f"The next tick starts {starts}", *parts]) + "."
    ramping = [b.backend for b in concerned if b.due and outlook.limits.get(b.backend) is StartLimit.RAMP]
    waiting = sum(b.queued - b.due for b in concerned if holds[b.backend] is None)
    if waiting and not ramping:
        parts.insert(0, f"{_tasks(waiting)} {'waits' if waiting == 1 else 'wait'} for a back-off, a time or a prerequisite")
    if ramping:
        parts.insert(0, f"starts on {', '.join(ramping)} ramp up after a hold")
    return f"Nothing starts: {'; '.join(parts)}."


def about_task(
    task: Task, outlook: Outlook, now: datetime, place: int, prerequisites: Mapping[UUID, TaskStatus] | None = None
) -> TaskSaying:
    """Why one task does not start, or that it does: its own holds first, then the gate that holds its backend, then its place.

    `place` counts from 1 among the due tasks of its backend; `prerequisites` are the statuses of those that exist.
    """
    name = f"Task {task.id}"
    if task.status in LIVE_STATUSES:
        ending = " and is being cancelled" if task.cancel_requested else ""
        return TaskSaying(False, "", f"{name} is {task.status.value} on {task.executor_id}{ending}.")
    if task.status is not TaskStatus.QUEUED:
        why = f": {task.error}" if task.error else ""
        code = f" ({task.hold_reason.value})" if task.hold_reason else ""
        return TaskSaying(False, task.hold_reason.value, f"{name} is {task.status.value}{why}{code}.")
    if task.id in outlook.starting:
        return TaskSaying(True, "", f"{name} starts with the next tick on {outlook.starting[task.id]}.")
    if task.id in outlook.put_aside:
        code = HoldReason.PRE_FLIGHT_CHECK_FAILED.value
        return TaskSaying(False, code, f"{name} is put aside by the next tick: {outlook.put_aside[task.id]} ({code}).")
    return _own_hold(name, task, now, prerequisites or {}) or _gate_hold(name, task, outlook) or _turn(name, task, outlook, place)


def open_prerequisites(task: Task, prerequisites: Mapping[UUID, TaskStatus]) -> list[tuple[UUID, TaskStatus | None]]:
    """Those that have not completed, with their status; None: there is no such task."""
    return [
        (other, prerequisites.get(other)) for other in task.depends_on if prerequisites.get(other) is not TaskStatus.COMPLETED
    ]


def _own_hold(name: str, task: Task, now: datetime, prerequisites: Mapping[UUID, TaskStatus]) -> TaskSaying | None:
    found: list[tuple[HoldReason, str, datetime | None]] = []
    if task.blocked_by > 0:
        open_ones = open_prerequisites(task, prerequisites)
        words = "waits for prerequisites"
        if open_ones:
            other, status = open_ones[0]
            more = f" and {len(open_ones) - 1} more" if len(open_ones) > 1 else ""
            words = f"waits for prerequisite {other} ({status.value if status else 'does not exist'}){more}"
        found.append((HoldReason.DEPENDENCY, words, None))
    for time, reason, words in (
        (task.next_attempt_time, HoldReason.BACKOFF, "waits for its back-off until"),
        (task.not_before_time, HoldReason.NOT_BEFORE, "is not to start before"),
    ):
        if time is not None and time > now:
            found.append((reason, f"{words} {_moment(time)}", time))
    if not found:
        return None
    times = [time for _, _, time in found]
    clears = None if None in times else max(time for time in times if time is not None)
    words = " and ".join(f"{words} ({reason})" for reason, words, _ in found)
    return TaskSaying(False, found[0][0].value, f"{name} {words}.", clears)


def _gate_hold(name: str, task: Task, outlook: Outlook) -> TaskSaying | None:
    hold = first_hold(outlook.verdicts, task.backend)
    if hold is None or hold.reason is None:
        return None
    where = f"{hold.backend}: " if hold.backend else ""
    return TaskSaying(False, hold.reason.value, f"{name} is held: {where}{_words(hold)}.", hold.clears_time)


def _turn(name: str, task: Task, outlook: Outlook, place: int) -> TaskSaying:
    starts = outlook.starts.get(task.backend, 0)
    before = f"{_tasks(place - 1)} {'stands' if place == 2 else 'stand'} before it on {task.backend}" if place > 1 else ""
    limit = outlook.limits.get(task.backend)
    how = f", {_LIMIT_WORDS[limit]}" if limit else ""
    tick = f"the next tick starts {starts or 'none'} there{how}"
    if outlook.put_aside and limit is StartLimit.ROOM:
        tick += f", and puts {len(outlook.put_aside)} aside that pre-flight finds fault with"
    return TaskSaying(False, "", f"{name} waits for its turn: {before + ', and ' if before else ''}{tick}.")


def _tasks(n: int) -> str:
    return f"{n} task" if n == 1 else f"{n} tasks"


def _moment(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _words(hold: Verdict) -> str:
    until = f" until {_moment(hold.clears_time)}" if hold.clears_time else ""
    return f"{hold.detail}{until} ({hold.reason})"
