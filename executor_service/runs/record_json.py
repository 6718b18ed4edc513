"""A run's record as the texts that the journal keeps: what was accepted, and what has become of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from executor_service.core.run import EndReport, RunOutcome, RunRecord, RunSpec, RunState, StartReport, StartVerdict


def accepted_text(record: RunRecord) -> str:
    """What was asked, and when it was accepted."""
    spec = record.spec
    asked = {
        "run_id": spec.run_id,
        "task_id": spec.task_id,
        "fence": spec.fence,
        "title": spec.title,
        "description": spec.description,
        "task_type": spec.task_type,
        "backend": spec.backend,
        "payload": dict(spec.payload),
        "timeout": spec.timeout.total_seconds(),
        "lease_ttl": spec.lease_ttl.total_seconds(),
        "skill": spec.skill,
        "permission_mode": spec.permission_mode,
        "model": spec.model,
        "provider": spec.provider,
        "cluster_id": spec.cluster_id,
    }
    return json.dumps({"spec": asked, "accept_time": _text(record.accept_time)})


def final_text(record: RunRecord) -> str:
    """The start verdict and the end of a run that has ended."""
    start, end = record.start, record.end
    if start is None or end is None:
        raise ValueError(f"run {record.spec.run_id} has not ended: it has no final to keep")
    final = {
        "start_time": _text(record.start_time),
        "end_time": _text(record.end_time),
        "start": {"verdict": start.verdict.value, "reason": start.reason, "detail": start.detail},
        "end": {
            "outcome": end.outcome.value,
            "exit_code": end.exit_code,
            "signal": end.signal,
            "result": end.result,
            "error": end.error,
            "error_class": end.error_class,
            "retry_time": _text(end.retry_time),
            "usage": dict(end.usage),
        },
    }
    return json.dumps(final)


def record_of(accepted: str, final: str | None) -> RunRecord:
    """The record of these texts. Raises ValueError, KeyError, TypeError."""
    data = json.loads(accepted)
    return record_of_object({**data, "state": RunState.ACCEPTED} if final is None else {**data, **json.loads(final)})


def record_of_object(data: Mapping[str, Any]) -> RunRecord:
    """The record of a JSON object of all its parts; without `state` it has ended. Raises ValueError, KeyError, TypeError."""
    spec, start, end = dict(data["spec"]), data.get("start"), data.get("end")
    spec["timeout"] = timedelta(seconds=spec["timeout"])
    spec["lease_ttl"] = timedelta(seconds=spec["lease_ttl"])
    return RunRecord(
        spec=RunSpec(**spec),
        state=RunState(data.get("state", RunState.ENDED)),
        accept_time=datetime.fromisoformat(data["accept_time"]),
        start=None if start is None else StartReport(StartVerdict(start["verdict"]), start["reason"], start["detail"]),
        end=None
        if end is None
        else EndReport(**{**end, "outcome": RunOutcome(end["outcome"]), "retry_time": _moment(end["retry_time"])}),
        start_time=_moment(data.get("start_time")),
        end_time=_moment(data.get("end_time")),
    )


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None
