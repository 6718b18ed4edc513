"""PostgreSQL of our own, for a single host: the wheel's binaries under our supervision (folder: embedded_folder.py)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import signal
import socket
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
import structlog

from scheduler_service.storage.embedded_folder import DataFolder
from scheduler_service.storage.embedded_programs import MAJOR, Programs, barrier, binaries, end
from scheduler_service.storage.embedded_roles import ADMIN_ROLE, DATABASE, READER_ROLE, ROLES, SERVICE_ROLE, ensure_roles
from scheduler_service.storage.embedded_user import unprivileged_user
from service_runtime.lifecycle import StartupError

_log = structlog.get_logger(__name__)

START_S = 30.0
# Recovery after a crash replays the log; ending it half-way would begin it anew each time.
RECOVERY_S = 300.0
PORT_TRIES = 5
RESTARTS_MAX = 20
RESTART_PAUSE_MAX_S = 5.0
# A server that lived this long has its whole budget of restarts again.
HEALTHY_S = 60.0

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "password_encryption": "scram-sha-256",
}


class EmbeddedPostgres:
    """One PostgreSQL server that lives and dies with us; `supervise` starts it again when it dies alone.

    `user` runs the server when we are root; '' takes the owner of the cluster, else the first of postgres and nobody.
    """

    def __init__(self, data_dir: Path, *, user: str = "") -> None:
        self._folder = DataFolder(data_dir)
        self.data_dir = self._folder.path
        self.port = 0
        self.restarts = 0
        self._wanted_user = user
        self._programs: Programs | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._why = ""
        # Shown in the titles of the server's processes, which anybody may read: how we know ours.
        self._cluster_name = "cecelia-" + hashlib.sha256(os.fsencode(self._folder.cluster)).hexdigest()[:12]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # --- addresses

    def _url(self, role: str, database: str = DATABASE) -> str:
        password = quote(self._folder.passwords[role], safe="")
        return f"postgresql://{role}:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def database_url(self) -> str:
        """For the service: its role, its database."""
        return self._url(SERVICE_ROLE)

    @property
    def reader_url(self) -> str:
        """For people: reads everything, changes nothing."""
        return self._url(READER_ROLE)

    @property
    def admin_url(self) -> str:
        """For tests and repairs: the superuser, in the maintenance database."""
        return self._url(ADMIN_ROLE, "postgres")

    @property
    def pid(self) -> int | None:
        """The server's process."""
        return self._process.pid if self._process is not None else None

    # --- start

    async def start(self, deadline_s: float = START_S) -> None:
        """Takes the folder, makes the cluster if there is none, starts it.

        `deadline_s` bounds each of the two; recovery after a crash may take RECOVERY_S. Raises StartupError with one clear line.
        """
        self._stopping = False
        found = binaries()
        self._folder.take(passable=os.geteuid() == 0)
        try:
            user = unprivileged_user(self._wanted_user, self._folder.cluster)
            programs = Programs(found, self._folder, user, barrier(found, self._folder.path, user))
            self._programs = programs
            self._folder.load_secrets(ROLES)
            if not self._folder.has_cluster(MAJOR):
                await programs.initdb(deadline_s)
            await self._start_server(programs, deadline_s, same_port=False)
            # Not before initdb: the one that was broken off may still have been at it.
            self._folder.clear_left_overs()
            async with asyncio.timeout(deadline_s):
                await ensure_roles(self.admin_url, self._url(ADMIN_ROLE), self._folder.passwords)
            self._folder.save_service_file(DATABASE, READER_ROLE)
        except (psycopg.Error, TimeoutError) as error:
            await self.stop()
            raise StartupError(
                f"the embedded PostgreSQL could not be set up: {str(error).strip() or 'no answer in time'}"
            ) from error
        except OSError as error:
            await self.stop()
            raise self._folder.unwritable(error) from error
        except BaseException:
            await self.stop()
            raise

    async def _start_server(self, programs: Programs, deadline_s: float, *, same_port: bool) -> None:
        """Starts the server and waits until it answers as ours; on the port of last time, or on another where it may move."""
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline_s
        self._folder.trim_log()
        await self._predecessor_gone(until)
        tries = 0
        while True:
            if not same_port:
                self.port = _free_port(self._folder.port)
            settings = {**_SETTINGS, "cluster_name": self._cluster_name, "port": str(self.port)}
            options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
            self._process = await programs.run("postgres", "-D", str(self._folder.cluster), *options)
            if await self._answers(self._process, until):
                break
            await end(self._process)
            tries += 1
            if loop.time() >= until or (tries == PORT_TRIES and not same_port):
                raise StartupError(f"the embedded PostgreSQL does not start: {self._why or self._folder.last_log_line()}")
            await asyncio.sleep(0.3)
        if self._folder.port != self.port:
            self._folder.port = self.port
            self._folder.save_secrets()

    async def _predecessor_gone(self, until: float) -> None:
        """Waits for what a killed scheduler left behind. Nobody else may be there: the folder is locked by us.

        Raises StartupError when it has not gone by then.
        """
        loop = asyncio.get_running_loop()
        pid_file = self._folder.cluster / "postmaster.pid"
        told = False
        while left_over := self._processes():
            if not told:
                told = True
                _log.info("waiting_for_earlier_postgres", processes=left_over)
                postmaster = _first_number(pid_file)
                if postmaster in left_over:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(postmaster, signal.SIGINT)
            if loop.time() >= until:
                raise StartupError(f"an earlier PostgreSQL (process {left_over[0]}) still runs in {self._folder.cluster}")
            await asyncio.sleep(0.05)
        # After a reboot its number may be any other program's, and PostgreSQL would take that for itself.
        number = _first_number(pid_file)
        if number is not None and Path(f"/proc/{number}").exists():
            _log.info("removing_stale_pid_file", pid=number)
            pid_file.unlink()

    def _processes(self) -> list[int]:
        """The PostgreSQL processes of this cluster, by their command lines."""
        found = []
        title = f"postgres: {self._cluster_name}:".encode()
        cluster = os.fsencode(self._folder.cluster)
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = entry.read_bytes().split(b"\0")
                server = words[0].endswith(b"/bin/postgres") and words[1:3] == [b"-D", cluster]
                if server or words[0].startswith(title):
                    found.append(int(entry.parent.name))
        return found

    async def _answers(self, process: asyncio.subprocess.Process, until: float) -> bool:
        """Whether it answers by the deadline. False when it has ended, or another one answers at its port."""
        loop = asyncio.get_running_loop()
        recovered_by = loop.time() + RECOVERY_S
        self._why = ""
        while process.returncode is None and loop.time() < until:
            try:
                # Only by SCRAM: whoever else listens there does not learn the password.
                async with await psycopg.AsyncConnection.connect(
                    self.admin_url, connect_timeout=2, require_auth="scram-sha-256"
                ) as connection:
                    row = await (await connection.execute("SHOW data_directory")).fetchone()
                    return row is not None and Path(str(row[0])) == self._folder.cluster and process.returncode is None
            except psycopg.Error as error:
                text = str(error).strip()
                if "the database system is" in text and until < recovered_by:
                    _log.info("postgres_recovers", at_most_s=RECOVERY_S)
                    until = recovered_by
                if "password authentication failed" in text:
                    self._why = text
                await asyncio.sleep(0.05)
        return False

    # --- supervision and stop

    async def supervise(self) -> None:
        """Starts the server again on the same port when it dies, with pauses and a budget; raises StartupError beyond that.

        Ends when `stop` is called.
        """
        loop = asyncio.get_running_loop()
        pause, deaths = 0.1, 0
        while (process := self._process) is not None and (programs := self._programs) is not None:
            since = loop.time()
            while process.returncode is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEALTHY_S):
                        await process.wait()
                self._folder.trim_log()
            if self._stopping:
                return
            if loop.time() - since >= HEALTHY_S:
                pause, deaths = 0.1, 0
            deaths += 1
            _log.warning("postgres_died", status=process.returncode, deaths=deaths)
            if deaths > RESTARTS_MAX:
                raise StartupError(f"the embedded PostgreSQL died {deaths} times in a row: {self._folder.last_log_line()}")
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, RESTART_PAUSE_MAX_S)
            if self._stopping:
                return
            await self._start_server(programs, START_S, same_port=True)
            self.restarts += 1
            _log.info("postgres_is_back", port=self.port)

    async def stop(self) -> None:
        """Fast shutdown; immediate when that takes too long. Gives the folder back."""
        self._stopping = True
        try:
            if self._process is not None:
                await end(self._process)
        finally:
            self._process = None
            self._folder.release()


def _first_number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii").split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with contextlib.suppress(OSError), contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise StartupError("no free port on 127.0.0.1 for the embedded PostgreSQL")
