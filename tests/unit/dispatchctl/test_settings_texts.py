"""How settings and the audit log are typed and shown: spans with units, times in the past, what an override changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from dispatchctl.columns import change_text
from dispatchctl.parameters import PAST, in_milliseconds


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("10m", "600000"),
        ("60m", "3600000"),
        ("1.5s", "1500"),
        ("500ms", "500"),
        ("2d", "172800000"),
        ("600000", "600000"),
        ("0", "0"),
        ("-5", "-5"),
        ("soon", "soon"),
        ("10 minutes", "10 minutes"),
    ],
)
def test_a_span_with_a_unit_is_sent_in_ms_and_all_else_as_it_is(text: str, sent: str) -> None:
    assert in_milliseconds(text) == sent


def test_a_time_in_the_past_is_a_moment_or_how_long_ago() -> None:
    ago = PAST.convert("2h", None, None)
    assert timedelta(hours=2) <= datetime.now(UTC) - ago < timedelta(hours=3)
    assert PAST.convert("2026-01-31T08:00:00Z", None, None) == datetime(2026, 1, 31, 8, tzinfo=UTC)
    with pytest.raises(click.BadParameter, match="yesterday"):
        PAST.convert("yesterday", None, None)


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({"value": "3", "origin": "default"}, {"value": "5", "origin": "override"}, "origin default -> override, value 3 -> 5"),
        ({"slots": None}, {"slots": 2}, "slots - -> 2"),
        ({"enabled": False, "until_idle": False}, {"enabled": True, "until_idle": False}, "enabled no -> yes, until_idle no"),
        ({"status": "queued"}, {"status": "queued", "title": ""}, "status queued, title -"),
        ({}, {}, ""),
    ],
)
def test_an_override_is_shown_by_what_it_changed(before: dict[str, object], after: dict[str, object], text: str) -> None:
    assert change_text(ParseDict({"before": before, "after": after}, Struct())) == text
