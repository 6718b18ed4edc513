"""Data on standard output, everything else on standard error; plain text when standard output is no terminal."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import TextIO, TypeVar
from unicodedata import category

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dispatchctl.session import Output, Session

Item = TypeVar("Item", bound=Message)
Column = tuple[str, Callable[[Item], str]]

NOTHING = "-"
_GAP = 2
# What a narrow terminal cuts first, and next; other columns, such as numbers, are never cut.
_REASONS = frozenset({"REASON", "REASONS", "RESULT", "HOLD", "HOLDS", "REFUSES", "GATE"})
_TEXTS = _REASONS | {"TITLE", "OUTCOME", "DETAIL", "TYPE", "BACKEND", "BACKENDS", "ACTOR"}
_NAMES = frozenset({"ID", "TASK", "RUN", "KEY", "WINDOW", "EXECUTOR", "TARGET", "SETTING", "BREAKER"})
_CUT_TO = 8
# Joins emoji into one sign; every other format character could hide or turn what stands beside it.
_JOINER = "\N{ZERO WIDTH JOINER}"


def clean(text: str) -> str:
    """One line without control characters: what others wrote must not steer the terminal."""
    flat = " ".join(text.split())
    return "".join(char if char == _JOINER or category(char)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for char in flat)


def cut(text: str, most: int | None) -> str:
    """A text of at most so many columns of a terminal; None: whole."""
    if most is None or cell_len(text) <= most:
        return text
    shorter = Text(text)
    shorter.truncate(max(most, 1), overflow="ellipsis")
    return shorter.plain


def pad(text: str, columns: int) -> str:
    """A text with blanks after it, of at least so many columns of a terminal."""
    return text + " " * (columns - cell_len(text))


def terminal_width() -> int | None:
    """How many columns standard output has; None when it is no terminal, where nothing is ever cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def colourful() -> bool:
    """Whether standard output may have colour."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write(text: str) -> None:
    """One line of data."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """One line for the person, beside the data. A terminal that has gone is no error: nobody is there to be told."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Lets go what a stream still holds and gets: the interpreter would complain once more when it flushes it at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def json_text(message: Message, *, indent: int | None = 2) -> str:
    """A message in protobuf's JSON mapping under proto field names, empty fields included."""
    fields = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return json.dumps(fields, indent=indent, ensure_ascii=False)


def table_text(headers: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None) -> str:
    """An aligned table; its texts are cut to `width` columns or to the terminal's, where there is one. Numbers stay whole."""
    cells = [[clean(cell) or NOTHING for cell in row] for row in rows]
    widths = [max(cell_len(cell) for cell in column) for column in zip(headers, *cells, strict=True)]
    width = terminal_width() if width is None else width
    if width is not None:
        _narrow(headers, widths, width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for header, column_width in zip(headers, widths, strict=True):
        table.add_column(header, width=column_width, overflow="ellipsis", no_wrap=True)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    buffer = StringIO()
    console = Console(
        file=buffer,
        width=sum(widths) + _GAP * len(widths),
        force_terminal=colourful(),
        no_color=not colourful(),
        color_system="standard" if colourful() else None,
        highlight=False,
        legacy_windows=False,
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _narrow(headers: Sequence[str], widths: list[int], most: int) -> None:
    """Takes from the widest text until the table fits, then from the widest name; a table of whole numbers may stay too wide."""
    excess = sum(widths) + _GAP * (len(widths) - 1) - most
    for kind in (_TEXTS, _NAMES):
        while excess > 0:
            spare = [
                (width, index)
                for index, (header, width) in enumerate(zip(headers, widths, strict=True))
                if header in kind and width > max(_CUT_TO, len(header))
            ]
            if not spare:
                break
            widths[max(spare)[1]] -= 1
            excess -= 1


def show(
    session: Session,
    response: Message,
    items: Sequence[Item],
    columns: Sequence[Column[Item]],
    *,
    wide: Sequence[Column[Item]] = (),
    name: Callable[[Item], str],
) -> None:
    """Prints a response in the session's format: `items` are its rows, `wide` the columns of -o wide if they are others."""
    match session.output:
        case Output.JSON:
            write(json_text(response))
        case Output.JSONL:
            for item in items:
                write(json_text(item, indent=None))
        case Output.NAME:
            for item in items:
                write(clean(name(item)))
        case Output.TABLE | Output.WIDE:
            chosen = wide if wide and session.output is Output.WIDE else columns
            write(table_text([header for header, _ in chosen], [[cell(item) for _, cell in chosen] for item in items]))


def enum_word(descriptor_name: str, prefix: str) -> str:
    """`TASK_STATUS_QUEUED` as `queued`."""
    return descriptor_name.removeprefix(prefix).lower()


def moment(stamp: Timestamp) -> datetime | None:
    """A timestamp as a UTC time; None when it is not set."""
    if not stamp.seconds and not stamp.nanos:
        return None
    return stamp.ToDatetime(tzinfo=UTC)


def iso(stamp: Timestamp) -> str:
    """A timestamp for programs and for -o wide."""
    found = moment(stamp)
    return found.isoformat(timespec="milliseconds") if found is not None else ""


def span_text(span: timedelta | Duration) -> str:
    """A span for people: 0.4s, 12s, 5m, 3h, 2d."""
    seconds = abs((span if isinstance(span, timedelta) else span.ToTimedelta()).total_seconds())
    if seconds < 10:
        return f"{seconds:.1f}s"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def relative(stamp: Timestamp, now: datetime) -> str:
    """`12s ago` or `in 5m`; '' when it is not set."""
    found = moment(stamp)
    if found is None:
        return ""
    return f"{span_text(now - found)} ago" if found <= now else f"in {span_text(found - now)}"


def counts_text(counts: Mapping[str, int]) -> str:
    """`executor_failed 3, draining 1`, the most frequent first."""
    return ", ".join(f"{key} {n}" for key, n in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
