"""An environment full of PostgreSQL's variables: nothing of it reaches the embedded database or those who look into it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from tests.acceptance.command_line import DEADLINE_S, cli
from tests.acceptance.programs import Pair

HOSTILE = {
    "PGHOST": "127.0.0.2",
    "PGHOSTADDR": "127.0.0.2",
    "PGPORT": "1",
    "PGDATABASE": "nowhere",
    "PGUSER": "nobody",
    "PGPASSWORD": "wrong",
    "PGPASSFILE": "/nonexistent/pgpass",
    "PGSERVICE": "nosuch",
    "PGSERVICEFILE": "/nonexistent/pg_service.conf",
    "PGSYSCONFDIR": "/nonexistent",
    "PGOPTIONS": "-c search_path=nowhere -c default_transaction_read_only=on",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLROOTCERT": "/nonexistent/root.crt",
    "PGGSSENCMODE": "require",
    "PGCHANNELBINDING": "require",
    "PGREQUIREAUTH": "none",
    "PGTARGETSESSIONATTRS": "standby",
    "PGCONNECT_TIMEOUT": "nonsense",
    "PGCLIENTENCODING": "SQL_ASCII",
    "PGDATESTYLE": "German",
    "PGTZ": "Asia/Tokyo",
    "PGDATA": "/nonexistent",
}


@pytest.fixture
async def led_astray(tmp_path: Path) -> AsyncIterator[Pair]:
    """A pair that makes its embedded database in such an environment."""
    pair = Pair(tmp_path, "", LEASE_TTL_MS="60000", **HOSTILE)
    await pair.start()
    yield pair
    await pair.stop()


async def test_the_scheduler_and_dispatchctl_find_their_own_database(led_astray: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = await led_astray.until_ended(await led_astray.submit())
    assert task.status == pb.TASK_STATUS_COMPLETED
    for name, value in {**HOSTILE, "DISPATCH_DATA_DIR": str(led_astray.folder / "scheduler")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    asked = ("SELECT current_user, current_database(), count(*) FROM tasks", "SHOW search_path", "SHOW DateStyle")
    words = [word for statement in asked for word in ("-c", statement)]
    told = cli("psql", *words, "--", "-At", "--no-psqlrc").stdout
    assert told == 'cecelia_reader|cecelia|1\n"$user", public\nISO, MDY\n'
    exports = cli("psql", "--env").stdout
    program = "import psycopg; print(*psycopg.connect('').execute('SELECT current_user, count(*) FROM tasks').fetchone())"
    script = f'{exports}exec "$0" -c "$1"'
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", script, sys.executable, program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(DEADLINE_S):
        said, _ = await process.communicate()
    assert said == b"cecelia_reader 1\n"
