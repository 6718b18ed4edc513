"""Who calls, as far as a call says so: the name a client gives itself, and where it came from. Nothing here is verified."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

ACTOR_METADATA = "cecelia-actor"
"""The metadata key under which a client names the person or program that calls."""

ACTOR_MAX_CHARS = 64


def actor_of(metadata: Iterable[tuple[str, Any]] | None, peer: str) -> str:
    """`name (peer)`, or the peer alone where no name was given. Control characters are left out, the name is shortened."""
    given = next((value for key, value in metadata or () if key == ACTOR_METADATA and isinstance(value, str)), "")
    name = "".join(char for char in given if unicodedata.category(char)[0] != "C")[:ACTOR_MAX_CHARS].strip()
    return f"{name} ({peer})" if name else peer
