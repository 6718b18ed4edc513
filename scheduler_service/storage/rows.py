"""Rows to values and back. Column names are field names; only types differ.

Many rows go to the database as one JSON text, which one statement takes apart (`json_populate_recordset`): a statement for
each row costs several times as much, on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from operator import attrgetter
from typing import Any
from uuid import UUID

import msgspec

from scheduler_service.core.breaker import Breaker, BreakerState
from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.run import Run, RunState
from scheduler_service.core.task import DependencyPolicy, Priority, Task, TaskStatus
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict

Row = Mapping[str, Any]


def as_json(rows: Sequence[object]) -> str:
    """Rows, Structs or mappings, as one JSON text."""
    return msgspec.json.encode(rows, enc_hook=_plain).decode()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no form as JSON")


class RowShape:
    """The columns of a row as it is sent: of what is `usual` nothing is, and the statement puts it in again.

    Of the 30 µs that an update of a row of `tasks` took, reading its JSON with all columns took 12.
    """

    def __init__(self, name: str, columns: Iterable[str], **usual: object) -> None:
        optional = [(column, Any, value) for column, value in usual.items()]
        self.columns = (*columns, *usual)
        self._make: Callable[..., object] = msgspec.defstruct(name, [*columns, *optional], omit_defaults=True)
        self._values = attrgetter(*self.columns)

    def rows(self, values: Iterable[object]) -> Iterator[object]:
        """Each value's row."""
        return (self._make(*self._values(value)) for value in values)


EDITED_TASK = RowShape(
    "EditedTask", ("id", "title", "description", "priority", "skill", "payload", "not_before_time", "rank_time")
)
_USUAL_OF_TASK = {field.name: field.default for field in msgspec.structs.fields(Task)}
MOVED_TASK = RowShape(
    "MovedTask",
    ("id", "status", "fence", "due_time", "update_time"),
    **{
        name: _USUAL_OF_TASK[name]
        for name in (
            *("hold_reason", "run_id", "tries", "start_failures", "last_start_failure_time", "backoff_count", "executor_id"),
            *("exit_code", "result", "error", "cancel_requested", "blocked_by", "start_time", "end_time", "next_attempt_time"),
        )
    },
)
"""What a transition can change; the rest is what was submitted, or what an operator edits."""

NEW_RUN = RowShape(
    "NewRun",
    (
        *("run_id", "task_id", "fence", "executor_id", "backend", "breaker_key", "breaker_generation", "is_probe"),
        *("claim_time", "lease_until", "state"),
    ),
)
"""What a claim makes: all the rest comes later."""

MOVED_RUN = RowShape(
    "MovedRun",
    ("run_id", "state", "lease_until"),
    verdict=None,
    verdict_reason="",
    outcome=None,
    exit_code=None,
    signal=None,
    error="",
    usage={},
    accept_time=None,
    start_time=None,
    end_time=None,
    renew_seq=0,
)
"""What can change of a run."""


_PAYLOAD, _DEPENDS_ON = (Task.__struct_fields__.index(name) for name in ("payload", "depends_on"))


def _places(of: type[msgspec.Struct], **words: type[Enum]) -> Sequence[tuple[int, Mapping[Any, object]]]:
    """Where in a row words stand, and what they are."""
    return [
        (of.__struct_fields__.index(name), {None: None, **{word.value: word for word in kind}}) for name, kind in words.items()
    ]


_TASK_WORDS = _places(Task, priority=Priority, status=TaskStatus, hold_reason=HoldReason, dependency_policy=DependencyPolicy)
_RUN_WORDS = _places(Run, state=RunState, verdict=StartVerdict, outcome=OutcomeClass)


def task_of(row: Sequence[Any]) -> Task:
    """A task from its columns, in the order of its fields. Raises ValueError for values that no task has."""
    values = list(row)
    if not isinstance(values[_PAYLOAD], dict):
        raise ValueError(f"payload is no JSON object but {type(values[_PAYLOAD]).__name__}")
    values[_DEPENDS_ON] = tuple(values[_DEPENDS_ON])
    try:
        for place, words in _TASK_WORDS:
            values[place] = words[values[place]]
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} is no value that a task has") from error
    return Task(*values)


def run_of(row: Sequence[Any]) -> Run:
    """A run from its columns, in the order of its fields."""
    values = list(row)
    for place, words in _RUN_WORDS:
        values[place] = words[values[place]]
    return Run(*values)


def uuids(ids: Iterable[UUID]) -> str:
    """Ids as the text of an array: psycopg takes a list apart in Python, which was 6 % of claiming and recording."""
    return f"{{{','.join([id_.hex for id_ in ids])}}}"


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
