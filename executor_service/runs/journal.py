"""The executor's memory on its own disk: durable before "accepted" is said.

    DATA_DIR/lock                 held while an executor uses the folder
    DATA_DIR/journal.sqlite3      the journal, with its write-ahead log beside it
    DATA_DIR/runs/<run_id>/       what the backend keeps there, for those that keep anything

While one transaction is written, what is to be written next gathers and becomes the next transaction: one wait for the disk
serves a whole batch. One thread does all of it, and the event loop waits for no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog

from executor_service.core.run import RunRecord
from executor_service.errors import JournalError
from executor_service.runs.folders import RunFolders
from executor_service.runs.older_journal import OlderJournal
from executor_service.runs.record_rows import ACCEPTED_COLUMNS, FINAL_COLUMNS, accepted_row, final_row, record_of

_log = structlog.get_logger(__name__)
T = TypeVar("T")

FILE = "journal.sqlite3"
APPLICATION_ID = 0x43454344  # "CECD": tells a journal from another program's database
FORMAT = 2  # grows with every change of the tables
VALUES_MAX = 8_000  # in one statement: as many as a full batch has, where SQLite takes them

_PRAGMAS = (
    # The lock is kept from the first look on: nobody who looks into the file with a tool can hold up a commit or a checkpoint.
    "PRAGMA locking_mode = EXCLUSIVE",
    # A commit appends to one file and waits for the disk once; the rollback journal would take three waits.
    "PRAGMA journal_mode = WAL",
    # With less, a commit of the write-ahead log does not wait for the disk, and a power cut takes back what was accepted.
    "PRAGMA synchronous = FULL",
    # A burst makes the log large; afterwards it is cut back to this many bytes.
    "PRAGMA journal_size_limit = 16777216",
)
# A fact is a row that is added and never changed. The order of `runs` is that of acceptance.
_SCHEMA = (
    f"CREATE TABLE runs ({', '.join(ACCEPTED_COLUMNS)})",
    f"CREATE TABLE finals ({', '.join(FINAL_COLUMNS)})",
    "CREATE TABLE acknowledged (run_id TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE refused (run_id TEXT PRIMARY KEY, refuse_time REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE terms (cluster_id TEXT PRIMARY KEY, term INTEGER NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)
_LOAD = """
    SELECT runs.*, finals.*, acknowledged.run_id IS NOT NULL
    FROM runs
    LEFT JOIN finals ON finals.run_id = runs.run_id
    LEFT JOIN acknowledged ON acknowledged.run_id = runs.run_id
    ORDER BY runs.rowid
"""


@dataclass(frozen=True, slots=True)
class _Change:
    """A statement for many rows at once: each step of SQLite gives the interpreter away, and has to get it back."""

    head: str
    row: str
    tail: str = ""

    def statements(self, values: Sequence[Any], most_values: int) -> Iterator[tuple[str, Sequence[Any]]]:
        width = self.row.count("?")
        most = most_values // width * width
        for start in range(0, len(values), most):
            part = values[start : start + most]
            yield f"{self.head}{','.join([self.row] * (len(part) // width))}{self.tail}", part


_ACCEPTED = _Change("INSERT INTO runs VALUES ", f"({','.join('?' for _ in ACCEPTED_COLUMNS)})")
_ENDED = _Change("INSERT INTO finals VALUES ", f"({','.join('?' for _ in FINAL_COLUMNS)})")
_ACKNOWLEDGED = _Change("INSERT OR IGNORE INTO acknowledged (run_id) VALUES ", "(?)")
_REFUSED = _Change("INSERT OR IGNORE INTO refused (run_id, refuse_time) VALUES ", "(?,?)")
_TERMS = _Change("INSERT OR REPLACE INTO terms (cluster_id, term) VALUES ", "(?,?)")
_FORGOTTEN = tuple(_Change(f"DELETE FROM {table} WHERE run_id IN (", "?", ")") for table in ("runs", "finals", "acknowledged"))
# Asked for twice in one group, the later time counts.
_OLD_REFUSALS = _Change("DELETE FROM refused WHERE refuse_time < max(", "?", ", 0)")


class _Group:
    """Changes that become durable together, in the order in which they came."""

    def __init__(self) -> None:
        self.changes: list[tuple[_Change, list[Any]]] = []
        self.written = asyncio.Event()
        self.error: BaseException | None = None

    def add(self, change: _Change, values: Iterable[Any]) -> None:
        if self.changes and self.changes[-1][0] is change:
            self.changes[-1][1].extend(values)
        else:
            self.changes.append((change, list(values)))

    async def durable(self) -> None:
        """Returns when it is written. Raises JournalError."""
        await self.written.wait()
        if self.error is not None:
            raise JournalError(str(self.error)) from self.error


class Journal:
    """The journal of one executor. What is awaited is durable when it returns; raises JournalError."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir
        self._path = data_dir / FILE
        self.folders = RunFolders(data_dir / "runs")
        self._lock: int | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._database: sqlite3.Connection | None = None
        self._gathering = _Group()
        self._writing = False

    # --- open and close

    def open(self) -> None:
        """Makes and locks the folder, opens the journal, takes over an older one. Raises JournalError with one clear line."""
        self._take_folder()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        try:
            self._in_thread(self._open)
        except BaseException:
            self.close()
            raise

    def _take_folder(self) -> None:
        try:
            for folder in (self._root, self._root / "runs"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            probe = self._root / f".probe.{os.getpid()}"
            probe.write_text("", encoding="ascii")
            probe.unlink()
        except OSError as error:
            raise JournalError(f"EXECUTOR_DATA_DIR={self._root} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise JournalError(
                f"EXECUTOR_DATA_DIR={self._root} is in use by another executor: give each one a folder of its own"
            ) from error
        self._lock = lock

    def _open(self) -> None:
        with self._errors():
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            # No transactions but ours; the folder's lock is held, so that there is nobody to wait for.
            self._database = database = sqlite3.connect(self._path, timeout=1.0, isolation_level=None)
            for pragma in _PRAGMAS:
                database.execute(pragma)
            self._check_format(database)
            older = OlderJournal(self._root, self.folders)
            if older.there():
                self._take_over(older)

    def _check_format(self, database: sqlite3.Connection) -> None:
        (owner,), (format_,) = database.execute("PRAGMA application_id"), database.execute("PRAGMA user_version")
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master")
        if not owner[0] and not tables[0]:
            database.execute("BEGIN")
            for statement in _SCHEMA:
                database.execute(statement)
            database.execute("COMMIT")
        elif owner[0] != APPLICATION_ID:
            raise JournalError(f"{self._path} is a database of another program: move it away, or set EXECUTOR_DATA_DIR")
        elif format_[0] != FORMAT:
            raise JournalError(f"{self._path} has format {format_[0]}, of another version of the executor; must be {FORMAT}")

    def close(self) -> None:
        """Writes what has gathered, closes the journal and unlocks the folder."""
        if self._thread is not None:
            group, self._gathering = self._gathering, _Group()
            try:
                if group.changes:
                    self._in_thread(lambda: self._write(group.changes))
            except JournalError as error:
                group.error = error
                _log.error("journal_not_written", error=str(error))
            group.written.set()
            self._in_thread(self._close)
            self._thread.shutdown()
            self._thread = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _in_thread(self, work: Callable[[], T]) -> T:
        """Work before and after the time in which the event loop writes."""
        return self._opened_thread().submit(work).result()

    def _opened_thread(self) -> ThreadPoolExecutor:
        if self._thread is None:
            raise JournalError(f"the journal {self._path} is not open")
        return self._thread

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JournalError(f"the journal in {self._root} failed: {error.strerror}") from error
        except (sqlite3.Error, ValueError, OverflowError) as error:
            # A text that is no UTF-8, a number beyond 64 bits: SQLite's module raises its own for neither.
            raise JournalError(f"the journal {self._path} failed: {error}") from error

    # --- reading, at the start

    def load(self) -> list[tuple[RunRecord, bool]]:
        """Every run in the order of acceptance, and whether its final has been acknowledged.

        A folder of a run that is not among them was never accepted: it is removed.
        """
        return self._in_thread(self._load)

    def _load(self) -> list[tuple[RunRecord, bool]]:
        found, known = [], set()
        for row in self._rows(_LOAD):
            accepted, final, acknowledged = row[: len(ACCEPTED_COLUMNS)], row[len(ACCEPTED_COLUMNS) : -1], row[-1]
            run_id = accepted[0]
            known.add(run_id)
            try:
                found.append((record_of(accepted, final if final[0] is not None else None), bool(acknowledged)))
            except (ValueError, TypeError, OverflowError) as error:
                _log.error("journal_record_unreadable", run_id=run_id, error=str(error))
        with self._errors():
            self.folders.remove_where(lambda folder: folder.name not in known and not OlderJournal.has_record(folder))
        return found

    def refused(self) -> dict[str, datetime]:
        """Every run that is refused for good, and since when."""
        rows = self._in_thread(lambda: self._rows("SELECT run_id, refuse_time FROM refused"))
        return {run_id: datetime.fromtimestamp(refuse_time, UTC) for run_id, refuse_time in rows}

    def terms(self) -> dict[str, int]:
        """The highest term of each cluster."""
        return dict(self._in_thread(lambda: self._rows("SELECT cluster_id, term FROM terms")))

    def _rows(self, query: str) -> list[Any]:
        with self._errors():
            return self._opened_database().execute(query).fetchall()

    def _take_over(self, older: OlderJournal) -> None:
        """A journal of the older format becomes part of this one. Broken off, it is done again: what is known stays as it is."""
        known = {run_id for (run_id,) in self._rows("SELECT run_id FROM runs")}
        highest: dict[str, int] = dict(self._rows("SELECT cluster_id, term FROM terms"))
        group = _Group()
        for record, acknowledged in older.runs():
            run_id = record.spec.run_id
            if run_id in known:
                continue
            group.add(_ACCEPTED, accepted_row(record))
            if not record.live:
                group.add(_ENDED, final_row(record))
            if acknowledged:
                group.add(_ACKNOWLEDGED, (run_id,))
        for run_id, refuse_time in older.refused().items():
            group.add(_REFUSED, (run_id, refuse_time))
        for cluster_id, term in older.terms().items():
            group.add(_TERMS, (cluster_id, max(term, highest.get(cluster_id, 0))))
        self._write(group.changes)
        older.remove()
        _log.info("journal_taken_over", runs=len(older.read))

    # --- writing

    async def add(self, records: Iterable[RunRecord]) -> None:
        """New runs, all or (JournalError) none."""
        await self._put(_ACCEPTED, [value for record in records for value in accepted_row(record)]).durable()

    async def save_final(self, record: RunRecord) -> None:
        """A run's start verdict and end."""
        await self._put(_ENDED, final_row(record)).durable()

    def acknowledge(self, run_ids: Sequence[str]) -> None:
        """Their finals are stored elsewhere. Not waited for: losing this only means that a final is sent once more."""
        self._put(_ACKNOWLEDGED, run_ids)

    def forget(self, run_ids: Sequence[str]) -> None:
        """Forgets runs. Not waited for: losing this only means that they are known once more."""
        for change in _FORGOTTEN:
            self._put(change, run_ids)

    async def refuse(self, run_id: str, now: datetime) -> None:
        """Refuses a run for good."""
        await self._put(_REFUSED, (run_id, now.timestamp())).durable()

    def forget_refusals(self, before: datetime) -> None:
        """Forgets refusals that are older than a time. Not waited for."""
        self._put(_OLD_REFUSALS, (before.timestamp(),))

    async def save_term(self, cluster_id: str, term: int) -> None:
        """The highest term of a cluster."""
        await self._put(_TERMS, (cluster_id, term)).durable()

    def _put(self, change: _Change, values: Iterable[Any]) -> _Group:
        self._opened_thread()  # else nobody would ever write it
        group = self._gathering
        group.add(change, values)
        if not self._writing:
            self._writing = True
            # Not at once: whatever else this round of the event loop brings goes along.
            asyncio.get_running_loop().call_soon(self._write_next)
        return group

    def _write_next(self) -> None:
        group = self._gathering
        self._writing = bool(group.changes) and self._thread is not None
        if not self._writing:
            return
        self._gathering = _Group()
        writing = asyncio.get_running_loop().run_in_executor(self._opened_thread(), self._write, group.changes)
        writing.add_done_callback(lambda done: self._written(group, done))

    def _written(self, group: _Group, writing: asyncio.Future[None]) -> None:
        group.error = asyncio.CancelledError("not written") if writing.cancelled() else writing.exception()
        if group.error is not None:
            _log.error("journal_not_written", error=str(group.error))
        group.written.set()
        self._write_next()

    def _write(self, changes: Sequence[tuple[_Change, Sequence[Any]]]) -> None:
        """One transaction; in the thread."""
        database = self._opened_database()
        most = min(VALUES_MAX, database.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER))
        with self._errors():
            try:
                database.execute("BEGIN IMMEDIATE")
                for change, values in changes:
                    for statement, part in change.statements(values, most):
                        database.execute(statement, part)
                database.execute("COMMIT")
            except BaseException:
                # Some errors have rolled it back already.
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise

    def _opened_database(self) -> sqlite3.Connection:
        if self._database is None:
            raise JournalError(f"the journal {self._path} is not open")
        return self._database
