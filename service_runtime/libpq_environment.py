"""The environment variables by which libpq and PostgreSQL's programs can be led anywhere."""

from __future__ import annotations

from collections.abc import Iterable


def libpq_variables(names: Iterable[str]) -> list[str]:
    """Those of these names that are PostgreSQL's: PGHOSTADDR, PGSERVICE, PGOPTIONS, PGSSLMODE and all others that begin with PG.

    What an address leaves open is taken from them, and a PGSERVICE that cannot be found bars every connection.
    """
    return sorted(name for name in names if name.startswith("PG"))
