"""How far a long command has come: a bar on a terminal's standard error, nothing elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dispatchctl.rendering import clean, note


class Bar:
    """One bar; without a terminal it shows nothing, and lines go where notes go."""

    def __init__(self, shown: Progress | None, row: TaskID) -> None:
        self._shown = shown
        self._row = row

    def reached(self, done: int, said: str = "") -> None:
        """So many are done by now; `said` stands beside it."""
        if self._shown is not None:
            self._shown.update(self._row, completed=done, said=clean(said))

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self._shown is None:
            note(line)
        else:
            self._shown.console.print(clean(line), markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Bar]:
    """A bar for so many of something, as long as it is open; it leaves nothing behind."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield Bar(None, TaskID(0))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False) as shown:
        yield Bar(shown, shown.add_task(what, total=total, said=""))
