"""What `up` needs to know before it starts anything: addresses, folders, and the environment of each child."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
from pydantic import Field

from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.settings_check import settings_failure
from service_runtime.lifecycle import StartupError, bound_socket, split_address
from service_runtime.settings import HostPort, ServiceSettings, SettingsError, load_settings

DEFAULT_DATA_DIR = "~/.local/share/cecelia-dispatch"
SAMPLE_CPU_PER_TASK = "0.1"
SAMPLE_COMMAND = "cecelia-run"
SAMPLE_TASKS = "tasks.json"
SAMPLE_SERVER = "minimax_server.py"

PORT_MOST = 65_535
_NO = frozenset({"false", "f", "no", "n", "off", "0"})
_ANY_HOSTS = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}


class UpSettings(ServiceSettings):
    """The settings that `up` itself looks at; the services check all of theirs."""

    scheduler_grpc_address: HostPort = Field("127.0.0.1:50051", description="where the scheduler serves gRPC")
    scheduler_http_address: HostPort = Field("127.0.0.1:5221", description="where the scheduler serves HTTP")
    executor_grpc_address: HostPort = Field("127.0.0.1:50052", description="where the executor serves gRPC")
    executor_http_address: HostPort = Field("127.0.0.1:5222", description="where the executor serves HTTP")
    dispatch_data_dir: str = Field(DEFAULT_DATA_DIR, min_length=1, description="folder of the data")

    @property
    def addresses(self) -> dict[str, str]:
        """The four addresses by their settings."""
        return {
            "SCHEDULER_GRPC_ADDRESS": self.scheduler_grpc_address,
            "SCHEDULER_HTTP_ADDRESS": self.scheduler_http_address,
            "EXECUTOR_GRPC_ADDRESS": self.executor_grpc_address,
            "EXECUTOR_HTTP_ADDRESS": self.executor_http_address,
        }


@dataclass(frozen=True, slots=True)
class Addresses:
    """The four addresses, each with a port that was free."""

    scheduler_grpc: str
    scheduler_http: str
    executor_grpc: str
    executor_http: str

    @property
    def all(self) -> tuple[str, ...]:
        """All four."""
        return self.scheduler_grpc, self.scheduler_http, self.executor_grpc, self.executor_http


@dataclass(frozen=True, slots=True)
class Samples:
    """The folder of the samples, and what of it is used: the user's own settings come first."""

    folder: Path
    own_server: bool
    settings: Mapping[str, str]

    @property
    def tasks(self) -> Path:
        """The file of the tasks."""
        return self.folder / SAMPLE_TASKS

    @property
    def server(self) -> Path:
        """The program that stands in for MiniMax."""
        return self.folder / SAMPLE_SERVER


async def load_up_settings(environ: Mapping[str, str]) -> UpSettings:
    """The settings. Raises Failure that names every wrong one, those of the services too."""
    try:
        return load_settings(UpSettings, environ)
    except SettingsError as error:
        raise await settings_failure(environ, str(error)) or Failure(str(error), "config_error", "correct them") from error


def reachable(address: str) -> str:
    """The address for a client on this machine: a wildcard host becomes loopback."""
    host, port = split_address(address)
    bare = _ANY_HOSTS.get(host, f"[{host}]" if ":" in host else host)
    return f"{bare}:{port}"


def try_addresses(wanted: Mapping[str, str]) -> dict[str, str | Failure]:
    """By setting the address that its service could have, tried by binding all at once, or why it could not have it.

    Port 0 becomes a free one.
    """
    found: dict[str, str] = {}
    tried: dict[str, str | Failure] = {}
    with contextlib.ExitStack() as held:
        for setting, address in wanted.items():
            try:
                bound: socket.socket = held.enter_context(contextlib.closing(bound_socket(address, setting)))
            except StartupError as error:
                tried[setting] = _no_address(setting, address, error, found)
                continue
            tried[setting] = found[setting] = f"{address.rpartition(':')[0]}:{bound.getsockname()[1]}"
    return tried


def free_addresses(settings: UpSettings) -> Addresses:
    """The four addresses. Raises Failure with the setting of one that cannot be had."""
    free: list[str] = []
    for found in try_addresses(settings.addresses).values():
        if isinstance(found, Failure):
            raise found
        free.append(found)
    return Addresses(*free)


def _no_address(setting: str, address: str, error: StartupError, found: Mapping[str, str]) -> Failure:
    """Why an address cannot be had: taken, by whom, or not one that this machine or this user can have."""
    host, _, port = address.rpartition(":")
    number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
    if number == errno.EADDRINUSE:
        taker = next((other for other, taken in found.items() if taken == address), "") or _holder(address)
        return Failure(
            f"{address} is taken{f' by {taker}' if taker else ''}",
            f"address_in_use: {error}",
            f"set {setting} to another address, such as {setting}={host}:0 for any free port",
        )
    if number == errno.EACCES:
        what, remedy = f"{address} is not allowed to this user", f"a port above 1023 with {setting}={host}:0 for any free one"
    else:
        what, remedy = f"{host} is no address of this machine", f"one of its own, such as {setting}=127.0.0.1:{port}"
    said = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
    return Failure(what, f"address_unusable: {setting}={address} cannot be bound ({said})", f"use {remedy}")


def _holder(address: str) -> str:
    port = split_address(address)[1]
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""


def prepare_logs(data_dir: Path) -> Path:
    """The folder for the children's logs. Raises Failure when it cannot be written."""
    logs = data_dir / "logs"
    try:
        if not data_dir.exists():
            # As root, PostgreSQL's unprivileged user passes through to its own folder.
            data_dir.mkdir(parents=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        logs.mkdir(mode=0o700, exist_ok=True)
        (logs / ".probe").write_text("", encoding="ascii")
        (logs / ".probe").unlink()
    except OSError as error:
        raise Failure(
            f"{data_dir} cannot be written",
            f"unwritable: {error.strerror}",
            "make it writable, or choose another folder with --data-dir or DISPATCH_DATA_DIR",
        ) from error
    return logs


def plan_samples(folder: Path, environ: Mapping[str, str]) -> Samples:
    """What the samples set, where the user has not. Raises Failure when the folder holds no samples."""
    folder = folder.expanduser().absolute()
    missing = [name for name in (SAMPLE_TASKS, SAMPLE_COMMAND, SAMPLE_SERVER) if not (folder / name).is_file()]
    if missing:
        raise Failure(
            f"{folder} holds no samples",
            f"not_found: {', '.join(missing)} is missing",
            "name the folder deploy/examples of the repository",
            ExitStatus.USAGE,
        )
    defaults = {"CPU_PER_TASK": SAMPLE_CPU_PER_TASK, "CECELIA_RUN_PATH": str(folder / SAMPLE_COMMAND)}
    chosen = {name: value for name, value in defaults.items() if not environ.get(name)}
    return Samples(folder, not environ.get("HK_MINIMAX_URL"), chosen)


def child_environ(
    environ: Mapping[str, str], addresses: Addresses, data_dir: Path, overrides: Mapping[str, str]
) -> dict[str, str]:
    """The environment of both services: the caller's, what must agree between the two, and defaults for what is not set."""
    defaults = {
        "EXECUTOR_TARGETS": reachable(addresses.executor_grpc),
        "EXECUTOR_DATA_DIR": str(data_dir / "executor"),
        # `up` leaves nothing behind: its end is the end of the runs, at once.
        "EXECUTOR_END_RUNS_ON_STOP": "true",
        "EXECUTOR_DRAIN_MS": "0",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        "PYTHONUNBUFFERED": "1",
    }
    unset = {name: value for name, value in defaults.items() if not environ.get(name)}
    fixed = {
        "SCHEDULER_GRPC_ADDRESS": addresses.scheduler_grpc,
        "SCHEDULER_HTTP_ADDRESS": addresses.scheduler_http,
        "EXECUTOR_GRPC_ADDRESS": addresses.executor_grpc,
        "EXECUTOR_HTTP_ADDRESS": addresses.executor_http,
        "DISPATCH_DATA_DIR": str(data_dir),
    }
    return {**environ, **unset, **fixed, **overrides}


def moved(settings: UpSettings, offset: int) -> dict[str, str]:
    """The settings of the addresses with `offset` added to each port but 0. Raises Failure when a port would be none."""
    found: dict[str, str] = {}
    for setting, address in settings.addresses.items():
        host, _, port = address.rpartition(":")
        number = int(port) + offset if int(port) else 0
        if not 0 <= number <= PORT_MOST or (int(port) and not number):
            raise Failure(
                f"{setting}={address} cannot be moved by {offset}",
                f"port_out_of_range: that would be port {number}; must be 1 to {PORT_MOST}",
                "use a smaller --port-offset",
                ExitStatus.USAGE,
            )
        found[setting] = f"{host}:{number}"
    return found


def fresh_folder(folder: Path, environ: Mapping[str, str], now: datetime) -> Path:
    """A folder beside the old one, which is left as it is. Raises Failure when the data would not be in it."""
    for setting in ("DATABASE_URL", "EXECUTOR_DATA_DIR"):
        if environ.get(setting):
            raise Failure(
                "--fresh cannot begin with nothing",
                f"data_elsewhere: {setting} is set, so that the data is not in the data folder alone",
                f"unset {setting}, or empty what it names yourself",
                ExitStatus.USAGE,
            )
    return folder.with_name(f"{folder.name}-{now:%Y%m%dT%H%M%S}")


def executor_folder(environ: Mapping[str, str]) -> Path:
    """Where the executor with this environment keeps its runs."""
    return Path(environ["EXECUTOR_DATA_DIR"]).expanduser().absolute()


def runs_outlast(environ: Mapping[str, str]) -> bool:
    """Whether the user wants the runs to go on after the end of `up`."""
    return environ.get("EXECUTOR_END_RUNS_ON_STOP", "").lower() in _NO


def drain_s(environ: Mapping[str, str]) -> float:
    """How many seconds the user lets the executor wait for its runs before it ends them."""
    given = environ.get("EXECUTOR_DRAIN_MS", "")
    return int(given) / 1000 if given.isdecimal() else 0.0
