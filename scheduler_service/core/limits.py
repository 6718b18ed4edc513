"""The contract's bounds, and what of a submitted task breaks them.

What is storable but poor (a title of three letters, a placeholder) breaks no bound: pre-flight judges it.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from graphlib import CycleError, TopologicalSorter
from typing import Any
from uuid import UUID

import msgspec

from scheduler_service.core.task import DependencyPolicy, Priority

TITLE_MAX_CHARS = 500
DESCRIPTION_MAX_BYTES = 256 * 1024
PAYLOAD_MAX_BYTES = 256 * 1024
PAYLOAD_MAX_DEPTH = 16
NAME_MAX_CHARS = 64
DEPENDS_ON_MAX = 100
SUBMIT_TASKS_MAX = 1_000
PAGE_SIZE_MAX = 500
PAGE_SIZE_DEFAULT = 50
REASON_MAX_CHARS = 500
REQUEST_ID_MAX_CHARS = 128
MAX_TRIES_MIN = 1
MAX_TRIES_MAX = 100
MAX_TRIES_DEFAULT = 3
TIMEOUT_MAX = timedelta(days=7)
TIMEOUT_DEFAULT = timedelta(hours=1)
TASK_TYPE_DEFAULT = "dev"
WINDOW_MAX = timedelta(days=7)
MESSAGE_MAX_BYTES = 4 * 1024 * 1024
QUEUE_MAX_TASKS = 1_000_000
DISPATCH_MAX_RUNS = 500
DISPATCH_MAX_BYTES = 2 * 1024 * 1024

VIOLATIONS_MAX = 20
"""A report names at most so many: a hostile payload must not make the answer larger than itself."""

_NO_TIME = timedelta(0)
_NAME = re.compile(r"[A-Za-z0-9_.:/-]*")
_SHOWN_CHARS = 40


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks to be run; the defaults are the contract's."""

    title: str
    task_id: UUID | None = None
    description: str = ""
    task_type: str = TASK_TYPE_DEFAULT
    priority: Priority = Priority.P1
    skill: str = ""
    payload: Mapping[str, Any] = msgspec.field(default_factory=dict)
    depends_on: tuple[UUID, ...] = ()
    max_tries: int = MAX_TRIES_DEFAULT
    not_before_time: datetime | None = None
    timeout: timedelta = TIMEOUT_DEFAULT
    dependency_policy: DependencyPolicy = DependencyPolicy.FAIL


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken bound: the field's path inside the spec, and in words the value and what would be right."""

    field: str
    description: str


def violations_of(spec: TaskSpec) -> list[Violation]:
    """Every bound that one spec breaks, at most `VIOLATIONS_MAX`; empty for a good one."""
    found: list[Violation] = []
    _judge_title(spec.title, found)
    _judge_description(spec.description, found)
    _judge_name("task_type", spec.task_type, found)
    if spec.skill:
        _judge_name("skill", spec.skill, found)
    if spec.depends_on:
        found.extend(_depends_on(spec))
    if not MAX_TRIES_MIN <= spec.max_tries <= MAX_TRIES_MAX:
        found.append(Violation("max_tries", f"is {spec.max_tries}; must be {MAX_TRIES_MIN} to {MAX_TRIES_MAX}"))
    if not _NO_TIME < spec.timeout <= TIMEOUT_MAX:
        found.append(
            Violation("timeout", f"is {spec.timeout.total_seconds():.15g} s; must be above 0 and at most 7 days (604800 s)")
        )
    if spec.payload:
        found.extend(_payload(spec.payload))
    return found[:VIOLATIONS_MAX]


def batch_violations(specs: Sequence[TaskSpec]) -> list[Violation]:
    """What breaks the bounds of a batch as such: its size, ids used twice, prerequisites in a circle.

    Fields are paths from `tasks`; the single specs are judged by `violations_of`.
    """
    if not specs:
        return [Violation("tasks", "is empty; give at least 1 task")]
    if len(specs) > SUBMIT_TASKS_MAX:
        return [Violation("tasks", f"has {len(specs)} tasks; at most {SUBMIT_TASKS_MAX} in one call")]
    uses = Counter(spec.task_id for spec in specs if spec.task_id is not None)
    found = [
        Violation(f"tasks[{index}].task_id", f"{spec.task_id} is given {uses[spec.task_id]} times; ids must differ")
        for index, spec in enumerate(specs)
        if spec.task_id is not None and uses[spec.task_id] > 1
    ]
    found.extend(_circles(specs))
    return found[:VIOLATIONS_MAX]


def text_problem(text: str) -> str:
    """Why a text cannot be stored: NUL, or half of a surrogate pair; empty when it can."""
    if "\0" in text:
        return "contains NUL (U+0000); remove it"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"is not valid UTF-8: lone surrogate at character {error.start}"
    return ""


def shown(value: object) -> str:
    """A value as an error message quotes it: escaped and shortened."""
    text = ascii(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


# These add what they find instead of yielding it: every task has a title, a description and a type, a thousand may come in one
# call, and to iterate over what is mostly nothing takes longer than to look.


def _judge_title(title: str, found: list[Violation]) -> None:
    if not title:
        found.append(Violation("title", f"is empty; must have 1 to {TITLE_MAX_CHARS} characters"))
    elif len(title) > TITLE_MAX_CHARS:
        found.append(Violation("title", f"{shown(title)} has {len(title)} characters; at most {TITLE_MAX_CHARS}"))
    if problem := text_problem(title):
        found.append(Violation("title", f"{shown(title)} {problem}"))


def _judge_description(description: str, found: list[Violation]) -> None:
    if problem := text_problem(description):
        found.append(Violation("description", f"{shown(description)} {problem}"))
    elif (size := len(description.encode())) > DESCRIPTION_MAX_BYTES:
        found.append(Violation("description", f"has {size} bytes; at most {DESCRIPTION_MAX_BYTES}"))


def _judge_name(name: str, value: str, found: list[Violation]) -> None:
    if len(value) > NAME_MAX_CHARS:
        found.append(Violation(name, f"{shown(value)} has {len(value)} characters; at most {NAME_MAX_CHARS}"))
    elif not _NAME.fullmatch(value):
        found.append(Violation(name, f"{shown(value)} has other characters than A-Z a-z 0-9 _ . : / -"))


def _depends_on(spec: TaskSpec) -> Iterator[Violation]:
    if len(spec.depends_on) > DEPENDS_ON_MAX:
        yield Violation("depends_on", f"has {len(spec.depends_on)} tasks; at most {DEPENDS_ON_MAX}")
        return
    repeated = sorted(str(task_id) for task_id, n in Counter(spec.depends_on).items() if n > 1)
    for task_id in repeated:
        yield Violation("depends_on", f"{task_id} is listed more than once; list each prerequisite once")
    if spec.task_id is not None and spec.task_id in spec.depends_on:
        yield Violation("depends_on", f"{spec.task_id} is the task itself; a task cannot wait for itself")


def _payload(payload: Mapping[str, Any]) -> Iterator[Violation]:
    override = payload.get("skill_override")
    if isinstance(override, str) and len(override) > NAME_MAX_CHARS:
        yield Violation("payload.skill_override", f"has {len(override)} characters; at most {NAME_MAX_CHARS}")
    yield from _json_object(payload)


def _json_object(payload: Mapping[str, Any]) -> Iterator[Violation]:
    """Walks with a stack of its own: a deep payload must not exhaust the interpreter's."""
    broken = False
    pending: list[tuple[str, int, Any]] = [("payload", 1, payload)]
    while pending:
        path, depth, value = pending.pop()
        if isinstance(value, Mapping | list | tuple):
            if depth > PAYLOAD_MAX_DEPTH:
                yield Violation("payload", f"is more than {PAYLOAD_MAX_DEPTH} deep; flatten it")
                return
            problems = list(_key_problems(path, value)) if isinstance(value, Mapping) else []
            pending.extend((child, depth + 1, item) for child, item in _children(path, value))
        else:
            problem = _scalar_problem(value)
            problems = [Violation(path, f"{shown(value)} {problem}")] if problem else []
        if problems:
            broken = True
            yield from problems
    if broken:
        return
    size = len(msgspec.json.encode(payload, enc_hook=dict))
    if size > PAYLOAD_MAX_BYTES:
        yield Violation("payload", f"has {size} bytes as JSON; at most {PAYLOAD_MAX_BYTES}")


def _key_problems(path: str, value: Mapping[Any, Any]) -> Iterator[Violation]:
    for key in value:
        problem = text_problem(key) if isinstance(key, str) else "is not text; keys must be text"
        if problem:
            yield Violation(path, f"key {shown(key)} {problem}")


def _children(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    # Deep paths of long keys would make the report larger than the payload.
    shortened = path if len(path) <= 120 else f"{path[:117]}..."
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"{shortened}.{shown(key)[1:-1]}", item
    else:
        for index, item in enumerate(value):
            yield f"{shortened}[{index}]", item


def _scalar_problem(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, str):
        return text_problem(value)
    if isinstance(value, int):
        return "" if value.bit_length() <= 1023 else "is too large a number for JSON"
    if isinstance(value, float):
        return "" if math.isfinite(value) else "is not a number that JSON can hold; use null or text"
    return "is not a JSON value"


def _circles(specs: Sequence[TaskSpec]) -> Iterator[Violation]:
    places = {spec.task_id: index for index, spec in enumerate(specs) if spec.task_id is not None}
    graph: dict[UUID, set[UUID]] = {task_id: set() for task_id in places}
    for spec in specs:
        if spec.task_id is not None:
            # A task that waits for itself is that spec's own violation.
            graph[spec.task_id] |= {d for d in spec.depends_on if d in places and d != spec.task_id}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[UUID] = error.args[1]
        path = " -> ".join(str(task_id) for task_id in circle[:6])
        more = " -> ..." if len(circle) > 6 else ""
        yield Violation(
            f"tasks[{places[circle[0]]}].depends_on",
            f"prerequisites go in a circle: {path}{more}; no task of it could ever start",
        )
