"""What `status` and `slots` print for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from dispatchctl.columns import BREAKERS, WINDOW_HEADERS, priority_word, status_word, window_rows
from dispatchctl.rendering import Column, Item, clean, cut, iso, relative, table_text, terminal_width, write

POOL_HEADERS = ("WHERE", "USER", "INTERNAL", "TASKS", "PRESSURE", "EFFECTIVE", "CAPACITY", "REFUSES")


def write_table(columns: Sequence[Column[Item]], items: Sequence[Item]) -> None:
    """Prints messages as rows."""
    write(table_text([header for header, _ in columns], [[cell(item) for _, cell in columns] for item in items]))


def write_status(found: pb.GetStatusResponse) -> None:
    """Prints all of it, the sentence first."""
    now = datetime.now(UTC)
    slots, tick = found.slots.task_pool, found.tick
    write(f"{found.mode}: {clean(found.sentence)}")
    leads = "this replica" if found.leader else clean(found.leader_address) or "nobody"
    write(f"leader   {leads}, term {found.term}")
    ticks = "on" if tick.enabled else "off"
    write(f"tick     {ticks}, last {relative(tick.last_success_time, now) or 'never'} {clean(tick.last_error)}".rstrip())
    write(f"slots    {slots.used} of {slots.budget} used, pressure {found.slots.max_pressure:.2f}")
    if found.HasField("last_dispatch"):
        last = found.last_dispatch
        write(f"last     {clean(last.task_title)}, {relative(last.dispatched_time, now)}")
    for override in found.overrides:
        write(_override_line(override, now))
    write("")
    queue = [(priority_word(q.priority), status_word(q.status), str(q.tasks)) for q in found.queue]
    write(table_text(("PRIO", "STATUS", "TASKS"), queue) if queue else "the queue is empty")
    write("")
    write(table_text(WINDOW_HEADERS, window_rows(found.stats)))
    write("")
    write_table(BREAKERS, found.breakers)
    write("")
    executors = [
        (
            executor.executor_id,
            executor.target,
            "draining" if executor.draining else "live" if executor.live else "silent",
            str(executor.running),
            relative(executor.last_heard_time, now),
            ", ".join(executor.backends),
        )
        for executor in found.executors
    ]
    write(table_text(("EXECUTOR", "TARGET", "STATE", "RUNS", "HEARD", "BACKENDS"), executors))
    wrong = [(executor.executor_id, one.backend, one.detail) for executor in found.executors for one in executor.misconfigured]
    if wrong:
        write("")
        write(table_text(("CONFIG ERROR ON", "BACKEND", "DETAIL"), wrong))


def _override_line(override: pb.Override, now: datetime) -> str:
    """Who, since, until and why, in that order: a narrow terminal cuts the reason."""
    width = terminal_width()

    def when(stamp: Timestamp) -> str:
        return iso(stamp) if width is None else relative(stamp, now)

    until = when(override.until_time) if override.HasField("until_time") else "ended by hand"
    words = f"{override.kind} {override.scope}: by {override.actor}, since {when(override.since_time)}, until {until}"
    return cut(f"override {clean(f'{words}, {override.reason}')}", width)


def write_slots(found: pb.GetSlotsResponse) -> None:
    """Prints the pools as used/budget, in all and by executor, and the backends."""
    cap = f", capped at {found.budget_cap} (dispatchctl cap off lifts it)" if found.HasField("budget_cap") else ""
    write(f"a local task {'may' if found.dispatch_allowed else 'may not'} start as far as slots go{cap}")
    write("")
    refuses = "" if found.dispatch_allowed else "yes"
    rows = [_pool_row("all", found, refuses), *(_pool_row(one.executor_id, one, one.reason) for one in found.executors)]
    write(table_text(POOL_HEADERS, rows))
    write("")
    backends = [(b.backend, "slots" if b.local else "its own", f"{b.used}/{b.budget}") for b in found.backends]
    write(table_text(("BACKEND", "LIMIT", "RUNS"), backends))


def _pool_row(where: str, pools: pb.GetSlotsResponse | pb.ExecutorSlots, refuses: str) -> tuple[str, ...]:
    return (
        where,
        f"{pools.user.used}/{pools.user.budget} {pools.user.mode}",
        f"{pools.internal.used}/{pools.internal.budget}",
        f"{pools.task_pool.used}/{pools.task_pool.budget}",
        f"{pools.max_pressure:.2f}",
        str(pools.effective_slots),
        str(pools.total_capacity),
        refuses or "no",
    )
