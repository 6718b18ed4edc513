"""The commands about dispatching: status, stats, slots, explain, history; and tick."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.client import SchedulerClient
from dispatchctl.columns import (
    DECISIONS,
    DECISIONS_WIDE,
    EXECUTOR_VERDICTS,
    GUARDS,
    TICK_DECISIONS,
    WINDOW_HEADERS,
    status_word,
    window_rows,
)
from dispatchctl.completion import ANY_TASK
from dispatchctl.failures import ExitStatus
from dispatchctl.parameters import POSITIVE_DURATION
from dispatchctl.redrawing import show_or_watch, watch_option
from dispatchctl.rendering import clean, iso, note, relative, show, table_text, write
from dispatchctl.session import TABLES, Output, Session, common_options
from dispatchctl.status_view import write_slots, write_status, write_table
from service_runtime.proto_values import duration


@click.command()
@watch_option
@common_options()
@click.pass_obj
def status(session: Session, interval: float | None) -> int:
    """Show everything at a glance.

    \b
    Example:
      dispatchctl status
      dispatchctl status --watch 5s
    """

    def draw(found: pb.GetStatusResponse) -> int:
        if session.output in TABLES:
            write_status(found)
        else:
            show(session, found, [found], (), name=lambda status: status.mode)
        return ExitStatus.DONE

    return show_or_watch(session, interval, lambda client: client.call(client.stub.GetStatus, pb.GetStatusRequest()), draw)


@click.command()
@click.option("--window", "windows", type=POSITIVE_DURATION, multiple=True, help="A further window, such as 5m; may be repeated.")
@click.option("--by-executor", is_flag=True, help="Show attempts by executor too.")
@watch_option
@common_options()
@click.pass_obj
def stats(session: Session, windows: tuple[float, ...], by_executor: bool, interval: float | None) -> int:
    """Show the window and the attempts of the last hour, and of further windows.

    \b
    Example:
      dispatchctl stats --window 5m --window 24h
    """

    def draw(found: pb.GetDispatchStatsResponse) -> int:
        if session.output in TABLES:
            write(table_text(WINDOW_HEADERS, window_rows(found)))
        else:
            show(session, found, [found], (), name=lambda _: "window_1h")
        return ExitStatus.DONE

    lengths = [duration(timedelta(seconds=seconds)) for seconds in windows]
    request = pb.GetDispatchStatsRequest(windows=lengths, by_executor=by_executor)
    return show_or_watch(session, interval, lambda client: client.call(client.stub.GetDispatchStats, request), draw)


@click.command()
@watch_option
@common_options()
@click.pass_obj
def slots(session: Session, interval: float | None) -> int:
    """Show the pools' budgets and use, by executor and in all.

    \b
    Example:
      dispatchctl slots --watch
    """

    def draw(found: pb.GetSlotsResponse) -> int:
        if session.output in TABLES:
            write_slots(found)
        else:
            show(session, found, [found], (), name=lambda _: "slots")
        return ExitStatus.DONE

    return show_or_watch(session, interval, lambda client: client.call(client.stub.GetSlots, pb.GetSlotsRequest()), draw)


@click.command()
@click.argument("task_id", metavar="[TASK]", default="", shell_complete=ANY_TASK)
@watch_option
@common_options()
@click.pass_obj
def explain(session: Session, task_id: str, interval: float | None) -> int:
    """Say why nothing starts, or why one task does not. Status 6 while something queued is held.

    \b
    Example:
      dispatchctl explain
      dispatchctl explain 123e4567-e89b-12d3-a456-426614174000 --watch
    """

    async def fetch(client: SchedulerClient) -> tuple[pb.ExplainDispatchResponse, bool]:
        said = await client.call(client.stub.ExplainDispatch, pb.ExplainDispatchRequest(task_id=task_id))
        if said.would_dispatch or task_id:
            return said, bool(said.task_reason) and not said.would_dispatch
        if not any(guard.holds for guard in said.guards):
            return said, False
        # A gate holds whether or not anything stands before it.
        status = await client.call(client.stub.GetStatus, pb.GetStatusRequest())
        return said, any(depth.tasks and depth.status == pb.TASK_STATUS_QUEUED for depth in status.queue)

    def draw(found: tuple[pb.ExplainDispatchResponse, bool]) -> int:
        said, held = found
        _write_explanation(session, said)
        return ExitStatus.HELD if held else ExitStatus.DONE

    return show_or_watch(session, interval, fetch, draw)


def _write_explanation(session: Session, said: pb.ExplainDispatchResponse) -> None:
    if session.output in TABLES:
        write(clean(said.sentence))
        if said.queue_position:
            write(f"place in the queue: {said.queue_position}")
        if said.HasField("task_clears_time"):
            write(f"ends by itself: {iso(said.task_clears_time)} ({relative(said.task_clears_time, datetime.now(UTC))})")
        for other in said.open_prerequisites:
            write(f"waits for: {clean(other.task_id)} ({status_word(other.status) if other.status else 'does not exist'})")
        write("")
        write_table(GUARDS, said.guards)
        if said.executors:
            write("")
            write_table(EXECUTOR_VERDICTS, said.executors)
    elif session.output is Output.NAME:
        for reason in dict.fromkeys(guard.reason for guard in said.guards if guard.holds):
            write(clean(reason))
    else:
        show(session, said, [said], (), name=str)


@click.command()
@common_options()
@click.pass_obj
def tick(session: Session) -> int:
    """Take one tick now and show its decisions.

    \b
    Example:
      dispatchctl tick
    """
    taken = session.run(lambda client: client.call(client.stub.RunTick, pb.RunTickRequest()))
    if session.output in TABLES and not taken.decisions:
        write("nothing to do")
    else:
        show(session, taken, taken.decisions, TICK_DECISIONS, name=lambda decision: decision.task_id or decision.reason)
    return ExitStatus.DONE


@click.command()
@click.option("--task", "task_id", default="", metavar="TASK", shell_complete=ANY_TASK, help="Only of this task.")
@click.option("--reason", default="", metavar="CODE", help="Only with this reason code, such as draining.")
@click.option("--success/--failed", "success", default=None, help="Only successes, or only failures.")
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="At most so many.")
@click.option("--page-token", default="", help="The next_page_token of the page before.")
@common_options()
@click.pass_obj
def history(session: Session, task_id: str, reason: str, success: bool | None, limit: int, page_token: str) -> int:
    """List the decisions behind the window, newest first.

    \b
    Example:
      dispatchctl history --failed -n 10
    """
    request = pb.ListDispatchEventsRequest(
        page_size=limit, page_token=page_token, task_id=task_id, reason=reason, success=success
    )
    page = session.run(lambda client: client.call(client.stub.ListDispatchEvents, request))
    show(session, page, page.events, DECISIONS, wide=DECISIONS_WIDE, name=lambda event: str(event.id))
    if page.next_page_token:
        note(f"there are more: the same once more with --page-token {page.next_page_token}")
    return ExitStatus.DONE
