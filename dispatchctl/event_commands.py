"""The command `events`."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.client import SchedulerClient
from dispatchctl.event_lines import event_line
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.rendering import iso, json_text, moment, terminal_width, write
from dispatchctl.session import Output, Session, common_options


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C with what happens from now on, or from --after on.")
@click.option("--after", type=click.IntRange(0), metavar="ID", help="Only events after this one; 0 is the oldest kept.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only these, such as circuit_open; repeatable.")
@click.option("-n", "--limit", type=click.IntRange(1), help="At most so many: the newest, or with --after or -f the next.")
@common_options()
@click.pass_obj
def events(session: Session, follow: bool, after: int | None, types: tuple[str, ...], limit: int | None) -> int:
    """Show what has happened, oldest first; -f follows.

    \b
    Example:
      dispatchctl events -n 20
      dispatchctl events -f --type circuit_open --type circuit_closed
    """
    if follow and session.output is Output.JSON:
        raise click.UsageError("-f goes not with -o json, which is one document; use -o jsonl")
    if follow:
        session.run(lambda client: _follow(client, session, -1 if after is None else after, types, limit))
        return ExitStatus.DONE
    found = session.run(lambda client: _kept(client, after, types, limit))
    if session.output is Output.JSON:
        write(json.dumps({"events": [json.loads(json_text(event)) for event in found]}, indent=2, ensure_ascii=False))
    else:
        for event in found:
            _write_event(session, event)
    return ExitStatus.DONE


def _write_event(session: Session, event: pb.Event) -> None:
    match session.output:
        case Output.JSONL:
            write(json_text(event, indent=None))
        case Output.NAME:
            write(str(event.id))
        case _:
            write(_event_text(event))


def _event_text(event: pb.Event) -> str:
    width = terminal_width()
    at = moment(event.time)
    time = iso(event.time) if width is None or at is None else f"{at:%m-%d %H:%M:%S}"
    before = f"{event.id}  {time}  "
    return before + event_line(event, width=None if width is None else width - len(before))


async def _follow(client: SchedulerClient, session: Session, after: int, types: tuple[str, ...], limit: int | None) -> None:
    shown = 0
    request = pb.WatchEventsRequest(after_event_id=after, types=types)
    async for message in client.stream(client.stub.WatchEvents, request):
        _write_event(session, message.event)
        shown += 1
        if shown == limit:
            return


async def _kept(client: SchedulerClient, after: int | None, types: tuple[str, ...], limit: int | None) -> list[pb.Event]:
    """The events that there are; the newest where no beginning is named."""
    found: deque[pb.Event] = deque(maxlen=limit if after is None else None)
    async for event in _until_now(client, after or 0, types):
        found.append(event)
        if after is not None and len(found) == limit:
            break
    return list(found)


async def _until_now(client: SchedulerClient, after: int, types: tuple[str, ...]) -> AsyncIterator[pb.Event]:
    """The events after an id up to the newest; the stream itself never says that it has caught up.

    Read without a filter, since a filtered stream would wait at its end for an event that matches.
    """
    newest = await client.newest_event_id(*types)
    if newest < 0:
        why = "no_answer: the scheduler ended the call before it said which event is the newest"
        raise Failure("cannot tell which events there are", why, "try again in a few seconds", ExitStatus.UNREACHABLE)
    if newest <= after:
        return
    async for message in client.stream(client.stub.WatchEvents, pb.WatchEventsRequest(after_event_id=after)):
        if not types or message.event.type in types:
            yield message.event
        if message.event.id >= newest:
            return
