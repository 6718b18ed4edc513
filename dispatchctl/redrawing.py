"""`--watch`: asks again and again, and draws each answer over the last one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Coroutine
from io import StringIO
from typing import Any, TypeVar

import click

from dispatchctl.client import SchedulerClient
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.parameters import POSITIVE_DURATION
from dispatchctl.rendering import clean
from dispatchctl.session import TABLES, Output, Session

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

INTERVAL = "2s"
_HOME_AND_CLEAR = "\x1b[H\x1b[2J"


class _Screen(StringIO):
    """What is drawn, as if it went to the terminal: width and colour go by it."""

    def isatty(self) -> bool:
        return sys.__stdout__ is not None and sys.__stdout__.isatty()


def watch_option(command: F) -> F:
    """`--watch [DURATION]`, handed on as `interval`: seconds, or None."""
    return click.option(
        "--watch",
        "interval",
        type=POSITIVE_DURATION,
        is_flag=False,
        flag_value=INTERVAL,
        metavar="[DURATION]",
        help=f"Show it again and again until Ctrl-C, every {INTERVAL} or so often.",
    )(command)


def show_or_watch(
    session: Session,
    interval: float | None,
    fetch: Callable[[SchedulerClient], Coroutine[Any, Any, T]],
    draw: Callable[[T], int],
) -> int:
    """Fetches and draws, once or until Ctrl-C; the exit status that `draw` gives. Raises Failure."""
    if interval is None:
        return draw(session.run(fetch))
    if session.output is Output.JSON:
        raise click.UsageError("--watch goes not with -o json, which is one document; use -o jsonl")
    return session.run(lambda client: _redraw(session, client, interval, fetch, draw))


async def _redraw(
    session: Session,
    client: SchedulerClient,
    interval: float,
    fetch: Callable[[SchedulerClient], Coroutine[Any, Any, T]],
    draw: Callable[[T], int],
) -> int:
    first = True
    while True:
        screen = _Screen()
        try:
            found = await fetch(client)
            with contextlib.redirect_stdout(screen):
                draw(found)
        except Failure as failure:
            # A scheduler that is started again is worth waiting for once it has been seen.
            if first or failure.status is not ExitStatus.UNREACHABLE:
                raise
            screen.write("\n".join(clean(line) for line in failure.lines()) + "\n")
        _replace(screen.getvalue(), apart=not first and session.output in TABLES)
        first = False
        await asyncio.sleep(interval)


def _replace(text: str, *, apart: bool) -> None:
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        lines = text.splitlines()
        room = shutil.get_terminal_size().lines - 1
        if len(lines) > room:
            lines = [*lines[: room - 1], f"… and {len(lines) - room + 1} lines more"]
        text = _HOME_AND_CLEAR + "\n".join(lines) + "\n"
    elif apart:
        text = f"\n{text}"
    sys.stdout.write(text)
    sys.stdout.flush()
