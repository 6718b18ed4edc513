"""The roles of the embedded PostgreSQL: the service's, which owns the database, and a reader's for people."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg import sql

DATABASE = "cecelia"
ADMIN_ROLE = "postgres"
SERVICE_ROLE = "cecelia"
READER_ROLE = "cecelia_reader"
ROLES = (ADMIN_ROLE, SERVICE_ROLE, READER_ROLE)

_CONNECT_S = 5
_LIMITS = {"idle_in_transaction_session_timeout": "2s", "lock_timeout": "1s", "statement_timeout": "5s"}


async def ensure_roles(maintenance_url: str, database_url: str, passwords: Mapping[str, str]) -> None:
    """Makes what is missing of roles, database and grants; both URLs are the superuser's. Raises psycopg.Error."""
    async with await _connect(maintenance_url) as admin:
        for role in (SERVICE_ROLE, READER_ROLE):
            found = await (await admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))).fetchone()
            await admin.execute(
                sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(
                    sql.SQL("ALTER" if found else "CREATE"), sql.Identifier(role), sql.Literal(passwords[role])
                )
            )
        for name, value in _LIMITS.items():
            await admin.execute(_set(SERVICE_ROLE, name, value))
        await admin.execute(_set(READER_ROLE, "default_transaction_read_only", "on"))
        found = await (await admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))).fetchone()
        if not found:
            create = sql.SQL("CREATE DATABASE {} OWNER {}")
            await admin.execute(create.format(sql.Identifier(DATABASE), sql.Identifier(SERVICE_ROLE)))
    async with await _connect(database_url) as admin:
        for grant in (
            "GRANT USAGE, CREATE ON SCHEMA public TO {service}",
            "GRANT USAGE ON SCHEMA public TO {reader}",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
            "ALTER DEFAULT PRIVILEGES FOR ROLE {service} IN SCHEMA public GRANT SELECT ON TABLES TO {reader}",
        ):
            names = {"service": sql.Identifier(SERVICE_ROLE), "reader": sql.Identifier(READER_ROLE)}
            await admin.execute(sql.SQL(grant).format(**names))


def _set(role: str, name: str, value: str) -> sql.Composed:
    return sql.SQL("ALTER ROLE {} SET {} = {}").format(sql.Identifier(role), sql.Identifier(name), sql.Literal(value))


async def _connect(url: str) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=_CONNECT_S)
