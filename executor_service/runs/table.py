"""Every known run, with what is asked of them often: which live, of which task, how many of a backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from executor_service.core.run import RunRecord


class RunTable:
    """The records by run id, in the order in which they came, and the live ones by task and by backend."""

    def __init__(self) -> None:
        self._records: dict[str, RunRecord] = {}
        self._live: dict[str, RunRecord] = {}
        self._by_task: dict[str, str] = {}
        self._by_backend: Counter[str] = Counter()

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._records

    def __iter__(self) -> Iterator[RunRecord]:
        return iter(self._records.values())

    def get(self, run_id: str) -> RunRecord | None:
        """One run."""
        return self._records.get(run_id)

    def put(self, record: RunRecord) -> None:
        """Adds a run, or replaces it by what has become of it."""
        spec = record.spec
        was_live = spec.run_id in self._live
        self._records[spec.run_id] = record
        if record.live:
            self._live[spec.run_id] = record
            if not was_live:
                self._by_task[spec.task_id] = spec.run_id
                self._by_backend[spec.backend] += 1
        elif was_live:
            self._drop_live(record)

    def remove(self, run_id: str) -> None:
        """Forgets a run."""
        record = self._records.pop(run_id)
        if record.live:
            self._drop_live(record)

    def _drop_live(self, record: RunRecord) -> None:
        del self._live[record.spec.run_id]
        self._by_backend[record.spec.backend] -= 1
        if self._by_task.get(record.spec.task_id) == record.spec.run_id:
            del self._by_task[record.spec.task_id]

    @property
    def live(self) -> list[RunRecord]:
        """The runs that have not ended."""
        return list(self._live.values())

    def live_of_task(self, task_id: str) -> str | None:
        """The run of a task that is under way here."""
        return self._by_task.get(task_id)

    def live_on(self, backend: str) -> int:
        """How many runs of a backend are under way."""
        return self._by_backend[backend]
