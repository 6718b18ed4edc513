"""Ids of tasks and runs: UUIDs of version 7 (RFC 9562), which stand in the order of the clock.

New entries of an index then lie beside each other: at random, each would change a page of its own, the more the larger the table.
"""

from uuid_utils.compat import uuid7 as new_id

__all__ = ["new_id"]
