"""The folders of those runs whose backend keeps files (guards, output), beside the journal: DATA_DIR/runs/<run_id>/."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)


def fresh_folder(run_dir: Path) -> None:
    """Makes the folder of a run, durable when this returns. Raises OSError.

    It is for `prepare`: a run that is prepared is not known yet, so that what lies in its place was never accepted, or
    cannot be read any more.
    """
    if run_dir.exists():
        _log.warning("journal_left_over_removed", run_id=run_dir.name)
        shutil.rmtree(run_dir)
    run_dir.mkdir(mode=0o700)
    sync_folder(run_dir.parent)


def sync_folder(folder: Path) -> None:
    """Makes what was made, renamed and removed in a folder durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class RunFolders:
    """Where they are. A run may have none."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def of(self, run_id: str) -> Path:
        """The folder of a run, be it there or not."""
        return self._root / run_id

    def there(self) -> list[Path]:
        """Every folder that is there. Raises OSError."""
        return sorted(self._root.iterdir())

    def remove(self, run_ids: Iterable[str]) -> None:
        """Removes the folders of runs; most runs have none. What cannot be removed goes with the next start."""
        there = set(os.listdir(self._root))
        for run_id in run_ids:
            if run_id in there:
                shutil.rmtree(self.of(run_id), ignore_errors=True)

    def remove_where(self, unwanted: Callable[[Path], bool]) -> None:
        """Removes the folders that nobody knows any more. Raises OSError."""
        for folder in self.there():
            if unwanted(folder):
                shutil.rmtree(folder, ignore_errors=True)
