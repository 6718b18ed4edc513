"""Those who watch runs: each has a bounded queue; one that reads too slowly is cut off instead of growing memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from executor_service.core.run import RunRecord

QUEUE_MAX = 10_000


class TooSlow(Exception):
    """The watcher did not keep up."""


class Watcher:
    """One watcher's queue. None in it asks for a fresh snapshot."""

    def __init__(self, cluster_id: str) -> None:
        self.cluster_id = cluster_id
        self._queue: asyncio.Queue[RunRecord | None] = asyncio.Queue(maxsize=QUEUE_MAX)
        self._cut_off = False

    def offer(self, item: RunRecord | None) -> None:
        """Puts news in; a full queue cuts the watcher off."""
        try:
            self._queue.put_nowait(item)
        except asyncio.QueueFull:
            self._cut_off = True

    async def next(self, seconds: float) -> RunRecord | None:
        """The next news, or None for a snapshot: when one is asked for, and after this time. Raises TooSlow."""
        if self._cut_off:
            raise TooSlow
        try:
            async with asyncio.timeout(seconds):
                return await self._queue.get()
        except TimeoutError:
            return None


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

    def publish(self, record: RunRecord) -> None:
        """A run is new or has changed."""
        for watcher in self._watchers:
            if watcher.cluster_id in ("", record.spec.cluster_id):
                watcher.offer(record)

    def publish_snapshot(self) -> None:
        """Something other than a run has changed."""
        for watcher in self._watchers:
            watcher.offer(None)
