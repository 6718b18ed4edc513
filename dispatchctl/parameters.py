"""The kinds of values that options take, each with an error that says what would be right."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})")

PRIORITIES = {"P0": pb.PRIORITY_P0, "P1": pb.PRIORITY_P1, "P2": pb.PRIORITY_P2}
STATUSES = {name.removeprefix("TASK_STATUS_").lower(): number for name, number in pb.TaskStatus.items() if number != 0}


class Duration(click.ParamType[float]):
    """A span of time in seconds: 90, 90s, 500ms, 5m, 1h, 2d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.fullmatch(str(value).strip())
        if match is None or not math.isfinite(float(match[1])) or float(match[1]) > 1e9:
            self.fail(f"{value!r} is no duration; write 90s, 500ms, 5m, 1h or 2d", param, ctx)
        return float(match[1]) * _UNITS_S[match[2] or "s"]


class Moment(click.ParamType[datetime]):
    """A time: RFC 3339 such as 2026-01-31T08:00:00Z, or from now: +10m. Without an offset it is local time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        try:
            if text.startswith("+"):
                return datetime.now(UTC) + timedelta(seconds=DURATION.convert(text[1:], param, ctx))
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is no time; write 2026-01-31T08:00:00Z, or +10m for ten minutes from now", param, ctx)


class JsonObject(click.ParamType[dict[str, Any]]):
    """A JSON object."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        try:
            found = json.loads(value)
        except (ValueError, RecursionError) as error:
            self.fail(f'is no JSON ({error}); write an object such as \'{{"branch": "main"}}\'', param, ctx)
        if not isinstance(found, dict):
            self.fail(f'is a JSON {type(found).__name__}; write an object such as \'{{"branch": "main"}}\'', param, ctx)
        return found


class Address(click.ParamType[str]):
    """host:port."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        match = _ADDRESS.fullmatch(str(value))
        if match is None or not 0 < int(match[2]) <= 65_535:
            self.fail(f"{value!r} is no host:port; write one such as 127.0.0.1:50051", param, ctx)
        return str(value)


DURATION = Duration()
MOMENT = Moment()
JSON_OBJECT = JsonObject()
ADDRESS = Address()
