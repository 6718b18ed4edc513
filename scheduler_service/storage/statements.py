"""How the statements of a transaction are sent to PostgreSQL, waited for, and their rows read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, LiteralString, TypeVar

from psycopg import AsyncConnection, Error, errors
from psycopg.pq import PipelineStatus

from scheduler_service.storage.rows import as_json

T = TypeVar("T")

_ABANDON_S = 1.0

Connection = AsyncConnection[dict[str, Any]]


class NotCommitted(RuntimeError):
    """The server has rolled back instead of committing, which it does where an earlier error was passed over: a fault of ours."""


class Statements:
    """The statements of one transaction. What they write is sent at once and not waited for: the server works while we go on.

    It is waited for when something is read, and by the commit. While it is under way no time-out of the server's for idle
    transactions runs: `sends_ahead` says whether another ends the transaction of a process that is stopped meanwhile.
    `now` None: the standing that is read first tells it.
    """

    def __init__(
        self, connection: Connection, queries: Mapping[str, LiteralString], now: datetime | None, *, sends_ahead: bool
    ) -> None:
        self._connection = connection
        self._sends_ahead = sends_ahead
        self._queries = queries
        self._now = now
        self._writing: contextlib.AbstractAsyncContextManager[object] | None = None

    @property
    def now(self) -> datetime:
        """The transaction's time. Raises RuntimeError before it is known."""
        if self._now is None:
            raise RuntimeError("the time is not known before the standing has been read")
        return self._now

    async def _commit(self) -> None:
        """Commits behind all that was written. Raises NotCommitted."""
        cursor = await self._connection.execute(self._queries["commit"])
        await self._written()
        if cursor.statusmessage != "COMMIT":
            raise NotCommitted(f"the commit was answered with {cursor.statusmessage}")

    async def abandon(self) -> None:
        """After an error: nothing stays that is not committed. A connection that is not itself again is closed."""
        try:
            async with asyncio.timeout(_ABANDON_S):
                # Its errors follow from the one that is told already.
                with contextlib.suppress(Error):
                    await self._written()
                await self._connection.rollback()
        except BaseException as error:
            await self._connection.close()
            if not isinstance(error, Error | TimeoutError):
                raise
        if self._connection.pgconn.pipeline_status is not PipelineStatus.OFF:
            # Cancelled just as it was to be switched on.
            await self._connection.close()

    async def _written(self) -> None:
        """Returns when the server has done what was written; what came behind an error it has not done."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            await writing.__aexit__(None, None, None)
        except errors.PipelineAborted as aborted:
            # Of what was behind the error; psycopg may tell that last.
            raise aborted.__context__ if isinstance(aborted.__context__, Error) else aborted from None

    def _statement(self, query: str, params: Mapping[str, object]) -> tuple[LiteralString, Mapping[str, object]]:
        text = self._queries[query]
        return text, {"now": self.now, **params} if "%(now)s" in text else params

    async def _all(self, query: str, **params: object) -> list[dict[str, Any]]:
        await self._written()
        cursor = await self._connection.execute(*self._statement(query, params), binary=True)
        return await cursor.fetchall()

    async def _values(self, query: str, make: Callable[[Sequence[Any]], T], **params: object) -> list[T]:
        """What `make` makes of each row's values, without a dictionary of each row between."""
        await self._written()
        cursor = self._connection.cursor(row_factory=lambda _cursor: make)
        await cursor.execute(*self._statement(query, params), binary=True)
        return await cursor.fetchall()

    async def _one(self, query: str, **params: object) -> dict[str, Any]:
        return (await self._all(query, **params))[0]

    async def _count(self, query: str, **params: object) -> int:
        """How many rows a statement has changed, at once."""
        await self._written()
        cursor = await self._connection.execute(*self._statement(query, params))
        return cursor.rowcount

    async def _write(self, query: str, **params: object) -> None:
        """Has the server do something that nobody waits for yet."""
        if self._sends_ahead and self._writing is None:
            writing = self._connection.pipeline()
            await writing.__aenter__()
            self._writing = writing
        await self._connection.execute(*self._statement(query, params))

    async def _rows(self, query: str, rows: Iterable[object]) -> None:
        """One statement for many rows."""
        batch = list(rows)
        if batch:
            await self._write(query, rows=as_json(batch))


def aware_utc(moment: datetime) -> datetime:
    """The same moment in UTC, whatever the connection's time zone."""
    return moment.astimezone(UTC)
