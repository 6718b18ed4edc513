"""A run's record as rows of the journal: what was accepted, and what has become of it. Times are seconds since 1970, UTC."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from executor_service.core.run import EndReport, RunOutcome, RunRecord, RunSpec, RunState, StartReport, StartVerdict

ACCEPTED_COLUMNS = (
    "run_id TEXT PRIMARY KEY",
    "task_id TEXT NOT NULL",
    "fence INTEGER NOT NULL",
    "title TEXT NOT NULL",
    "description TEXT NOT NULL",
    "task_type TEXT NOT NULL",
    "backend TEXT NOT NULL",
    "payload TEXT NOT NULL",  # JSON
    "timeout_s REAL NOT NULL",
    "lease_ttl_s REAL NOT NULL",
    "skill TEXT NOT NULL",
    "permission_mode TEXT NOT NULL",
    "model TEXT NOT NULL",
    "provider TEXT NOT NULL",
    "cluster_id TEXT NOT NULL",
    "accept_time REAL NOT NULL",
)
FINAL_COLUMNS = (
    "run_id TEXT PRIMARY KEY",
    "start_verdict TEXT NOT NULL",
    "start_reason TEXT NOT NULL",
    "start_detail TEXT NOT NULL",
    "start_time REAL",
    "outcome TEXT NOT NULL",
    "exit_code INTEGER",
    "signal INTEGER",
    "result TEXT NOT NULL",
    "error TEXT NOT NULL",
    "error_class TEXT NOT NULL",
    "retry_time REAL",
    "usage TEXT NOT NULL",  # JSON
    "end_time REAL",
)


def accepted_row(record: RunRecord) -> tuple[Any, ...]:
    """What was asked, and when it was accepted, in the order of ACCEPTED_COLUMNS."""
    spec = record.spec
    return (
        spec.run_id,
        spec.task_id,
        spec.fence,
        spec.title,
        spec.description,
        spec.task_type,
        spec.backend,
        _json(spec.payload),
        spec.timeout.total_seconds(),
        spec.lease_ttl.total_seconds(),
        spec.skill,
        spec.permission_mode,
        spec.model,
        spec.provider,
        spec.cluster_id,
        record.accept_time.timestamp(),
    )


def final_row(record: RunRecord) -> tuple[Any, ...]:
    """The start verdict and the end of a run that has ended, in the order of FINAL_COLUMNS."""
    start, end = record.start, record.end
    if start is None or end is None:
        raise ValueError(f"run {record.spec.run_id} has not ended: it has no final to keep")
    return (
        record.spec.run_id,
        start.verdict.value,
        start.reason,
        start.detail,
        _seconds(record.start_time),
        end.outcome.value,
        end.exit_code,
        end.signal,
        end.result,
        end.error,
        end.error_class,
        _seconds(end.retry_time),
        _json(end.usage),
        _seconds(record.end_time),
    )


def record_of(accepted: Sequence[Any], final: Sequence[Any] | None) -> RunRecord:
    """The record of its rows. Raises ValueError, TypeError, OverflowError."""
    run_id, task_id, fence, title, description, task_type, backend, payload, timeout_s, lease_ttl_s, *rest, accept_time = accepted
    asked = (run_id, task_id, fence, title, description, task_type, backend, json.loads(payload))
    spec = RunSpec(*asked, timedelta(seconds=timeout_s), timedelta(seconds=lease_ttl_s), *rest)
    record = RunRecord(spec, RunState.ACCEPTED, datetime.fromtimestamp(accept_time, UTC))
    if final is None:
        return record
    _, verdict, reason, detail, start_time, outcome, *said, retry_time, usage, end_time = final
    start = StartReport(StartVerdict(verdict), reason, detail)
    exit_code, signal, result, error, error_class = said
    figures = json.loads(usage)
    end = EndReport(RunOutcome(outcome), exit_code, signal, result, error, error_class, _moment(retry_time), figures)
    return RunRecord(spec, RunState.ENDED, record.accept_time, start, end, _moment(start_time), _moment(end_time))


def _json(figures: Mapping[str, Any]) -> str:
    return json.dumps(figures) if figures else "{}"


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
