"""Applies `migrations/NNNN_name.sql` in order, each once, under an advisory lock, in one transaction."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import LiteralString

import psycopg
from psycopg.rows import dict_row

from scheduler_service.storage import query_files

_FILE = re.compile(r"^(?P<number>\d{4})_[a-z0-9_]+\.sql$")
_LOCK = 4922340


class MigrationError(Exception):
    """The database's schema does not fit this program."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    statement: LiteralString
    checksum: str


def migrations() -> list[Migration]:
    """The migrations that this program ships, in order."""
    found = []
    for path in (files("scheduler_service.storage") / "migrations").iterdir():
        match = _FILE.match(path.name)
        if match:
            text = path.read_text(encoding="utf-8")
            checksum = hashlib.sha256(text.encode()).hexdigest()
            found.append(Migration(int(match["number"]), path.name, text, checksum))
    return sorted(found, key=lambda migration: migration.number)


async def migrate(conninfo: str) -> list[str]:
    """Brings the schema up to date and returns the names that were applied.

    Any number of processes may do this at once: the first does it, the rest wait and find it done. Raises MigrationError for a
    schema that is newer than this program or whose applied files differ, and psycopg.Error.
    """
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True, row_factory=dict_row) as connection:
        # The role's own limits are for short transactions; waiting for another replica's migration may take longer.
        await connection.execute("SET statement_timeout = '60s'")
        await connection.execute("SET lock_timeout = '60s'")
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise MigrationError(f"the database's encoding is {encoding}: make one with ENCODING 'UTF8' for DATABASE_URL")
        async with connection.transaction():
            # First of all: IF NOT EXISTS alone races (measured, reliability.md row 28).
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations (number integer PRIMARY KEY, name text NOT NULL,"
                " checksum text NOT NULL, apply_time timestamptz NOT NULL DEFAULT now())"
            )
            cursor = await connection.execute("SELECT number, name, checksum FROM schema_migrations ORDER BY number")
            applied = {row["number"]: row for row in await cursor.fetchall()}
            done = await _apply(connection, applied)
            # Whoever serves before there is a leader writes events too.
            queries = query_files.load()
            cursor = await connection.execute(queries["transaction_time"])
            await connection.execute(queries["ensure_partitions"], await cursor.fetchone())
            return done


async def _apply(connection: psycopg.AsyncConnection[dict[str, object]], applied: dict[int, dict[str, object]]) -> list[str]:
    shipped = migrations()
    unknown = sorted(set(applied) - {migration.number for migration in shipped})
    if unknown:
        raise MigrationError(f"the database has migration {unknown[-1]}, which is newer than this program: upgrade the program")
    done = []
    for migration in shipped:
        row = applied.get(migration.number)
        if row is None:
            await connection.execute(migration.statement)
            await connection.execute(
                "INSERT INTO schema_migrations (number, name, checksum) VALUES (%s, %s, %s)",
                (migration.number, migration.name, migration.checksum),
            )
            done.append(migration.name)
        elif row["checksum"] != migration.checksum:
            raise MigrationError(f"migration {migration.name} was applied with other contents")
    return done
