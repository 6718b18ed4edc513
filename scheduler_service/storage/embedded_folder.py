"""DISPATCH_DATA_DIR: who uses it, its secrets, its log.

DISPATCH_DATA_DIR/lock            held while a scheduler uses the folder
DISPATCH_DATA_DIR/secrets.json    the roles' passwords and the port of last time
DISPATCH_DATA_DIR/pg_service.conf the reader's way in, for people with psql (`dispatchctl psql`)
DISPATCH_DATA_DIR/postgres/       the cluster (of the unprivileged user when we are root)
DISPATCH_DATA_DIR/postgres.log    its log
DISPATCH_DATA_DIR/initdb.*/       a cluster in the making
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from service_runtime.lifecycle import StartupError

WORKSHOP = "initdb."
LIBPQ_SERVICE = "cecelia"
LOG_MAX_BYTES = 10 * 1024 * 1024


class DataDirUnwritable(StartupError):
    """DISPATCH_DATA_DIR cannot be made or written."""


class DataDirInUse(StartupError):
    """Another scheduler holds DISPATCH_DATA_DIR."""


class DataFolder:
    """The folder of one embedded PostgreSQL; ours alone between `take` and `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self.cluster = self.path / "postgres"
        self.log = self.path / "postgres.log"
        self.passwords: dict[str, str] = {}
        self.port = 0
        self._secrets = self.path / "secrets.json"
        self._lock: int | None = None

    def take(self, *, passable: bool) -> None:
        """Makes the folder if need be and locks it; `passable`: another user has a subfolder of it.

        Raises DataDirUnwritable and DataDirInUse.
        """
        try:
            if not self.path.exists():
                self.path.mkdir(mode=0o711 if passable else 0o700, parents=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            probe = self.path / f".probe.{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            self.release()
            raise self.unwritable(error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise DataDirInUse(
                f"DISPATCH_DATA_DIR={self.path} is in use by another scheduler: set DATABASE_URL to share one database, "
                "or give this one a folder of its own"
            ) from error

    def release(self) -> None:
        """Gives the folder back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def unwritable(self, error: OSError) -> DataDirUnwritable:
        """The error for a folder that refuses us."""
        return DataDirUnwritable(
            f"DISPATCH_DATA_DIR={self.path} cannot be written ({error.strerror}): make it writable, choose another folder, "
            "or set DATABASE_URL"
        )

    def load_secrets(self, roles: Iterable[str]) -> None:
        """Reads the passwords of the roles, or makes them for a cluster that is yet to be made. Raises StartupError."""
        try:
            found = json.loads(self._secrets.read_text(encoding="utf-8"))
            self.passwords = {role: str(found["passwords"][role]) for role in roles}
            self.port = int(found["port"])
        except FileNotFoundError:
            if self.has_cluster():
                raise StartupError(
                    f"{self._secrets} is gone, and with it the passwords of {self.cluster}: put it back, or move the folder away"
                ) from None
            self.passwords = {role: secrets.token_urlsafe(24) for role in roles}
            self.save_secrets()
        except (ValueError, KeyError, TypeError) as error:
            raise StartupError(f"{self._secrets} is damaged: put back the whole file, or move {self.path} away") from error

    def save_secrets(self) -> None:
        """Writes passwords and port, whole or not at all."""
        self._write_closed(self._secrets, json.dumps({"passwords": self.passwords, "port": self.port}))

    def save_service_file(self, database: str, reader: str) -> None:
        """Writes how libpq gets in as a reader (service `[cecelia]`), whole or not at all."""
        options = {
            # Both: an environment's PGHOSTADDR would lead the password elsewhere.
            "host": "127.0.0.1",
            "hostaddr": "127.0.0.1",
            "port": self.port,
            "dbname": database,
            "user": reader,
            "password": self.passwords[reader],
            # Whoever else listens at the port while we do not run learns no password.
            "require_auth": "scram-sha-256",
            "sslmode": "disable",
            "gssencmode": "disable",
        }
        lines = [f"[{LIBPQ_SERVICE}]", *(f"{name}={value}" for name, value in options.items())]
        self._write_closed(self.path / "pg_service.conf", "\n".join(lines) + "\n")

    def _write_closed(self, target: Path, text: str) -> None:
        """Replaces a file that only we may read."""
        temporary = self.path / f".{target.name}.new"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            # One that was left over may have had other permissions.
            os.fchmod(handle, 0o600)
            file.write(text)
            file.flush()
            os.fsync(handle)
        self.rename(temporary, target)

    def rename(self, source: Path, target: Path) -> None:
        """Renames within the folder, and for good: a power cut does not undo it."""
        source.rename(target)
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def has_cluster(self, major: str | None = None) -> bool:
        """Whether there is a whole cluster. Raises StartupError when something else lies in its place."""
        try:
            version = (self.cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            if self.cluster.exists() and any(self.cluster.iterdir()):
                raise StartupError(
                    f"{self.cluster} holds files that are not a PostgreSQL cluster: set DISPATCH_DATA_DIR to another folder"
                ) from None
            return False
        if major not in (None, version):
            raise StartupError(
                f"{self.cluster} was made by PostgreSQL {version}, this is {major}: dump and load it, or set DATABASE_URL"
            )
        return True

    def clear_left_overs(self) -> None:
        """Removes clusters whose making was broken off."""
        for left_over in self.path.glob(f"{WORKSHOP}*"):
            shutil.rmtree(left_over, ignore_errors=True)

    def trim_log(self) -> None:
        """Empties the log when it has grown past its bound."""
        if self.log.exists() and self.log.stat().st_size > LOG_MAX_BYTES:
            os.truncate(self.log, 0)

    def last_log_line(self) -> str:
        """What PostgreSQL said last; where to look when it said nothing."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                lines = file.read().decode("utf-8", "replace").strip().splitlines()
        except OSError:
            lines = []
        telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "error:"))]
        return [*lines, *telling][-1] if lines else f"see {self.log}"
