"""Data on standard output, everything else on standard error; plain text when standard output is no terminal."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import TextIO, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dispatchctl.session import Output, Session

Item = TypeVar("Item", bound=Message)
Column = tuple[str, Callable[[Item], str]]

# Wide enough that nothing is cut where a program reads, and a person scrolls.
_UNBOUNDED_WIDTH = 100_000
NOTHING = "-"


def clean(text: str) -> str:
    """One line without control characters: what others wrote must not steer the terminal."""
    flat = " ".join(text.split())
    return "".join(char if unicodedata.category(char)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for char in flat)


def cut(text: str, most: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


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


def table_text(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An aligned table; cut to the terminal's width where there is one."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(clean(cell) or NOTHING) for cell in row))
    buffer = StringIO()
    console = Console(
        file=buffer,
        width=None if sys.stdout.isatty() else _UNBOUNDED_WIDTH,
        force_terminal=colourful(),
        no_color=not colourful(),
        color_system="standard" if colourful() else None,
        highlight=False,
        legacy_windows=False,
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def show(
    session: Session,
    response: Message,
    items: Sequence[Item],
    columns: Sequence[Column[Item]],
    *,
    wide: Sequence[Column[Item]] = (),
    name: Callable[[Item], str],
) -> None:
    """Prints a response in the session's format: `items` are its rows, `wide` the further columns of -o wide."""
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
            chosen = [*columns, *(wide if session.output is Output.WIDE else ())]
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
