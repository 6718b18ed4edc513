"""Databases of the bench's server."""

from __future__ import annotations

from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from scheduler_service.storage.embedded import EmbeddedPostgres
from scheduler_service.storage.embedded_roles import SERVICE_ROLE
from scheduler_service.storage.migrate import migrate


def new_name() -> str:
    """A name that no other database has."""
    return f"bench_{uuid4().hex}"


def with_database(url: str, name: str) -> str:
    """The URL for another database of the same server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


async def migrated_template(server: EmbeddedPostgres) -> str:
    """The name of a new database with our schema, to be copied."""
    name = new_name()
    await create_database(server, name, "template0")
    await migrate(with_database(server.database_url, name))
    return name


async def create_database(server: EmbeddedPostgres, name: str, template: str) -> None:
    """A database that the service's role owns, a copy of the template file by file: a large one is not written to the log once more."""
    words = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY file_copy")
    async with await psycopg.AsyncConnection.connect(server.admin_url, autocommit=True) as admin:
        await admin.execute(words.format(sql.Identifier(name), sql.Identifier(SERVICE_ROLE), sql.Identifier(template)))


async def drop_database(server: EmbeddedPostgres, name: str) -> None:
    """Gone, whoever is still connected."""
    async with await psycopg.AsyncConnection.connect(server.admin_url, autocommit=True) as admin:
        await admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
