"""What `top` shows: a snapshot of the scheduler as lines, as many as there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from textwrap import wrap

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.message import Message

from dispatchctl.columns import priority_word, state_word, status_word
from dispatchctl.rendering import clean, cut, moment, relative, span_text, table_text

SHARED_LEAST = 3
# Fewer lines than this are a tight terminal.
ROOMY_LINES = 36
_STATUS_ORDER = ("queued", "dispatching", "running", "quarantined")


@dataclass(frozen=True, slots=True)
class Room:
    """How many lines each part may take, headers among them, and what stands between two parts."""

    sentence: int
    overrides: int
    executors: int
    breakers: int
    gap: tuple[str, ...]


WHOLE = Room(1_000, 1_000, 1_000, 1_000, ("",))
ROOMY = Room(4, 3, 6, 5, ("",))
TIGHT = Room(3, 2, 3, 3, ())


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read at one moment: the status, the tasks that run, the newest decisions, newest first."""

    status: pb.GetStatusResponse
    running: tuple[pb.Task, ...]
    decisions: tuple[pb.DispatchEvent, ...]

    @property
    def messages(self) -> dict[str, Message]:
        """As programs get it."""
        return {
            "status": self.status,
            "running": pb.ListTasksResponse(tasks=self.running),
            "decisions": pb.ListDispatchEventsResponse(events=self.decisions),
        }


def top_lines(found: Snapshot, now: datetime, width: int | None, height: int | None) -> list[str]:
    """The lines, each of at most `width` columns and at most `height` of them; None: as many as there are.

    What does not fit is counted. The sentence, pools, breakers and queue come first; running tasks and decisions share the rest.
    """
    room_for = WHOLE if height is None else ROOMY if height >= ROOMY_LINES else TIGHT
    gap, status = room_for.gap, found.status
    fixed = [
        *_sentence(status, width, room_for.sentence),
        *_head(status, now),
        *shortened(_overrides(status, now), room_for.overrides),
        *gap,
    ]
    fixed += [*shortened(_executors(status, width), room_for.executors), *gap]
    fixed += [*_breakers(status, now, width, room_for.breakers), *gap, _queue(status), ""]
    running, decisions = _running(found, now, width), _decisions(found, now, width)
    if height is not None:
        room = height - len(fixed) - len(gap)
        share = max(SHARED_LEAST, room - min(len(decisions), max(SHARED_LEAST, room // 2)))
        running = shortened(running, share)
        decisions = shortened(decisions, max(SHARED_LEAST, room - len(running)))
    lines = [line if line.startswith("\x1b") else cut(line, width) for line in [*fixed, *running, *gap, *decisions]]
    return lines if height is None else shortened(lines, height)


def shortened(lines: list[str], most: int) -> list[str]:
    """At most so many lines, the last of which counts what is left out."""
    if len(lines) <= most:
        return lines
    kept = max(most - 1, 0)
    return [*lines[:kept], f"… and {len(lines) - kept} more"][: max(most, 0)]


def _sentence(status: pb.GetStatusResponse, width: int | None, most: int) -> list[str]:
    """What all the rest explains, over as many lines as it may take."""
    words = f"{status.mode}: {clean(status.sentence)}"
    if width is None:
        return [words]
    return wrap(words, width, max_lines=most, placeholder=" …", break_on_hyphens=False)


def _head(status: pb.GetStatusResponse, now: datetime) -> list[str]:
    leads = "this replica" if status.leader else clean(status.leader_address) or "nobody"
    ticks = "on" if status.tick.enabled else "off"
    last = relative(status.tick.last_success_time, now) or "never"
    attempts = status.stats.attempts
    rate = f"{attempts.rate:.0%} of {attempts.total} starts" if attempts.HasField("rate") else "no starts yet"
    hour = status.stats.window_1h
    all_of_it = f", {hour.rate:.0%} of {hour.total} decisions" if hour.HasField("rate") else ""
    pool = status.slots.task_pool
    return [
        f"leader {leads}, term {status.term}; tick {ticks}, last {last} {clean(status.tick.last_error)}".rstrip(),
        f"slots {pool.used} of {pool.budget} used, pressure {status.slots.max_pressure:.2f}; last hour {rate}{all_of_it}",
    ]


def _overrides(status: pb.GetStatusResponse, now: datetime) -> list[str]:
    return [_override(one, now) for one in status.overrides]


def _override(override: pb.Override, now: datetime) -> str:
    until = relative(override.until_time, now) if override.HasField("until_time") else "ended by hand"
    what = f"{override.kind} {override.scope}".rstrip()
    return f"override {clean(f'{what} by {override.actor}, until {until}, {override.reason}')}"


def _executors(status: pb.GetStatusResponse, width: int | None) -> list[str]:
    slots = {one.executor_id: one for one in status.slots.executors}
    rows = []
    for executor in status.executors:
        pools = slots.get(executor.executor_id)
        rows.append(
            (
                executor.executor_id or executor.target,
                "draining" if executor.draining else "live" if executor.live else "silent",
                f"{pools.task_pool.used}/{pools.task_pool.budget}" if pools else "",
                f"{pools.user.used}/{pools.user.budget}" if pools else "",
                f"{pools.max_pressure:.2f}" if pools else "",
                (pools.reason or "no") if pools else "",
            )
        )
    headers = ("EXECUTOR", "STATE", "TASKS", "USER", "PRESSURE", "REFUSES")
    return table_text(headers, rows, width=width).splitlines()


def _breakers(status: pb.GetStatusResponse, now: datetime, width: int | None, most: int) -> list[str]:
    """Those that are not closed, and how many are."""
    closed = sum(breaker.state == pb.BREAKER_STATE_CLOSED for breaker in status.breakers)
    rows = [
        (b.key, state_word(b.state), str(b.failures), relative(b.retry_time, now), b.reason)
        for b in status.breakers
        if b.state != pb.BREAKER_STATE_CLOSED
    ]
    if not rows:
        return [f"breakers: {f'all {closed} are closed' if closed else 'none'}"]
    table = table_text(("BREAKER", "STATE", "FAILURES", "PROBE", "REASON"), rows, width=width).splitlines()
    return [*shortened(table, most), *([f"and {closed} closed"] if closed else [])]


def _queue(status: pb.GetStatusResponse) -> str:
    found: dict[str, list[str]] = {}
    totals: dict[str, int] = {}
    for depth in status.queue:
        word = status_word(depth.status)
        found.setdefault(word, []).append(f"{priority_word(depth.priority)} {depth.tasks}")
        totals[word] = totals.get(word, 0) + depth.tasks
    words = [*(word for word in _STATUS_ORDER if word in totals), *(word for word in totals if word not in _STATUS_ORDER)]
    return "queue: " + ("; ".join(f"{word} {totals[word]} ({', '.join(found[word])})" for word in words) or "empty")


def _short(id_: str) -> str:
    """What tells an id from others: those of one minute begin alike."""
    return id_[-8:]


def _running(found: Snapshot, now: datetime, width: int | None) -> list[str]:
    if not found.running:
        return ["running: none"]
    rows = []
    for task in found.running:
        start = moment(task.start_time)
        age = span_text(now - start) if start is not None else status_word(task.status)
        rows.append((_short(task.id), age, priority_word(task.priority), task.backend, task.executor_id, task.title))
    return table_text(("RUNNING", "AGE", "PRIO", "BACKEND", "EXECUTOR", "TITLE"), rows, width=width).splitlines()


def _decisions(found: Snapshot, now: datetime, width: int | None) -> list[str]:
    if not found.decisions:
        return ["decisions: none"]
    titles = {task.id: task.title for task in found.running}

    def told(event: pb.DispatchEvent) -> tuple[str, ...]:
        result = "success" if event.success else event.reason
        return result, event.backend, event.executor_id, titles.get(event.task_id) or event.detail or _short(event.task_id)

    # A hold is decided anew in each tick: told once, with its latest time, it leaves room for what was before it.
    rows = []
    for same, events in groupby(found.decisions, told):
        latest, *before = events
        rows.append((relative(latest.time, now), str(1 + len(before)), *same))
    return table_text(("DECIDED", "TIMES", "RESULT", "BACKEND", "EXECUTOR", "DETAIL"), rows, width=width).splitlines()


def oldest_first(tasks: Sequence[pb.Task]) -> tuple[pb.Task, ...]:
    """By the time at which they were started, what is on its way last."""
    return tuple(sorted(tasks, key=lambda t: (not t.start_time.seconds, t.start_time.seconds, t.start_time.nanos, t.id)))
