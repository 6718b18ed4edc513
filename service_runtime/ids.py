"""Ids of tasks and runs: UUIDs of version 7 (RFC 9562), which stand in the order of the clock.

New entries of an index then lie beside each other: at random, each would change a page of its own, the more the larger the table.
"""

from uuid import UUID

import msgspec
import uuid_utils


def new_id() -> UUID:
    """A new id. The library's own way to a UUID of Python's takes twice as long."""
    return msgspec.convert(uuid_utils.uuid7().bytes, UUID)


def id_text(id_: UUID) -> str:
    """An id as it is sent, a quarter of the time of UUID's own writing."""
    text: str = msgspec.to_builtins(id_)
    return text


def id_of(text: str) -> UUID:
    """The id of a text between services, a quarter of the time of UUID's own reading. Raises ValueError for what is no UUID."""
    try:
        return msgspec.convert(text, UUID)
    except msgspec.ValidationError as error:
        raise ValueError(f"{text[:40]!r} is no UUID") from error
