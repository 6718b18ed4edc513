"""A running pair for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.programs import Pair


@pytest.fixture
async def pair(tmp_path: Path, database_url: str) -> AsyncIterator[Pair]:
    """Both services on a database of the test's own, with a short breaker."""
    made = Pair(tmp_path, database_url, OPEN_DURATION_MS="1500", LEASE_TTL_MS="60000")
    await made.start()
    yield made
    await made.stop()
