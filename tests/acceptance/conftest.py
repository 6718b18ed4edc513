"""A running pair: one for each test, and one for all tests of a file about the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import ParseDict

from tests.acceptance.command_line import cli
from tests.acceptance.programs import DESCRIPTION, Pair


@pytest.fixture
async def pair(tmp_path: Path, database_url: str) -> AsyncIterator[Pair]:
    """Both services on a database of the test's own, with a short breaker."""
    made = Pair(tmp_path, database_url, OPEN_DURATION_MS="1500", LEASE_TTL_MS="60000")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both services on an embedded database of their own, for all tests of this file."""
    with asyncio.Runner() as runner:
        made = Pair(tmp_path_factory.mktemp("pair"), "", LEASE_TTL_MS="60000")
        runner.run(made.start())
        try:
            yield made
        finally:
            runner.run(made.stop())


@pytest.fixture
def at_the_pair(running: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment in which dispatchctl finds the pair, and no profile."""
    monkeypatch.setenv("DISPATCH_ADDRESS", f"127.0.0.1:{running.scheduler.port}")
    monkeypatch.setenv("EXECUTOR_GRPC_ADDRESS", f"127.0.0.1:{running.executor.port}")
    monkeypatch.setenv("DISPATCH_DATA_DIR", str(running.folder / "scheduler"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(running.folder))
    monkeypatch.delenv("DATABASE_URL", raising=False)


@pytest.fixture(scope="module")
def finished(running: Pair) -> pb.Task:
    """A task that has run to its end."""
    done = cli(
        "submit",
        "--title",
        "Tidy the importer",
        "--description",
        DESCRIPTION,
        "--wait",
        "--max-hold",
        "60s",
        "-o",
        "json",
        pair=running,
    )
    return ParseDict(json.loads(done.stdout), pb.Task())
