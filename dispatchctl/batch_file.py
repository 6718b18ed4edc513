"""A file of tasks: a JSON list of `TaskSpec`, or an object with `tasks` (and `expected`: how the samples should end).

A `task_id` that is no UUID is a name: it becomes a UUID made from the request's id and the name, in `depends_on` too. The same
file can be submitted again and again, and a repeated request is the same request.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import ParseDict, ParseError

from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.parameters import STATUSES

TASKS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Batch:
    """The tasks of a file, and by task id the status that a task is expected to end with."""

    tasks: tuple[pb.TaskSpec, ...]
    expected: Mapping[str, pb.TaskStatus.ValueType] = field(default_factory=lambda: MappingProxyType({}))


def _unusable(source: str, why: str) -> Failure:
    return Failure(
        f"{source} holds no batch of tasks",
        f"bad_file: {why}",
        'write a JSON list such as [{"title": "...", "description": "..."}], or {"tasks": [...]}',
        ExitStatus.USAGE,
    )


def load_batch(text: str, source: str, request_id: str) -> Batch:
    """The batch in a text; `source` is the file's name for errors. Raises Failure."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unusable(source, f"it is no JSON ({error})") from error
    body = document if isinstance(document, dict) else {"tasks": document}
    if unknown := sorted(set(body) - {"tasks", "expected"}):
        raise _unusable(source, f"it has the unknown field {unknown[0]!r}")
    entries = body.get("tasks")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise _unusable(source, "the tasks are no list of objects")
    if len(entries) > TASKS_MAX:
        raise _unusable(source, f"it has {len(entries)} tasks, more than {TASKS_MAX}")
    ids = {name: _id_of(name, request_id) for name in _names(entries, source)}
    return Batch(
        tuple(_spec(entry, index, ids, source) for index, entry in enumerate(entries)),
        _expected(body.get("expected", {}), ids, source),
    )


def _names(entries: list[dict[str, Any]], source: str) -> list[str]:
    names = [entry["task_id"] for entry in entries if entry.get("task_id")]
    if not all(isinstance(name, str) for name in names):
        raise _unusable(source, "a task_id is no text")
    if len(set(names)) != len(names):
        raise _unusable(source, f"two tasks have the task_id {next(name for name in names if names.count(name) > 1)!r}")
    return names


def _id_of(name: str, request_id: str) -> str:
    try:
        return str(uuid.UUID(name))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"cecelia-dispatch:{request_id}:{name}"))


def _spec(entry: dict[str, Any], index: int, ids: Mapping[str, str], source: str) -> pb.TaskSpec:
    depends_on = entry.get("depends_on", [])
    if not isinstance(depends_on, list):
        raise _unusable(source, f"tasks[{index}].depends_on is no list")
    mapped = {**entry, "depends_on": [ids.get(name, name) if isinstance(name, str) else name for name in depends_on]}
    if entry.get("task_id"):
        mapped["task_id"] = ids[entry["task_id"]]
    try:
        return ParseDict(mapped, pb.TaskSpec())
    except (ParseError, RecursionError) as error:
        raise _unusable(source, f"tasks[{index}]: {error}") from error


def _expected(expected: Any, ids: Mapping[str, str], source: str) -> Mapping[str, pb.TaskStatus.ValueType]:
    if not isinstance(expected, dict):
        raise _unusable(source, "expected is no object of task_id and status")
    for name, word in expected.items():
        if name not in ids:
            raise _unusable(source, f"expected names {name!r}, which no task has as its task_id")
        if word not in STATUSES:
            raise _unusable(source, f"expected.{name} is {word!r}; must be one of {', '.join(STATUSES)}")
    return {ids[name]: STATUSES[word] for name, word in expected.items()}
