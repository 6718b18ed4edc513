"""A good queued task."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import pytest

from scheduler_service.core.task import Task
from tests.fakes.tasks import queued_task

CREATED = datetime(2026, 2, 25, 12, 0, tzinfo=UTC)


@pytest.fixture
def created() -> datetime:
    return CREATED


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """Builds a queued task that passes every check; keyword arguments replace fields."""
    return partial(queued_task, CREATED)
