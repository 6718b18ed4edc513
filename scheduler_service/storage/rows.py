"""Rows to values and back. Column names are field names; only types differ.

Many rows go to the database as one JSON text, which one statement takes apart (`json_populate_recordset`): a statement for
each row costs several times as much, on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

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


def as_json(rows: Sequence[object]) -> str:
    """Rows, Structs or mappings, as one JSON text."""
    return msgspec.json.encode(rows, enc_hook=_plain).decode()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no form as JSON")


EDITED_COLUMNS = ("id", "title", "description", "priority", "skill", "payload", "not_before_time", "rank_time")
MOVED_COLUMNS = tuple(
    name
    for name in Task.__struct_fields__
    if name == "id"
    or name
    not in (*EDITED_COLUMNS, "task_type", "depends_on", "max_tries", "timeout", "backend", "create_time", "dependency_policy")
)
"""What a transition can change; the rest is what was submitted, or what an operator edits."""


_PRIORITIES = {priority.value: priority for priority in Priority}
_STATUSES = {status.value: status for status in TaskStatus}
_HOLDS = {hold.value: hold for hold in HoldReason}
_POLICIES = {policy.value: policy for policy in DependencyPolicy}
_RUN_STATES = {state.value: state for state in RunState}
_VERDICTS: Mapping[str | None, StartVerdict | None] = {None: None, **{verdict.value: verdict for verdict in StartVerdict}}
_OUTCOMES: Mapping[str | None, OutcomeClass | None] = {None: None, **{outcome.value: outcome for outcome in OutcomeClass}}


def task_of(row: Row) -> Task:
    """A task from its row. Raises ValueError for values that no task has."""
    payload = row["payload"]
    if not isinstance(payload, dict):
        raise ValueError(f"payload is no JSON object but {type(payload).__name__}")
    try:
        return Task(
            **{
                **row,
                "priority": _PRIORITIES[row["priority"]],
                "status": _STATUSES[row["status"]],
                "hold_reason": _HOLDS[row["hold_reason"]],
                "depends_on": tuple(row["depends_on"]),
                "dependency_policy": _POLICIES[row["dependency_policy"]],
            }
        )
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} is no value that a task has") from error


def run_of(row: Row) -> Run:
    """A run from its row."""
    return Run(
        **{
            **row,
            "state": _RUN_STATES[row["state"]],
            "verdict": _VERDICTS[row["verdict"]],
            "outcome": _OUTCOMES[row["outcome"]],
        }
    )


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
