"""The state machine of tests/property on PostgreSQL: few examples, as each needs a database of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test
from psycopg import sql

from scheduler_service.storage.embedded import EmbeddedPostgres
from scheduler_service.storage.embedded_roles import SERVICE_ROLE
from scheduler_service.storage.postgres import PostgresDatabase
from scheduler_service.transactions.ports import Database
from tests.fakes.fake_clock import FakeClock
from tests.property.test_tick_machine import TickMachine

NewDatabase = Callable[[], str]


@pytest.fixture
def new_database(embedded_postgres: EmbeddedPostgres, database_template: str) -> Iterator[NewDatabase]:
    """Makes one migrated database after another; all are dropped at the end."""
    made: list[sql.Identifier] = []
    with psycopg.connect(embedded_postgres.admin_url, autocommit=True) as admin:

        def make() -> str:
            name = f"test_{uuid4().hex}"
            made.append(sql.Identifier(name))
            owner, template = sql.Identifier(SERVICE_ROLE), sql.Identifier(database_template)
            admin.execute(sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(made[-1], owner, template))
            return urlsplit(embedded_postgres.database_url)._replace(path=f"/{name}").geturl()

        yield make
        for identifier in made:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def test_the_machine_holds_on_postgres(new_database: NewDatabase) -> None:
    class OnPostgres(TickMachine):
        def database(self, clock: FakeClock) -> Database:
            self.postgres = PostgresDatabase(new_database(), size=2, clock=clock.now, deadline_s=30.0)
            self.loop.run_until_complete(self.postgres.open())
            return self.postgres

        def close(self) -> None:
            if self.ready:
                self.loop.run_until_complete(self.postgres.close())

    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # as Hypothesis has it
        OnPostgres,
        settings=hypothesis_settings(
            max_examples=4,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            print_blob=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
