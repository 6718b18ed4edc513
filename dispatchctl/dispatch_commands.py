"""The commands that read: status, stats, explain, decisions, events; and tick."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from dispatchctl.client import SchedulerClient
from dispatchctl.columns import (
    BREAKERS,
    DECISIONS,
    DECISIONS_WIDE,
    EXECUTOR_VERDICTS,
    GUARDS,
    TICK_DECISIONS,
    WINDOW_HEADERS,
    priority_word,
    status_word,
    window_rows,
)
from dispatchctl.event_lines import event_line
from dispatchctl.failures import ExitStatus
from dispatchctl.rendering import (
    Column,
    Item,
    clean,
    cut,
    iso,
    json_text,
    moment,
    relative,
    show,
    table_text,
    terminal_width,
    write,
)
from dispatchctl.session import Output, Session, common_options

_TABLES = (Output.TABLE, Output.WIDE)


def _table(columns: Sequence[Column[Item]], items: Sequence[Item]) -> None:
    write(table_text([header for header, _ in columns], [[cell(item) for _, cell in columns] for item in items]))


@click.command()
@common_options()
@click.pass_obj
def stats(session: Session) -> int:
    """Show the window and the attempts of the last hour.

    \b
    dispatchctl stats -o json
    """
    found = session.run(lambda client: client.call(client.stub.GetDispatchStats, pb.GetDispatchStatsRequest()))
    if session.output in _TABLES:
        write(table_text(WINDOW_HEADERS, window_rows(found)))
    else:
        show(session, found, [found], (), name=lambda _: "window_1h")
    return ExitStatus.DONE


@click.command()
@click.argument("task_id", metavar="[TASK]", default="")
@common_options()
@click.pass_obj
def explain(session: Session, task_id: str) -> int:
    """Say why nothing starts, or why one task does not. Status 6 while a gate holds.

    \b
    dispatchctl explain
    dispatchctl explain 123e4567-e89b-12d3-a456-426614174000
    """
    request = pb.ExplainDispatchRequest(task_id=task_id)
    said = session.run(lambda client: client.call(client.stub.ExplainDispatch, request, see="dispatchctl tasks"))
    if session.output in _TABLES:
        write(clean(said.sentence))
        if said.queue_position:
            write(f"place in the queue: {said.queue_position}")
        write("")
        _table(GUARDS, said.guards)
        if said.executors:
            write("")
            _table(EXECUTOR_VERDICTS, said.executors)
    elif session.output is Output.NAME:
        for reason in dict.fromkeys(guard.reason for guard in said.guards if guard.holds):
            write(clean(reason))
    else:
        show(session, said, [said], (), name=str)
    held = bool(said.task_reason) if task_id else any(guard.holds for guard in said.guards)
    return ExitStatus.HELD if held and not said.would_dispatch else ExitStatus.DONE


@click.command()
@common_options()
@click.pass_obj
def status(session: Session) -> int:
    """Show everything at a glance.

    \b
    dispatchctl status
    dispatchctl status -o json | jq .mode
    """
    found = session.run(lambda client: client.call(client.stub.GetStatus, pb.GetStatusRequest()))
    if session.output in _TABLES:
        _write_status(found)
    else:
        show(session, found, [found], (), name=lambda status: status.mode)
    return ExitStatus.DONE


def _write_status(found: pb.GetStatusResponse) -> None:
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
    _table(BREAKERS, found.breakers)
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


def _override_line(override: pb.Override, now: datetime) -> str:
    """Who, since, until and why, in that order: a narrow terminal cuts the reason."""
    width = terminal_width()

    def when(stamp: Timestamp) -> str:
        return iso(stamp) if width is None else relative(stamp, now)

    until = when(override.until_time) if override.HasField("until_time") else "ended by hand"
    words = f"{override.kind} {override.scope}: by {override.actor}, since {when(override.since_time)}, until {until}"
    return cut(f"override {clean(f'{words}, {override.reason}')}", width)


@click.command()
@common_options()
@click.pass_obj
def tick(session: Session) -> int:
    """Take one tick now and show its decisions.

    \b
    dispatchctl tick
    """
    taken = session.run(lambda client: client.call(client.stub.RunTick, pb.RunTickRequest()))
    if session.output in _TABLES and not taken.decisions:
        write("nothing to do")
    else:
        show(session, taken, taken.decisions, TICK_DECISIONS, name=lambda decision: decision.task_id)
    return ExitStatus.DONE


@click.command()
@click.option("--task", "task_id", default="", help="Only of this task.")
@click.option("--reason", default="", help="Only with this reason code.")
@click.option("--success/--failed", "success", default=None, help="Only successes, or only failures.")
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="At most so many.")
@common_options()
@click.pass_obj
def decisions(session: Session, task_id: str, reason: str, success: bool | None, limit: int) -> int:
    """List the decisions behind the window, newest first.

    \b
    dispatchctl decisions --failed -n 10
    """
    request = pb.ListDispatchEventsRequest(page_size=limit, task_id=task_id, reason=reason, success=success)
    page = session.run(lambda client: client.call(client.stub.ListDispatchEvents, request))
    show(session, page, page.events, DECISIONS, wide=DECISIONS_WIDE, name=lambda event: str(event.id))
    return ExitStatus.DONE


def _event_text(event: pb.Event) -> str:
    width = terminal_width()
    at = moment(event.time)
    time = iso(event.time) if width is None or at is None else f"{at:%m-%d %H:%M:%S}"
    before = f"{event.id}  {time}  "
    return before + event_line(event, width=None if width is None else width - len(before))


@click.command()
@click.option("--after", default=-1, metavar="ID", help="Events after this one; 0 from the oldest kept; from now on by default.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only these, such as circuit_open; repeatable.")
@click.option("-n", "--limit", type=click.IntRange(1), help="End after so many.")
@common_options()
@click.pass_obj
def events(session: Session, after: int, types: tuple[str, ...], limit: int | None) -> int:
    """Show events as they happen, until Ctrl-C.

    \b
    dispatchctl events --type circuit_open --type circuit_closed
    """
    request = pb.WatchEventsRequest(after_event_id=after, types=types)

    async def follow(client: SchedulerClient) -> None:
        shown = 0
        async for message in client.stream(client.stub.WatchEvents, request):
            event = message.event
            match session.output:
                case Output.JSON | Output.JSONL:
                    write(json_text(event, indent=None))
                case Output.NAME:
                    write(str(event.id))
                case Output.TABLE | Output.WIDE:
                    write(_event_text(event))
            shown += 1
            if shown == limit:
                return

    session.run(follow)
    return ExitStatus.DONE
