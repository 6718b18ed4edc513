"""How a command says who has overridden something, and why."""

from __future__ import annotations

from dispatchctl.api.calls import this_caller
from dispatchctl.rendering import clean


def by_whom(reason: str, *, source: str = "") -> str:
    """`by user@host, reason`, harmless to a terminal; `source` is on whose behalf."""
    return clean(f"by {this_caller()}{f' as {source}' if source else ''}, {reason}")
