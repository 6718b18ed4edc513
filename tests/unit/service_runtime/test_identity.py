"""Who calls, as far as a call says so."""

from __future__ import annotations

import pytest

from service_runtime.identity import ACTOR_METADATA, actor_of


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (None, "ipv4:1"),
        ((), "ipv4:1"),
        ((("other", "x"),), "ipv4:1"),
        (((ACTOR_METADATA, "ada@host"),), "ada@host (ipv4:1)"),
        (((ACTOR_METADATA, b"bytes"),), "ipv4:1"),
        (((ACTOR_METADATA, " \n\x1b[31m "),), "[31m (ipv4:1)"),
        (((ACTOR_METADATA, "x" * 500),), f"{'x' * 64} (ipv4:1)"),
    ],
)
def test_an_actor_has_the_name_it_gives_itself_and_its_peer(metadata: object, expected: str) -> None:
    assert actor_of(metadata, "ipv4:1") == expected  # type: ignore[arg-type]  # cases of all kinds
