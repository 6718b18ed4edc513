"""Ids stand in the order of their making."""

from __future__ import annotations

import time
from uuid import UUID

import pytest

from service_runtime.ids import id_of, id_text, new_id


def test_ids_stand_in_the_order_of_their_making_and_tell_when() -> None:
    made = [new_id() for _ in range(1_000)]
    assert made == sorted(made)
    assert len(set(made)) == 1_000
    assert all(type(id_) is UUID and id_.version == 7 for id_ in made)
    assert abs((made[0].int >> 80) / 1_000 - time.time()) < 60


def test_an_id_is_written_and_read() -> None:
    id_ = new_id()
    assert id_of(id_text(id_)) == id_
    assert id_text(id_) == str(id_)
    assert type(id_of(str(id_))) is UUID


@pytest.mark.parametrize(
    "text", ["", "x", "123e4567-e89b-12d3-a456-42661417400", "no uuid at all, but a text of some length: " * 9]
)
def test_what_is_no_id_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no UUID") as error:
        id_of(text)
    assert repr(text[:40]) in str(error.value)
    assert len(str(error.value)) < 60
