"""What every test may ask for. Fixtures live beside their subject and are named here."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from tests.postgres import (
    database_template,
    database_url,
    embedded_postgres,
    empty_database_url,
    postgres_server,
)

# No test may reach the real MiniMax service: whoever forgets to set the address gets one that refuses.
os.environ["HK_MINIMAX_URL"] = "http://127.0.0.1:9"
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
# A suite that is started in the background, or under nohup, has these ignored, and so would the programs that it signals.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

LONG_TESTS = os.environ.get("LONG_TESTS") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out what takes long, unless it is asked for."""
    for item in items:
        if "long" in item.keywords and not LONG_TESTS:
            item.add_marker(pytest.mark.skip(reason="takes long: make test-long"))


settings.register_profile("suite", derandomize=True, print_blob=True, database=None, deadline=None)
settings.load_profile("suite")

__all__ = ["database_template", "database_url", "embedded_postgres", "empty_database_url", "postgres_server"]
