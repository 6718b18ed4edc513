"""The executor's memory on its own disk: a folder a run, durable before "accepted" is said.

    DATA_DIR/lock                 held while an executor uses the folder
    DATA_DIR/terms.json           the highest term of each cluster
    DATA_DIR/runs/<run_id>/       run.json (this journal's), and what the backend keeps there
    DATA_DIR/refused/<run_id>     refused for good: cancelled before it was ever seen

run.json is replaced as a whole (write, fsync, rename, fsync of the folder), so that it is never torn.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from executor_service.core.run import (
    EndReport,
    RunOutcome,
    RunRecord,
    RunSpec,
    RunState,
    StartReport,
    StartVerdict,
)
from executor_service.errors import JournalError

_log = structlog.get_logger(__name__)


class Journal:
    """The journal of one executor. Every method that changes it is durable when it returns; raises JournalError."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir
        self._runs = data_dir / "runs"
        self._refused = data_dir / "refused"
        self._lock: int | None = None

    def open(self) -> None:
        """Makes and locks the folder. Raises JournalError with one clear line."""
        try:
            for folder in (self._root, self._runs, self._refused):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            probe = self._root / f".probe.{os.getpid()}"
            probe.write_text("", encoding="ascii")
            probe.unlink()
        except OSError as error:
            raise JournalError(f"EXECUTOR_DATA_DIR={self._root} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JournalError(
                f"EXECUTOR_DATA_DIR={self._root} is in use by another executor: give each one a folder of its own"
            ) from error

    def close(self) -> None:
        """Unlocks the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def run_dir(self, run_id: str) -> Path:
        """The folder of a run."""
        return self._runs / run_id

    # --- runs

    def add(self, record: RunRecord) -> None:
        """Writes a new run; `sync` makes a batch of them durable."""
        with self._errors():
            self._write(self.run_dir(record.spec.run_id) / "run.json", _record_json(record))

    def new_run(self, run_id: str) -> Path:
        """A fresh folder for a run that is not known: what lies in its place was never accepted, or cannot be read any more."""
        folder = self.run_dir(run_id)
        with self._errors():
            if folder.exists():
                _log.warning("journal_left_over_removed", run_id=run_id)
                shutil.rmtree(folder)
            folder.mkdir(mode=0o700)
        return folder

    def sync(self) -> None:
        """Makes new folders durable: once a batch."""
        with self._errors():
            _sync_folder(self._runs)

    def save(self, record: RunRecord) -> None:
        """Replaces a run's record."""
        with self._errors():
            self._write(self.run_dir(record.spec.run_id) / "run.json", _record_json(record))

    def remove(self, run_ids: Sequence[str]) -> None:
        """Forgets runs and their folders."""
        for run_id in run_ids:
            shutil.rmtree(self.run_dir(run_id), ignore_errors=True)

    def load(self) -> list[tuple[RunRecord, bool]]:
        """Every run, and whether its final has been acknowledged. A folder without a record was never accepted: it is removed."""
        found = []
        with self._errors():
            for folder in sorted(self._runs.iterdir()):
                try:
                    data = json.loads((folder / "run.json").read_text(encoding="utf-8"))
                    found.append((_record_of(data), (folder / "acknowledged").exists()))
                except FileNotFoundError:
                    shutil.rmtree(folder, ignore_errors=True)
                except (ValueError, KeyError, TypeError) as error:
                    _log.error("journal_record_unreadable", run_id=folder.name, error=str(error))
        return found

    def acknowledge(self, run_id: str) -> None:
        """Its final is stored elsewhere. Losing this mark only means that the final is sent once more."""
        with self._errors(), contextlib.suppress(FileNotFoundError):
            (self.run_dir(run_id) / "acknowledged").touch(mode=0o600)

    # --- refusals and terms

    def refuse(self, run_id: str) -> None:
        """Refuses a run for good."""
        with self._errors():
            self._write(self._refused / run_id, {})

    def refused(self) -> set[str]:
        """Every run that is refused for good."""
        with self._errors():
            return {entry.name for entry in self._refused.iterdir() if not entry.name.startswith(".")}

    def forget_refusals(self, before: datetime) -> list[str]:
        """Forgets refusals that are older than a time."""
        old = []
        with self._errors():
            for entry in self._refused.iterdir():
                # A name with a dot is a refusal in the making, which is renamed under our eyes.
                with contextlib.suppress(FileNotFoundError):
                    if not entry.name.startswith(".") and entry.stat().st_mtime < before.timestamp():
                        entry.unlink()
                        old.append(entry.name)
        return old

    def terms(self) -> dict[str, int]:
        """The highest term of each cluster."""
        try:
            return {str(k): int(v) for k, v in json.loads((self._root / "terms.json").read_text("utf-8")).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            raise JournalError(f"{self._root / 'terms.json'} cannot be read: {error}") from error

    def save_terms(self, terms: Mapping[str, int]) -> None:
        """Replaces them."""
        with self._errors():
            self._write(self._root / "terms.json", dict(terms))

    def _write(self, path: Path, data: Mapping[str, Any]) -> None:
        temporary = path.with_name(f".{path.name}.new")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(handle, "wb", closefd=False) as file:
                file.write(json.dumps(data).encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        temporary.rename(path)
        _sync_folder(path.parent)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JournalError(f"the journal in {self._root} failed: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


def _record_json(record: RunRecord) -> dict[str, Any]:
    spec, start, end = record.spec, record.start, record.end
    return {
        "spec": {
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
        },
        "state": record.state.value,
        "accept_time": _time(record.accept_time),
        "start_time": _time(record.start_time),
        "end_time": _time(record.end_time),
        "start": None if start is None else {"verdict": start.verdict.value, "reason": start.reason, "detail": start.detail},
        "end": None
        if end is None
        else {
            "outcome": end.outcome.value,
            "exit_code": end.exit_code,
            "signal": end.signal,
            "result": end.result,
            "error": end.error,
            "error_class": end.error_class,
            "retry_time": _time(end.retry_time),
            "usage": dict(end.usage),
        },
    }


def _record_of(data: Mapping[str, Any]) -> RunRecord:
    spec, start, end = dict(data["spec"]), data["start"], data["end"]
    spec["timeout"] = timedelta(seconds=spec["timeout"])
    spec["lease_ttl"] = timedelta(seconds=spec["lease_ttl"])
    accept_time = _moment(data["accept_time"])
    if accept_time is None:
        raise ValueError("accept_time is missing")
    return RunRecord(
        spec=RunSpec(**spec),
        state=RunState(data["state"]),
        accept_time=accept_time,
        start=None if start is None else StartReport(StartVerdict(start["verdict"]), start["reason"], start["detail"]),
        end=None
        if end is None
        else EndReport(**{**end, "outcome": RunOutcome(end["outcome"]), "retry_time": _moment(end["retry_time"])}),
        start_time=_moment(data["start_time"]),
        end_time=_moment(data["end_time"]),
    )
