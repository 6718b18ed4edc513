"""The kinds of values that options take, each with an error that says what would be right."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Struct

from dispatchctl.failures import ExitStatus, Failure

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})")
LONGEST_DAYS = 3_660
SHOWN_CHARS = 40
# A message that is nested deeper cannot be decoded. What is less deep the scheduler judges.
SENDABLE_LEVELS = 30

PRIORITIES = {"P0": pb.PRIORITY_P0, "P1": pb.PRIORITY_P1, "P2": pb.PRIORITY_P2}
POLICIES = {"fail": pb.DEPENDENCY_POLICY_FAIL, "wait": pb.DEPENDENCY_POLICY_WAIT}
STATUSES = {name.removeprefix("TASK_STATUS_").lower(): number for name, number in pb.TaskStatus.items() if number != 0}


def shown(value: object) -> str:
    """A value for an error text, shortened."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


class Duration(click.ParamType[float]):
    """A span of time in seconds: 90, 90s, 500ms, 5m, 1h, 2d. `positive`: more than none."""

    name = "duration"

    def __init__(self, *, positive: bool = False) -> None:
        self._positive = positive

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{shown(value)} is no duration; write 90s, 500ms, 5m, 1h or 2d", param, ctx)
        seconds = float(match[1]) * _UNITS_S[match[2] or "s"]
        if seconds > LONGEST_DAYS * _UNITS_S["d"]:
            self.fail(f"{shown(value)} is too long; at most {LONGEST_DAYS}d", param, ctx)
        if self._positive and seconds < _UNITS_S["ms"]:
            self.fail(f"{shown(value)} is too short; at least 1ms", param, ctx)
        return seconds


class Moment(click.ParamType[datetime]):
    """A time: RFC 3339 such as 2026-01-31T08:00:00Z, or from now: +10m. Without an offset it is local time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        if text.startswith("+"):
            return datetime.now(UTC) + timedelta(seconds=DURATION.convert(text[1:], param, ctx))
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            self.fail(f"{shown(value)} is no time; write 2026-01-31T08:00:00Z, or +10m for ten minutes from now", param, ctx)


class Past(click.ParamType[datetime]):
    """A time: RFC 3339 such as 2026-01-31T08:00:00Z, or how long ago: 2h. Without an offset it is local time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, str) and _DURATION.fullmatch(value.strip()):
            return datetime.now(UTC) - timedelta(seconds=DURATION.convert(value, param, ctx))
        return MOMENT.convert(value, param, ctx)


def in_milliseconds(text: str) -> str:
    """`10m` as `600000`; a text that is no span with a unit stays as it is."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or match[2] is None:
        return text
    return str(round(float(match[1]) * _UNITS_S[match[2]] * 1000))


def deeper_than(value: object, levels: int) -> bool:
    """Whether JSON is nested deeper than so many levels of objects and lists."""
    if not isinstance(value, dict | list):
        return False
    return levels == 0 or any(deeper_than(below, levels - 1) for below in (value.values() if isinstance(value, dict) else value))


class JsonObject(click.ParamType[Struct]):
    """A JSON object."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Struct:
        if isinstance(value, Struct):
            return value
        example = 'write an object such as \'{"branch": "main"}\''
        try:
            found = json.loads(value)
        except (ValueError, RecursionError) as error:
            self.fail(f"is no JSON ({error}); {example}", param, ctx)
        if not isinstance(found, dict):
            self.fail(f"is a JSON {type(found).__name__}; {example}", param, ctx)
        if deeper_than(found, SENDABLE_LEVELS):
            self.fail("is nested too deep; at most 16 levels", param, ctx)
        try:
            return ParseDict(found, Struct())
        except (ParseError, ValueError) as error:
            self.fail(f"cannot be sent ({error}); {example}", param, ctx)


class Address(click.ParamType[str]):
    """host:port."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        match = _ADDRESS.fullmatch(str(value))
        if match is None or not 0 < int(match[2]) <= 65_535:
            self.fail(f"{shown(value)} is no host:port; write one such as 127.0.0.1:50051", param, ctx)
        return str(value)


class Words(click.ParamType[str]):
    """A text that says something."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail("is empty; say it in a few words, or leave the option out", param, ctx)
        return str(value)


@dataclass(frozen=True, slots=True)
class SourceText:
    """What a file holds, and its name for errors."""

    name: str
    text: str


class TextFile(click.ParamType[SourceText]):
    """The text of a file in UTF-8; - is standard input."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> SourceText:
        if isinstance(value, SourceText):
            return value
        name = "standard input" if value == "-" else str(value)
        try:
            data = sys.stdin.buffer.read() if value == "-" else Path(value).read_bytes()
            return SourceText(name, data.decode("utf-8"))
        except FileNotFoundError as error:
            raise _unreadable(name, "not_found: there is no such file", "name another, or - for standard input") from error
        except UnicodeDecodeError as error:
            why = f"bad_text: byte {error.start} is no UTF-8 ({error.reason})"
            raise _unreadable(name, why, "convert it to UTF-8, such as with: iconv -t UTF-8") from error
        except (OSError, ValueError) as error:
            why = f"unreadable: {getattr(error, 'strerror', None) or error}"
            raise _unreadable(name, why, "name a file that may be read") from error


def _unreadable(name: str, why: str, remedy: str) -> Failure:
    return Failure(f"cannot read {name}", why, remedy, ExitStatus.USAGE)


DURATION = Duration()
POSITIVE_DURATION = Duration(positive=True)
MOMENT = Moment()
PAST = Past()
JSON_OBJECT = JsonObject()
ADDRESS = Address()
WORDS = Words()
TEXT_FILE = TextFile()
