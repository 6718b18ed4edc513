"""Rows to values and back. Column names are field names; only types differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from psycopg.types.json import Jsonb

from scheduler_service.core.breaker import Breaker, BreakerState
from scheduler_service.core.reasons import HoldReason
from scheduler_service.core.run import Run, RunState
from scheduler_service.core.task import DependencyPolicy, Priority, Task, TaskStatus
from scheduler_service.core.verdicts import OutcomeClass, StartVerdict

Row = Mapping[str, Any]

_TASK_FIELDS = tuple(field.name for field in fields(Task))
_RUN_FIELDS = tuple(field.name for field in fields(Run))


def task_of(row: Row) -> Task:
    """A task from its row. Raises ValueError for values that no task has."""
    values = {name: row[name] for name in _TASK_FIELDS}
    if not isinstance(values["payload"], dict):
        raise ValueError(f"payload is no JSON object but {type(values['payload']).__name__}")
    values["priority"] = Priority(values["priority"])
    values["status"] = TaskStatus(values["status"])
    values["hold_reason"] = HoldReason(values["hold_reason"])
    values["depends_on"] = tuple(values["depends_on"])
    values["dependency_policy"] = DependencyPolicy(values["dependency_policy"])
    return Task(**values)


def task_row(task: Task) -> dict[str, Any]:
    """A task's row."""
    values = {name: getattr(task, name) for name in _TASK_FIELDS}
    values["priority"] = int(task.priority)
    values["status"] = task.status.value
    values["hold_reason"] = task.hold_reason.value
    values["depends_on"] = list(task.depends_on)
    values["dependency_policy"] = task.dependency_policy.value
    values["payload"] = Jsonb(task.payload)
    return values


def run_of(row: Row) -> Run:
    """A run from its row."""
    values = {name: row[name] for name in _RUN_FIELDS}
    values["state"] = RunState(values["state"])
    values["verdict"] = StartVerdict(values["verdict"]) if values["verdict"] else None
    values["outcome"] = OutcomeClass(values["outcome"]) if values["outcome"] else None
    return Run(**values)


def run_row(run: Run) -> dict[str, Any]:
    """A run's row."""
    values = {name: getattr(run, name) for name in _RUN_FIELDS}
    values["state"] = run.state.value
    values["verdict"] = run.verdict.value if run.verdict else None
    values["outcome"] = run.outcome.value if run.outcome else None
    values["usage"] = Jsonb(dict(run.usage))
    return values


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
