"""Tables and texts on a terminal: they fit, numbers stay whole, and nothing that others wrote steers it."""

from __future__ import annotations

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from rich.cells import cell_len

from dispatchctl import rendering
from dispatchctl.columns import BREAKERS, DECISIONS, DECISIONS_WIDE, WINDOW_HEADERS, window_row
from dispatchctl.rendering import clean, cut, table_text

REASONS = {"executor_failed": 30, "pre_flight_check_failed": 12, "draining": 4, "no_slots": 3, "circuit_open": 2}
WINDOW = pb.DispatchWindow(total=12345, success=12300, failed=45, rate=0.996, failure_reasons=REASONS)
ID = "123e4567-e89b-12d3-a456-426614174000"


def at_width(monkeypatch: pytest.MonkeyPatch, width: int | None) -> None:
    monkeypatch.setattr(rendering, "terminal_width", lambda: width)


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_table_fits_and_its_numbers_are_whole(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    at_width(monkeypatch, width)
    rows = [window_row("window_1h", WINDOW), window_row("attempts cecelia-run", WINDOW)]
    lines = table_text(WINDOW_HEADERS, rows).splitlines()
    assert max(cell_len(line) for line in lines) <= width
    for line in lines[1:]:
        assert "12345  12300    45      0.996" in line
    assert lines[0].split() == list(WINDOW_HEADERS)
    assert "execut" in lines[1]


def test_names_are_cut_after_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    headers, row = ("ID", "PRIO", "TITLE"), (ID, "P1", "Tidy the importer and the exporter")
    at_width(monkeypatch, 60)
    assert ID in table_text(headers, [row])
    at_width(monkeypatch, 40)
    line = table_text(headers, [row]).splitlines()[1]
    assert cell_len(line) <= 40
    assert line.startswith("123e4567")
    assert "P1" in line


def test_numbers_that_do_not_fit_stay_whole_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    at_width(monkeypatch, 20)
    assert "12345  12300    45      0.996" in table_text(WINDOW_HEADERS, [window_row("window_1h", WINDOW)])


def test_nothing_is_cut_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    at_width(monkeypatch, None)
    assert "circuit_open 2" in table_text(WINDOW_HEADERS, [window_row("window_1h", WINDOW)])


def test_the_longest_column_comes_last_so_that_it_pads_no_other() -> None:
    assert DECISIONS_WIDE[-1] == DECISIONS[-1]
    assert len({header for header, _ in DECISIONS_WIDE}) == len(DECISIONS_WIDE)


def test_a_closed_breaker_has_no_reason_for_its_state() -> None:
    cells = dict(BREAKERS)
    assert cells["REASON"](pb.Breaker(state=pb.BREAKER_STATE_CLOSED, reason="mended")) == ""
    assert cells["REASON"](pb.Breaker(state=pb.BREAKER_STATE_OPEN, reason="maintenance")) == "maintenance"


@pytest.mark.parametrize("text", ["👩‍💻", "❤️", "naïve", "修复"])
def test_signs_are_kept(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize("sign", ["\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\u200e", "\u200b", "\ufeff", "\U000e0041"])
def test_what_steers_a_terminal_or_turns_a_line_is_shown_as_such(sign: str) -> None:
    assert clean(f"a{sign}b") == "a\N{REPLACEMENT CHARACTER}b"


def test_a_cut_text_is_as_wide_as_it_may_be() -> None:
    assert cut("abcdef", 4) == "abc…"
    assert cut("abcdef", 6) == cut("abcdef", None) == "abcdef"
    assert cell_len(cut("修复登录页面", 5)) <= 5
