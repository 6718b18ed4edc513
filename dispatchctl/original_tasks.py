"""The rows of the original's table `tasks` as ours: `docs/how-to/move-from-the-original.md` says what maps to what.

Whatever has not ended there can come over, under the id that it has. What waits for a task that neither comes along nor has
completed is left out: here it would end at once as `dependency_failed`.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from typing import Any

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.parameters import PRIORITIES, SENDABLE_LEVELS, deeper_than, shown

UNENDED = ("queued", "in_progress", "paused", "pending", "blocked", "quota_exhausted", "quota_blocked")
"""Statuses of the original whose tasks can be taken over."""
COMPLETED = frozenset({"completed", "completed_no_pr"})
# What the original notes about its own runs; it would mean nothing here.
BOOKKEEPING = frozenset(
    {"depends_on", "next_run_at", "current_run_id", "run_status", "run_triggered_at", "last_run_result", "failure_class",
     "failure_detail", "failure_count", "watchdog_retry_count", "smart_retry"}
)  # fmt: skip
# Of SubmitTasks, with room to spare.
BATCH_TASKS, BATCH_BYTES = 500, 3 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Import:
    """The tasks that come over, prerequisites first; how many rows were left out, by their status; and by id why others were."""

    tasks: tuple[pb.TaskSpec, ...]
    other_statuses: Mapping[str, int]
    unmet: Mapping[str, str]


def _unusable(source: str, why: str, remedy: str = "see how to make the file: /docs/how-to/move-from-the-original.md") -> Failure:
    return Failure(f"cannot take the tasks from {source}", f"bad_file: {why}", remedy, ExitStatus.USAGE)


def read_rows(text: str, source: str) -> list[dict[str, Any]]:
    """The rows in a JSON list of objects; `null`, which json_agg gives for none, is none. Raises Failure."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unusable(source, f"it is no JSON ({error})") from error
    if rows is None:
        return []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _unusable(source, "it is no list of objects")
    return rows


def convert(rows: Sequence[Mapping[str, Any]], statuses: Collection[str], source: str) -> Import:
    """The tasks of these statuses. Raises Failure that names the row and the field that will not do."""
    completed, wanted, others = set(), {}, Counter[str]()
    for index, row in enumerate(rows):
        where = f"row {index}"
        id_, status = _uuid(row.get("id"), f"{where}.id", source), _text(row, "status", where, source)
        if status in COMPLETED:
            completed.add(id_)
        if status not in statuses:
            others[status] += 1
        elif id_ in wanted:
            raise _unusable(source, f"{where}.id is {shown(id_)}, as that of a row before it")
        else:
            wanted[id_] = _spec(id_, row, where, source)
    for spec in wanted.values():
        waits_for = [id_ for id_ in spec.depends_on if id_ not in completed]
        del spec.depends_on[:]
        spec.depends_on.extend(waits_for)
    unmet = _leave_out_unmet(wanted)
    return Import(tuple(_in_order(wanted, source)), dict(others), unmet)


def batches(tasks: Sequence[pb.TaskSpec]) -> list[pb.SubmitTasksRequest]:
    """The tasks in calls that are not too large; the same tasks make the same calls, so that an import can be repeated."""
    found: list[pb.SubmitTasksRequest] = []
    size = BATCH_BYTES
    for task in tasks:
        if size + task.ByteSize() > BATCH_BYTES or len(found[-1].tasks) >= BATCH_TASKS:
            found.append(pb.SubmitTasksRequest())
            size = 0
        found[-1].tasks.append(task)
        size += task.ByteSize()
    for batch in found:
        batch.request_id = str(uuid.uuid5(uuid.NAMESPACE_URL, " ".join(task.task_id for task in batch.tasks)))
    return found


def _leave_out_unmet(wanted: dict[str, pb.TaskSpec]) -> dict[str, str]:
    """Takes away what waits for a task that does not come along, and what waits for that; by id, what it waits for."""
    unmet: dict[str, str] = {}
    while missing := {
        id_: next(before for before in spec.depends_on if before not in wanted)
        for id_, spec in wanted.items()
        if not all(before in wanted for before in spec.depends_on)
    }:
        unmet |= missing
        for id_ in missing:
            del wanted[id_]
    return unmet


def _in_order(wanted: Mapping[str, pb.TaskSpec], source: str) -> list[pb.TaskSpec]:
    try:
        order = TopologicalSorter({id_: list(spec.depends_on) for id_, spec in wanted.items()}).static_order()
        return [wanted[id_] for id_ in order]
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise _unusable(source, f"the tasks wait for each other in a circle: {circle}", "end one of them there") from error


def _spec(id_: str, row: Mapping[str, Any], where: str, source: str) -> pb.TaskSpec:
    payload = row.get("payload") or {}
    if not isinstance(payload, dict) or deeper_than(payload, SENDABLE_LEVELS):
        raise _unusable(source, f"{where}.payload is {shown(payload)}; must be an object of at most 16 levels")
    depends_on = payload.get("depends_on") or []
    if not isinstance(depends_on, list):
        raise _unusable(source, f"{where}.payload.depends_on is {shown(depends_on)}; must be a list of ids")
    kept = {name: value for name, value in payload.items() if name not in BOOKKEEPING}
    spec = pb.TaskSpec(
        task_id=id_,
        title=_text(row, "title", where, source),
        description=_text(row, "description", where, source) or _text(row, "prd_content", where, source),
        task_type=_text(row, "task_type", where, source),
        # The original takes every other priority last.
        priority=PRIORITIES.get(_text(row, "priority", where, source) or "P1", pb.PRIORITY_P2),
        payload=ParseDict(kept, Struct()) if kept else None,
        depends_on=[_uuid(before, f"{where}.payload.depends_on", source) for before in depends_on],
    )
    if payload.get("next_run_at"):
        spec.not_before_time.FromDatetime(_moment(payload["next_run_at"], f"{where}.payload.next_run_at", source))
    return spec


def _text(row: Mapping[str, Any], name: str, where: str, source: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise _unusable(source, f"{where}.{name} is {shown(value)}; must be a text")
    return value or ""


def _uuid(value: Any, where: str, source: str) -> str:
    try:
        return str(uuid.UUID(value))
    except (ValueError, TypeError, AttributeError) as error:
        raise _unusable(source, f"{where} is {shown(value)}; must be a UUID") from error


def _moment(value: Any, where: str, source: str) -> datetime:
    """A time of the original's; one without a zone is UTC."""
    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError) as error:
        raise _unusable(source, f'{where} is {shown(value)}; must be a time such as "2026-01-31T08:00:00Z"') from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
