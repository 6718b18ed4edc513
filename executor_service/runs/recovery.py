"""What a new process finds of the one before it: its runs, and the backends that those need."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

from executor_service.core.run import RunRecord
from executor_service.runs.journal import Journal
from executor_service.runs.ports import Backend


@dataclass(frozen=True, slots=True)
class Recovered:
    """`records` in the order of acceptance; `acknowledged` and `not_offered` are ids of runs and names of backends."""

    records: tuple[RunRecord, ...]
    acknowledged: tuple[str, ...]
    not_offered: frozenset[str]


def recover(journal: Journal, backends: MutableMapping[str, Backend], make_backend: Callable[[str], Backend | None]) -> Recovered:
    """Reads the journal, and adds to `backends` what live runs need besides. Raises JournalError.

    A backend that is not offered any more is still needed for its runs: they may go on, and must not be called lost.
    """
    found = journal.load()
    not_offered = set()
    for name in {record.spec.backend for record, _ in found if record.live} - backends.keys():
        made = make_backend(name)
        if made is not None:
            backends[name] = made
            not_offered.add(name)
    acknowledged = tuple(record.spec.run_id for record, is_acknowledged in found if is_acknowledged)
    return Recovered(tuple(record for record, _ in found), acknowledged, frozenset(not_offered))
