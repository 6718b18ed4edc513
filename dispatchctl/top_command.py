"""The command `top`: the live status in a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from datetime import UTC, datetime

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from rich.console import Console
from rich.live import Live
from rich.text import Text

from dispatchctl.client import SchedulerClient
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.keys import quit_key
from dispatchctl.rendering import clean, colourful, cut, json_text, terminal_width, write
from dispatchctl.session import TABLES, Output, Session, common_options
from dispatchctl.top_view import Snapshot, oldest_first, top_lines

RUNNING_MOST = 200
DECISIONS_MOST = 50
# Between two drawings at least, however much happens; and at most, so that ages go on.
LEAST_S = 1.0
MOST_S = 2.0
REOPEN_S = 1.0
FOOTER_LINES = 2


@click.command()
@common_options()
@click.pass_obj
def top(session: Session) -> int:
    """Show live what runs, what holds, and what was decided; q or Ctrl-C ends it.

    It is drawn again when something happens, once a second at most. Where standard output is no terminal, it is one snapshot.

    \b
    Example:
      dispatchctl top
      dispatchctl top -o json
    """
    live = session.output in TABLES and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if live:
        session.run(_Top().run)
    else:
        _write_snapshot(session, session.run(read_snapshot))
    return ExitStatus.DONE


async def read_snapshot(client: SchedulerClient) -> Snapshot:
    """All that is shown. Raises Failure."""
    started = (pb.TASK_STATUS_DISPATCHING, pb.TASK_STATUS_RUNNING)
    status, running, decisions = await asyncio.gather(
        client.call(client.stub.GetStatus, pb.GetStatusRequest()),
        client.call(client.stub.ListTasks, pb.ListTasksRequest(page_size=RUNNING_MOST, statuses=started)),
        client.call(client.stub.ListDispatchEvents, pb.ListDispatchEventsRequest(page_size=DECISIONS_MOST)),
    )
    return Snapshot(status, oldest_first(running.tasks), tuple(decisions.events))


def _write_snapshot(session: Session, found: Snapshot) -> None:
    if session.output in TABLES:
        for line in top_lines(found, datetime.now(UTC), terminal_width(), None):
            write(line)
    elif session.output is Output.NAME:
        for task in found.running:
            write(task.id)
    else:
        body = {name: json.loads(json_text(message)) for name, message in found.messages.items()}
        write(json.dumps(body, indent=2 if session.output is Output.JSON else None, ensure_ascii=False))


class _Top:
    """One run of `top` on a terminal."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._quit = asyncio.Event()
        self._found: Snapshot | None = None
        self._read = datetime.now(UTC)
        self._away: Failure | None = None

    async def run(self, client: SchedulerClient) -> None:
        """Draws until q. Raises Failure when there is nothing to draw at first."""
        await self._look(client)
        console = Console(no_color=not colourful(), highlight=False, legacy_windows=False)
        watching = asyncio.create_task(self._watch(client))
        drawing = asyncio.create_task(self._draw(client, console))
        asked = asyncio.create_task(self._quit.wait())
        work = (watching, drawing, asked)
        try:
            with quit_key(self._quit):
                done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _watch(self, client: SchedulerClient) -> None:
        """Rings at each event; over restarts of the scheduler, which the drawing tells of. Never returns."""
        while True:
            with contextlib.suppress(Failure):
                async for _ in client.stream(client.stub.WatchEvents, pb.WatchEventsRequest(after_event_id=-1)):
                    self._news.set()
            await asyncio.sleep(REOPEN_S)

    async def _draw(self, client: SchedulerClient, console: Console) -> None:
        with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
            while True:
                live.update(self._screen(console), refresh=True)
                self._news.clear()
                await asyncio.sleep(LEAST_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(MOST_S - LEAST_S):
                        await self._news.wait()
                await self._look(client)

    async def _look(self, client: SchedulerClient) -> None:
        try:
            self._found, self._away = await read_snapshot(client), None
            self._read = datetime.now(UTC)
        except Failure as failure:
            # A scheduler that is started again is worth waiting for once it has been seen.
            if self._found is None or failure.status is not ExitStatus.UNREACHABLE:
                raise
            self._away = failure

    def _screen(self, console: Console) -> Text:
        width, height = console.size
        lines = top_lines(self._found, datetime.now(UTC), width, max(height - FOOTER_LINES, 1)) if self._found else []
        footer = f"q ends it; read at {self._read.astimezone():%H:%M:%S}"
        if self._away is not None:
            footer = f"{clean(self._away.what)}; the last answer is of {self._read.astimezone():%H:%M:%S}"
        footing = Text(cut(footer, width), style="reverse")
        page = Text("\n", no_wrap=True, overflow="crop")
        return page.join([*(Text.from_ansi(line) for line in lines), Text(), footing])
