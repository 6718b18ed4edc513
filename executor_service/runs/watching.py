"""Those who watch runs: each has a bounded queue; one that reads too slowly is cut off instead of growing memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Iterator

from executor_service.core.run import RunRecord, RunState

QUEUE_MAX = 10_000
ACCEPTANCE_HELD_S = 0.5
"""How long the news of a mere acceptance waits for what comes of it: a short run has ended by then, and is told of once.

Whoever has sent the run knows from the answer.
"""


class TooSlow(Exception):
    """The watcher did not keep up."""


class Watcher:
    """One watcher's queue. None in it asks for a fresh snapshot."""

    def __init__(self, cluster_id: str) -> None:
        self.cluster_id = cluster_id
        self._queue: deque[RunRecord | None] = deque()
        self._news = asyncio.Event()
        self._accepted: dict[str, RunRecord] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._cut_off = False

    def offer(self, item: RunRecord | None) -> None:
        """Puts news in; a full queue cuts the watcher off."""
        if len(self._queue) + len(self._accepted) >= QUEUE_MAX:
            self._cut_off = True
            self._news.set()
            return
        if item is not None:
            run_id = item.spec.run_id
            if item.state is RunState.ACCEPTED and item.start is None:
                self._hold(run_id, item)
                return
            if (accepted := self._accepted.pop(run_id, None)) is not None:
                self._queue.append(accepted)
        self._queue.append(item)
        self._news.set()

    def _hold(self, run_id: str, accepted: RunRecord) -> None:
        self._accepted[run_id] = accepted
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(ACCEPTANCE_HELD_S, self._tell_accepted)

    def _tell_accepted(self) -> None:
        self._telling = None
        if self._accepted:
            self._queue.extend(self._accepted.values())
            self._accepted.clear()
            self._news.set()

    async def next(self, seconds: float) -> RunRecord | None:
        """The next news, or None for a snapshot: when one is asked for, and after this time. Raises TooSlow."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return None
        if self._cut_off:
            raise TooSlow
        item = self._queue.popleft()
        self._note_taken()
        return item

    def waiting(self) -> list[RunRecord]:
        """All that has come behind it, up to the next request for a snapshot; does not wait."""
        taken: list[RunRecord] = []
        while self._queue and (item := self._queue[0]) is not None:
            taken.append(item)
            self._queue.popleft()
        self._note_taken()
        return taken

    def _note_taken(self) -> None:
        if not self._queue and not self._cut_off:
            self._news.clear()

    def close(self) -> None:
        """Nobody reads any more."""
        if self._telling is not None:
            self._telling.cancel()


def newest(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Each run once, as it is by now: a later record says all that an earlier one did."""
    return list({record.spec.run_id: record for record in records}.values())


class Watchers:
    """All watchers."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

    @property
    def any(self) -> bool:
        """Whether anybody watches."""
        return bool(self._watchers)

    @contextlib.contextmanager
    def watch(self, cluster_id: str) -> Iterator[Watcher]:
        """Watches the runs of a cluster ('': of all)."""
        watcher = Watcher(cluster_id)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            watcher.close()

    def publish(self, record: RunRecord) -> None:
        """A run is new or has changed."""
        for watcher in self._watchers:
            if watcher.cluster_id in ("", record.spec.cluster_id):
                watcher.offer(record)

    def publish_snapshot(self) -> None:
        """Something other than a run has changed."""
        for watcher in self._watchers:
            watcher.offer(None)
