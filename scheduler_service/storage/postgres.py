"""`transactions.ports.Database` on PostgreSQL: a bounded pool, deadlines, and whole-transaction retries."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, LiteralString, TypeVar

import msgspec
import psycopg
import structlog
from psycopg import AsyncConnection, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import Diagnostic
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from scheduler_service.errors import StorageUnavailable
from scheduler_service.storage import query_files
from scheduler_service.storage.statements import aware_utc
from scheduler_service.storage.transaction import PostgresTransaction
from scheduler_service.transactions.ports import Transaction
from scheduler_service.transactions.stored import MemoryRow

T = TypeVar("T")
_log = structlog.get_logger(__name__)

# Another transaction was in the way: the whole of ours may be run again.
_RETRIABLE = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    # Two calls with one request_id or task_id at once: the second run finds what the first stored.
    errors.UniqueViolation,
)
_TRIES = 6
_FIRST_PAUSE_S = 0.01

_OPTIONS = "-c statement_timeout=5000 -c lock_timeout=1000 -c idle_in_transaction_session_timeout=2000 -c timezone=UTC"
_CONNECTION_DEFAULTS: dict[str, str | int | None] = {
    "connect_timeout": 3,
    "tcp_user_timeout": 5000,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "target_session_attrs": "read-write",
    "application_name": "cecelia-scheduler",
}


_VACUUM_DEADLINE_S = 50.0  # less than a migration waits for it

_TRANSACTION_TIMEOUT_FROM = 170_000
"""The server's version from which it ends a transaction that lasts too long, whatever it waits for."""

_WRONG_URL = (
    "DATABASE_URL is not like postgresql://USER:PASSWORD@HOST:5432/DATABASE "
    "(write @ : / ? # % in a password as %40 %3A %2F %3F %23 %25), nor like host=HOST dbname=DATABASE"
)


class DatabaseUrlError(Exception):
    """DATABASE_URL cannot be read. It is not quoted: what is wrong with it is mostly its password."""


def service_conninfo(database_url: str) -> str:
    """The libpq connection string with our time-outs where the URL does not set its own. Raises DatabaseUrlError."""
    try:
        given = conninfo_to_dict(database_url)
    except psycopg.ProgrammingError:
        raise DatabaseUrlError(_WRONG_URL) from None
    # An unescaped @ or / of a password ends up in one of these, and libpq would quote it in every error.
    ports, hosts = str(given.get("port") or ""), str(given.get("host") or "")
    if ports.strip("0123456789,") or any("@" in host[1:] for host in hosts.split(",")):
        raise DatabaseUrlError(_WRONG_URL)
    own_options = str(given.pop("options", None) or "")
    return make_conninfo("", **{**_CONNECTION_DEFAULTS, **given, "options": f"{_OPTIONS} {own_options}".strip()})


def _ends_long_transactions(connection: AsyncConnection[Any]) -> bool:
    return connection.info.server_version >= _TRANSACTION_TIMEOUT_FROM


class _ReadOnly(Exception):
    """The server takes no writes any more."""


class PostgresDatabase:
    """A pool of connections that carries out transaction scripts.

    `clock` replaces the database's clock in tests. The semaphore of the pool's size stands in front of the pool because
    cancelled waiters wedge psycopg_pool (reliability.md section 8).
    """

    def __init__(
        self,
        database_url: str,
        *,
        size: int = 8,
        deadline_s: float = 5.0,
        clock: Callable[[], datetime] | None = None,
        on_events: Callable[[], None] | None = None,
    ) -> None:
        self._conninfo = service_conninfo(database_url)
        self._pool: AsyncConnectionPool[AsyncConnection[dict[str, Any]]] = AsyncConnectionPool(
            self._conninfo,
            min_size=1,
            max_size=size,
            open=False,
            configure=self._configure,
            timeout=deadline_s,
            kwargs={"row_factory": dict_row, "autocommit": True},
            reconnect_timeout=3600,
        )
        self._semaphore = asyncio.Semaphore(size)
        self._queries: dict[str, LiteralString] = query_files.load()
        self._deadline_s = deadline_s
        self._clock = clock
        self._on_events = on_events

    async def _configure(self, connection: AsyncConnection[dict[str, Any]]) -> None:
        set_json_loads(msgspec.json.decode, connection)
        if _ends_long_transactions(connection):
            # Our own deadline comes first, unless this process is stopped or its machine is gone.
            milliseconds = round(1_000 * (self._deadline_s + 1))
            await connection.execute(self._queries["limit_transactions"], {"milliseconds": str(milliseconds)})

    async def open(self) -> None:
        """Opens the pool; connections come as they are needed."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Closes every connection."""
        await self._pool.close(timeout=2.0)

    async def run(
        self, work: Callable[[Transaction], Awaitable[T]], *, read_only: bool = False, begins_with_standing: bool = False
    ) -> T:
        """Runs `work` in one transaction; see the Protocol."""
        partitions_missing = False
        for attempt in range(_TRIES):
            try:
                if partitions_missing:
                    await self._once(lambda tx: tx.ensure_partitions())
                return await self._once(work, read_only, begins_with_standing)
            except _RETRIABLE as error:
                if attempt == _TRIES - 1:
                    raise StorageUnavailable(f"another transaction was in the way {_TRIES} times: {error.sqlstate}") from error
                await asyncio.sleep(random.uniform(0, _FIRST_PAUSE_S * 2**attempt))
            except errors.CheckViolation as error:
                if partitions_missing or error.diag.constraint_name is not None:
                    raise
                partitions_missing = True
                # A decision on a day without a partition: the clock has jumped further than maintenance looks ahead.
                _log.warning("partitions_missing", error=error.diag.message_primary)
            except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, PoolClosed, TimeoutError, _ReadOnly) as error:
                raise StorageUnavailable(f"the database does not answer: {type(error).__name__}") from error
        raise AssertionError("unreachable")

    async def working_memory(self) -> list[MemoryRow]:
        """The rows of the view, at one instant; see http/ports.py."""

        async def read(tx: Transaction) -> list[MemoryRow]:
            assert isinstance(tx, PostgresTransaction)
            return await tx.working_memory()

        return await self.run(read, read_only=True)

    async def vacuum(self) -> None:
        """Frees the room of deleted rows, with autovacuum's patience; see the Protocol.

        It holds the lock of migrations, which else would wait for it in front of everybody.
        """
        try:
            async with asyncio.timeout(_VACUUM_DEADLINE_S):
                connection = await AsyncConnection.connect(self._conninfo, autocommit=True)
                async with connection:
                    connection.add_notice_handler(_log_notice)
                    await connection.execute(self._queries["vacuum_settings"])
                    await connection.execute(self._queries["vacuum"])
        except (psycopg.Error, TimeoutError) as error:
            raise StorageUnavailable(f"deleted rows still take their room: {type(error).__name__}") from error

    async def _once(
        self, work: Callable[[Transaction], Awaitable[T]], read_only: bool = False, begins_with_standing: bool = False
    ) -> T:
        """One try. A cancellation stays one, also where another thing met it that is told instead.

        That is an error (a lock time-out), or what was waited for: `asyncio.wait_for` of Python 3.11, on which psycopg and its
        pool wait, gives a result that came in the same turn of the loop. After a pause of the process everything comes in one.
        """
        task = asyncio.current_task()
        cancelled_before = task.cancelling() if task is not None else 0
        try:
            result = await self._try(work, read_only, begins_with_standing)
        except Exception as error:
            if task is not None and task.cancelling() > cancelled_before:
                raise asyncio.CancelledError from error
            raise
        if task is not None and task.cancelling() > cancelled_before:
            raise asyncio.CancelledError
        return result

    async def _try(self, work: Callable[[Transaction], Awaitable[T]], read_only: bool, begins_with_standing: bool) -> T:
        async with asyncio.timeout(self._deadline_s), self._semaphore, self._pool.connection() as connection:
            if read_only:
                # Reading needs no transaction around it: at READ COMMITTED each statement sees what is committed when it begins.
                now = self._own_time()
                if now is None and not begins_with_standing:
                    now = await self._time(connection, "transaction_time")
                return await work(PostgresTransaction(connection, self._queries, now, sends_ahead=False))
            transaction = None
            try:
                # Begun in the same message, as every message costs a task's start its share.
                now = await self._time(connection, "begin")
                ahead = _ends_long_transactions(connection)
                transaction = PostgresTransaction(connection, self._queries, now, sends_ahead=ahead)
                result = await work(transaction)
                await transaction.commit()
            except BaseException as error:
                # What went wrong is not to be hidden by what follows from it.
                if transaction is not None:
                    await transaction.abandon()
                if isinstance(error, errors.ReadOnlySqlTransaction):
                    # The primary was demoted under an open connection: a new one asks for one that may write.
                    await connection.close()
                    raise _ReadOnly from error
                raise
        if transaction.emitted and self._on_events is not None:
            self._on_events()
        return result

    def _own_time(self) -> datetime | None:
        return None if self._clock is None else self._clock()

    async def _time(self, connection: AsyncConnection[dict[str, Any]], query: str) -> datetime:
        """The time by the database's clock, or the tests', told by the last statement of a query."""
        cursor = await connection.execute(self._queries[query], prepare=False)
        while cursor.nextset():
            pass
        row = await cursor.fetchone()
        if row is None:
            raise StorageUnavailable("the database did not tell its time")
        return self._own_time() or aware_utc(row["now"])


def _log_notice(diagnostic: Diagnostic) -> None:
    _log.warning("vacuum_notice", said=diagnostic.message_primary)
