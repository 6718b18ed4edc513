"""Databases for tests: one embedded PostgreSQL a session, a fresh database a test. Needs nothing but the `[embedded]` extra."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest_asyncio
from psycopg import sql

from scheduler_service.storage.embedded import EmbeddedPostgres
from scheduler_service.storage.embedded_roles import SERVICE_ROLE
from scheduler_service.storage.migrate import migrate
from service_runtime.libpq_environment import libpq_variables

_TEMPLATE = "migrated_template"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def embedded_postgres() -> AsyncIterator[EmbeddedPostgres]:
    """The session's server. It ends with the session, even when that is killed."""
    # Not pytest's own folder, which is closed to the user who runs PostgreSQL when we are root.
    for name in libpq_variables(os.environ):
        del os.environ[name]
    folder = Path(tempfile.mkdtemp(prefix="cecelia-tests-"))
    folder.chmod(0o711)
    server = EmbeddedPostgres(folder)
    try:
        await server.start()
        try:
            yield server
        finally:
            await server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_server(embedded_postgres: EmbeddedPostgres) -> str:
    """The libpq URL of the session's server for its superuser."""
    return embedded_postgres.admin_url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database_template(embedded_postgres: EmbeddedPostgres) -> str:
    """The name of a database with every migration applied."""
    await _create(embedded_postgres.admin_url, _TEMPLATE, "template0")
    await migrate(_with_database(embedded_postgres.database_url, _TEMPLATE))
    return _TEMPLATE


@pytest_asyncio.fixture
async def empty_database_url(embedded_postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A database of this test alone, as the service's role, without a schema."""
    async for url in _fresh_database(embedded_postgres, "template0"):
        yield url


@pytest_asyncio.fixture
async def database_url(embedded_postgres: EmbeddedPostgres, database_template: str) -> AsyncIterator[str]:
    """A database of this test alone, as the service's role, with every migration applied."""
    async for url in _fresh_database(embedded_postgres, database_template):
        yield url


async def _fresh_database(server: EmbeddedPostgres, template: str) -> AsyncIterator[str]:
    name = f"test_{uuid4().hex}"
    await _create(server.admin_url, name, template)
    try:
        yield _with_database(server.database_url, name)
    finally:
        async with await psycopg.AsyncConnection.connect(server.admin_url, autocommit=True) as admin:
            await admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


async def _create(admin_url: str, name: str, template: str) -> None:
    async with await psycopg.AsyncConnection.connect(admin_url, autocommit=True) as admin:
        await admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(SERVICE_ROLE), sql.Identifier(template)
            )
        )


def _with_database(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()
