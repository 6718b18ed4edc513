"""Loads the named SQL of `queries/*.sql`: a name line, a sentence, the statement."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import LiteralString

_COMMENT_OR_SPACE = re.compile(r"(?:\s|--[^\n]*)+")
_NAME = re.compile(r"^-- name: (?P<name>[a-z_]+)$", re.MULTILINE)


class QueryFileError(Exception):
    """A query file breaks the format: a name twice, no sentence, or no statement."""


def parse(text: str) -> dict[str, LiteralString]:
    """The statements of one file by name. Raises QueryFileError."""
    queries: dict[str, LiteralString] = {}
    parts = _NAME.split(text)
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        sentence, _, statement = body.strip().partition("\n")
        if not sentence.startswith("-- ") or not statement.strip():
            raise QueryFileError(f"query {name}: a sentence and a statement must follow the name")
        if name in queries:
            raise QueryFileError(f"query {name} is there twice")
        # A statement that is longer than psycopg keeps is taken apart anew each time. None of ours has a text in it whose spaces
        # matter.
        short = _COMMENT_OR_SPACE.sub(" ", statement).strip().rstrip(";")
        # Literal by construction: the text is shipped with the package.
        queries[name] = short
    return queries


def load() -> dict[str, LiteralString]:
    """All statements by name. Raises QueryFileError."""
    queries: dict[str, LiteralString] = {}
    folder = files("scheduler_service.storage") / "queries"
    for path in sorted(folder.iterdir(), key=lambda entry: entry.name):
        for name, statement in parse(path.read_text(encoding="utf-8")).items():
            if name in queries:
                raise QueryFileError(f"query {name} is in two files")
            queries[name] = statement
    return queries
