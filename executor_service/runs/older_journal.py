"""The journal as it was at first: a run.json in each run's folder. Read once, when the newer one is opened.

DATA_DIR/terms.json           the highest term of each cluster
DATA_DIR/runs/<run_id>/       run.json, and `acknowledged` when its final is stored elsewhere
DATA_DIR/refused/<run_id>     refused for good: cancelled before it was ever seen
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from executor_service.core.run import EndReport, RunOutcome, RunRecord, RunSpec, RunState, StartReport, StartVerdict
from executor_service.errors import JournalError
from executor_service.runs.folders import RunFolders, sync_folder

_log = structlog.get_logger(__name__)

RECORD = "run.json"
ACKNOWLEDGED = "acknowledged"


class OlderJournal:
    """What an executor of before has left. Its methods raise OSError, and JournalError for terms that cannot be read."""

    def __init__(self, root: Path, folders: RunFolders) -> None:
        self._root = root
        self._terms = root / "terms.json"
        self._refused = root / "refused"
        self._folders = folders
        self.read: list[Path] = []
        """The folders of the runs that could be read."""

    @staticmethod
    def has_record(folder: Path) -> bool:
        """Whether a run's folder holds a record of the older format."""
        return (folder / RECORD).exists()

    def there(self) -> bool:
        """Whether there is anything to take over."""
        return self._terms.exists() or self._refused.exists() or any(map(self.has_record, self._folders.there()))

    def runs(self) -> Iterator[tuple[RunRecord, bool]]:
        """Every run, and whether its final has been acknowledged. One that cannot be read is logged, and left as it is."""
        for folder in filter(self.has_record, self._folders.there()):
            try:
                record = _record_of(json.loads((folder / RECORD).read_text(encoding="utf-8")))
            except (ValueError, KeyError, TypeError) as error:
                _log.error("journal_record_unreadable", run_id=folder.name, error=str(error))
                continue
            self.read.append(folder)
            yield record, (folder / ACKNOWLEDGED).exists()

    def refused(self) -> dict[str, float]:
        """Every run that is refused for good, and since when, in seconds since 1970."""
        if not self._refused.exists():
            return {}
        # A name with a dot is one that was never finished.
        return {entry.name: entry.stat().st_mtime for entry in self._refused.iterdir() if not entry.name.startswith(".")}

    def terms(self) -> dict[str, int]:
        """The highest term of each cluster."""
        try:
            return {str(k): int(v) for k, v in json.loads(self._terms.read_text("utf-8")).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError) as error:
            raise JournalError(f"{self._terms} cannot be read: {error}") from error

    def remove(self) -> None:
        """Removes what has been read; the folders stay, with what the backends keep there."""
        for folder in self.read:
            (folder / RECORD).unlink()
            (folder / ACKNOWLEDGED).unlink(missing_ok=True)
        if self._refused.exists():
            for entry in self._refused.iterdir():
                entry.unlink()
            self._refused.rmdir()
        self._terms.unlink(missing_ok=True)
        sync_folder(self._root)


def _record_of(data: Mapping[str, Any]) -> RunRecord:
    """The record of a run.json. Raises ValueError, KeyError, TypeError."""
    spec, start, end = dict(data["spec"]), data["start"], data["end"]
    spec["timeout"] = timedelta(seconds=spec["timeout"])
    spec["lease_ttl"] = timedelta(seconds=spec["lease_ttl"])
    return RunRecord(
        spec=RunSpec(**spec),
        state=RunState(data["state"]),
        accept_time=datetime.fromisoformat(data["accept_time"]),
        start=None if start is None else StartReport(StartVerdict(start["verdict"]), start["reason"], start["detail"]),
        end=None
        if end is None
        else EndReport(**{**end, "outcome": RunOutcome(end["outcome"]), "retry_time": _moment(end["retry_time"])}),
        start_time=_moment(data["start_time"]),
        end_time=_moment(data["end_time"]),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None
