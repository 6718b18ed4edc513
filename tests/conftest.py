"""What every test may ask for. Fixtures live beside their subject and are named here."""

from tests.postgres import (
    database_template,
    database_url,
    embedded_postgres,
    empty_database_url,
    postgres_server,
)

__all__ = ["database_template", "database_url", "embedded_postgres", "empty_database_url", "postgres_server"]
