"""A file of tasks: a JSON list of `TaskSpec`, or an object with `tasks` (and `expected`: how the samples should end).

A `task_id` that is no UUID is a name: it becomes a UUID made from the request's id and the name, in `depends_on` too. The same
file can be submitted again and again, and a repeated request is the same request.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import ParseDict, ParseError

from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.parameters import POLICIES, PRIORITIES, SENDABLE_LEVELS, STATUSES, deeper_than, shown

TASKS_MAX = 1_000
# By its name in JSON as well: both spellings are right.
_FIELDS = {str(descriptor.json_name): str(descriptor.name) for descriptor in pb.TaskSpec.DESCRIPTOR.fields}
_RIGHT = MappingProxyType(
    {
        "priority": "P0, P1 or P2",
        "dependency_policy": "fail or wait",
        "payload": "an object of at most 16 levels",
        "max_tries": "a whole number",
        "not_before_time": 'a time such as "2026-01-31T08:00:00Z"',
        "timeout": 'seconds such as "90s"',
    }
)
_EXAMPLE = 'write a JSON list such as [{"title": "...", "description": "..."}], or {"tasks": [...]}'


@dataclass(frozen=True, slots=True)
class Batch:
    """The tasks of a file, and by task id the status that a task is expected to end with."""

    tasks: tuple[pb.TaskSpec, ...]
    expected: Mapping[str, pb.TaskStatus.ValueType] = field(default_factory=lambda: MappingProxyType({}))


def _unusable(source: str, why: str, remedy: str = _EXAMPLE) -> Failure:
    return Failure(f"cannot take the tasks from {source}", f"bad_file: {why}", remedy, ExitStatus.USAGE)


def load_batch(text: str, source: str, request_id: str) -> Batch:
    """The batch in a text; `source` is the file's name for errors. Raises Failure."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unusable(source, f"it is no JSON ({error})") from error
    body = document if isinstance(document, dict) else {"tasks": document}
    if unknown := sorted(set(body) - {"tasks", "expected"}):
        raise _unusable(source, f"it has the unknown field {shown(unknown[0])}")
    entries = body.get("tasks")
    if not isinstance(entries, list):
        raise _unusable(source, f"the tasks are {'missing' if entries is None else 'no list'}")
    if not entries:
        raise _unusable(source, "the list of tasks is empty")
    if len(entries) > TASKS_MAX:
        remedy = "submit it in parts; a dependency on another part's task takes that task's UUID"
        raise _unusable(source, f"it has {len(entries)} tasks, more than {TASKS_MAX}", remedy)
    entries = [_entry(entry, f"tasks[{index}]", source) for index, entry in enumerate(entries)]
    ids = {name: _id_of(name, request_id) for name in _names(entries, source)}
    _refuse_circles(entries, source)
    return Batch(
        tuple(_spec(entry, f"tasks[{index}]", ids, source) for index, entry in enumerate(entries)),
        _expected(body.get("expected", {}), ids, source),
    )


def _entry(entry: Any, where: str, source: str) -> dict[str, Any]:
    """One task under proto field names."""
    if not isinstance(entry, dict):
        raise _unusable(source, f"{where} is no object")
    named = {_FIELDS.get(str(name), str(name)): value for name, value in entry.items()}
    if unknown := sorted(set(named) - set(_FIELDS.values())):
        remedy = f"the fields are: {', '.join(_FIELDS.values())}"
        raise _unusable(source, f"{where} has the unknown field {shown(unknown[0])}", remedy)
    depends_on = named.get("depends_on", [])
    if not isinstance(depends_on, list) or not all(isinstance(name, str) for name in depends_on):
        raise _unusable(source, f"{where}.depends_on is no list of texts", "list the task_id of each prerequisite")
    priority = named.get("priority")
    if isinstance(priority, str):
        named["priority"] = PRIORITIES.get(priority.upper().removeprefix("PRIORITY_"), priority)
    policy = named.get("dependency_policy")
    if isinstance(policy, str):
        named["dependency_policy"] = POLICIES.get(policy.lower().removeprefix("dependency_policy_"), policy)
    return named


def _names(entries: list[dict[str, Any]], source: str) -> list[str]:
    names = [entry["task_id"] for entry in entries if entry.get("task_id")]
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise _unusable(source, f"the task_id {shown(wrong[0])} is no text", "write a name or a UUID in quotes")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _unusable(source, f"two tasks have the task_id {shown(twice)}", "give each task a task_id of its own")
    return names


def _id_of(name: str, request_id: str) -> str:
    return name if _is_uuid(name) else str(uuid.uuid5(uuid.NAMESPACE_URL, f"cecelia-dispatch:{request_id}:{name}"))


def _is_uuid(name: str) -> bool:
    try:
        uuid.UUID(name)
    except ValueError:
        return False
    return True


def _refuse_circles(entries: list[dict[str, Any]], source: str) -> None:
    graph = {entry["task_id"]: entry.get("depends_on", []) for entry in entries if entry.get("task_id")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " → ".join(str(name) for name in error.args[1])
        raise _unusable(source, f"the tasks wait for each other in a circle: {circle}", "take one out of a depends_on") from error


def _spec(entry: dict[str, Any], where: str, ids: Mapping[str, str], source: str) -> pb.TaskSpec:
    depends_on = entry.get("depends_on", [])
    if missing := [name for name in depends_on if name not in ids and not _is_uuid(name)]:
        why = f"{where}.depends_on names {shown(missing[0])}, which is no task_id of this file and no UUID"
        raise _unusable(source, why, f"the task_ids of the file are: {', '.join(ids) or 'none'}")
    mapped = {**entry, "depends_on": [ids.get(name, name) for name in depends_on]}
    if entry.get("task_id"):
        mapped["task_id"] = ids[entry["task_id"]]
    spec = pb.TaskSpec()
    for name, value in mapped.items():
        right = f"{where}.{name} is {shown(value)}; must be {_RIGHT.get(name, 'a text')}"
        if deeper_than(value, SENDABLE_LEVELS):
            raise _unusable(source, right, f"correct {name}")
        try:
            ParseDict({name: value}, spec)
        except (ParseError, ValueError) as error:
            raise _unusable(source, right, f"correct {name}") from error
    return spec


def _expected(expected: Any, ids: Mapping[str, str], source: str) -> Mapping[str, pb.TaskStatus.ValueType]:
    if not isinstance(expected, dict):
        raise _unusable(source, "expected is no object of task_id and status")
    for name, word in expected.items():
        if name not in ids:
            raise _unusable(source, f"expected names {shown(name)}, which no task has as its task_id")
        if word not in STATUSES:
            raise _unusable(source, f"expected.{name} is {shown(word)}", f"write one of: {', '.join(STATUSES)}")
    return {ids[name]: STATUSES[word] for name, word in expected.items()}
