"""Rows to values and back. Column names are field names; only types differ.

Many rows go to the database as one JSON text, which one statement takes apart (`json_populate_recordset`): a statement for
each row costs several times as much, on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID

from scheduler_service.core.breaker import Breaker, BreakerState
from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.run import Run, RunState
from scheduler_service.core.task import DependencyPolicy, Priority, Task, TaskStatus
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict

Row = Mapping[str, Any]


def in_columns(columns: Iterable[str], values: Iterable[object]) -> Iterator[dict[str, Any]]:
    """Each value's fields of these names."""
    names = tuple(columns)
    fields_of = attrgetter(*names)
    return (dict(zip(names, fields_of(value), strict=True)) for value in values)


def as_json(rows: Sequence[Row]) -> str:
    """Rows as one JSON text. What is text, a number or JSON stays what it is."""
    return json.dumps(rows, default=_as_json, check_circular=False)


def _as_json(value: object) -> object:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds}.{value.microseconds:06d} seconds"
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no form as JSON")


def columns_of(kind: type[Any], *without: str) -> tuple[str, ...]:
    """The fields of a dataclass, which are the columns of its table."""
    return tuple(field.name for field in fields(kind) if field.name not in without)


TASK_COLUMNS = columns_of(Task)
RUN_COLUMNS = columns_of(Run)
EDITED_COLUMNS = ("id", "title", "description", "priority", "skill", "payload", "not_before_time", "rank_time")
MOVED_COLUMNS = tuple(
    name
    for name in TASK_COLUMNS
    if name == "id"
    or name
    not in (*EDITED_COLUMNS, "task_type", "depends_on", "max_tries", "timeout", "backend", "create_time", "dependency_policy")
)
"""What a transition can change; the rest is what was submitted, or what an operator edits."""


def task_of(row: Row) -> Task:
    """A task from its row. Raises ValueError for values that no task has."""
    values = {name: row[name] for name in TASK_COLUMNS}
    if not isinstance(values["payload"], dict):
        raise ValueError(f"payload is no JSON object but {type(values['payload']).__name__}")
    values["priority"] = Priority(values["priority"])
    values["status"] = TaskStatus(values["status"])
    values["hold_reason"] = HoldReason(values["hold_reason"])
    values["depends_on"] = tuple(values["depends_on"])
    values["dependency_policy"] = DependencyPolicy(values["dependency_policy"])
    return Task(**values)


def run_of(row: Row) -> Run:
    """A run from its row."""
    values = {name: row[name] for name in RUN_COLUMNS}
    values["state"] = RunState(values["state"])
    values["verdict"] = StartVerdict(values["verdict"]) if values["verdict"] else None
    values["outcome"] = OutcomeClass(values["outcome"]) if values["outcome"] else None
    return Run(**values)


def breaker_of(row: Row) -> Breaker:
    """A breaker from its row."""
    return Breaker(**{**row, "state": BreakerState(row["state"])})


def breaker_row(breaker: Breaker) -> dict[str, Any]:
    """A breaker's row."""
    return {
        "key": breaker.key,
        "state": breaker.state.value,
        "failures": breaker.failures,
        "last_failure_time": breaker.last_failure_time,
        "opened_time": breaker.opened_time,
        "open_duration": breaker.open_duration,
        "generation": breaker.generation,
        "probe_run_id": breaker.probe_run_id,
        "reason": breaker.reason,
    }
