"""The highest term of each cluster: who called with a higher one before is the leader now."""

from __future__ import annotations

from executor_service.runs.door import CallerIdentity
from executor_service.runs.journal import Journal


class StaleTerm(Exception):
    """A leader with a higher term has called before."""


class Terms:
    """Kept in the journal, so that a restart does not let an older leader in."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._highest: dict[str, int] = {}

    def load(self) -> None:
        """Reads them. Raises JournalError."""
        self._highest = self._journal.terms()

    def is_known(self, caller: CallerIdentity) -> bool:
        """Whether there is nothing to note and nothing to refuse."""
        return not caller.cluster_id or caller.term == self._highest.get(caller.cluster_id)

    async def note(self, caller: CallerIdentity) -> None:
        """Remembers a higher term; one caller at a time. Raises StaleTerm for a lower one, JournalError."""
        if not caller.cluster_id:
            return
        highest = self._highest.get(caller.cluster_id, 0)
        if caller.term < highest:
            raise StaleTerm(f"term {caller.term} is over; the leader's term is {highest}")
        if caller.term > highest:
            await self._journal.save_term(caller.cluster_id, caller.term)
            self._highest[caller.cluster_id] = caller.term
