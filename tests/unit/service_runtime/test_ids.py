"""Ids stand in the order of their making."""

from __future__ import annotations

import time
from uuid import UUID

from service_runtime.ids import new_id


def test_ids_stand_in_the_order_of_their_making_and_tell_when() -> None:
    made = [new_id() for _ in range(1_000)]
    assert made == sorted(made)
    assert len(set(made)) == 1_000
    assert all(type(id_) is UUID and id_.version == 7 for id_ in made)
    assert abs((made[0].int >> 80) / 1_000 - time.time()) < 60
