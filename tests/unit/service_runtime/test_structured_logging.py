"""What becomes of a log line: one line, capped, and without what an exception quotes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SETUP = """
import logging, structlog
from service_runtime.structured_logging import configure_logging
configure_logging({format!r}, "debug")
log = structlog.get_logger("ours")
"""


def lines(code: str, format_: str = "json") -> list[str]:
    """What a process of its own writes: logging is set up once for a whole process."""
    script = SETUP.format(format=format_) + code
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return done.stderr.splitlines()


def event(code: str) -> dict[str, Any]:
    (line,) = lines(code)
    read: dict[str, Any] = json.loads(line)
    return read


def test_an_event_is_one_line_with_its_level_time_and_fields() -> None:
    told = event("log.info('leading', term=3, why='a\\nb\\rc')")
    assert (told["event"], told["level"], told["term"], told["why"]) == ("leading", "info", 3, "a\\nb\\rc")
    assert told["timestamp"].endswith("Z")


def test_a_long_value_is_capped() -> None:
    assert event("log.debug('long', value='x' * 5000)")["value"] == "x" * 2000 + "…"


def test_for_the_eye_it_is_one_line_too() -> None:
    (line,) = lines("log.warning('tick_failed', error='a\\nb')", "console")
    assert "tick_failed" in line
    assert "a\\nb" in line


def test_a_traceback_has_the_first_line_of_each_exception_and_no_row() -> None:
    told = event(
        """
def broken():
    try:
        raise ValueError("no such thing\\nDETAIL: Failing row contains (secret one)")
    except ValueError as error:
        raise RuntimeError("so it broke\\nsecret two") from error
try:
    broken()
except RuntimeError as error:
    log.error("tick_broke", exc_info=error)
"""
    )
    text = told["exception"]
    assert "secret" not in text
    assert text.index("builtins.ValueError: no such thing") < text.index("builtins.RuntimeError: so it broke")
    assert "in broken" in text


def test_a_group_tells_of_each_of_its_exceptions() -> None:
    told = event("log.error('x', exc_info=ExceptionGroup('two', [ValueError('one\\nsecret'), KeyError('other')]))")
    assert "  | builtins.ValueError: one" in told["exception"]
    assert "  | builtins.KeyError: 'other'" in told["exception"]
    assert "secret" not in told["exception"]


def test_an_exception_that_says_nothing_or_much() -> None:
    assert event("log.error('x', exc_info=ValueError())")["exception"].endswith("builtins.ValueError: ")
    assert event("log.error('x', exc_info=ValueError('y' * 5000))")["exception"].endswith("y…")


def test_a_context_that_is_suppressed_is_not_told() -> None:
    told = event(
        """
try:
    try:
        raise KeyError("inner")
    except KeyError:
        raise ValueError("outer") from None
except ValueError as error:
    log.error("x", exc_info=error)
"""
    )
    assert "outer" in told["exception"]
    assert "inner" not in told["exception"]


def test_libraries_are_heard_from_warning_on() -> None:
    told = lines(
        "for name in ('httpx', 'any'):\n    logging.getLogger(name).info('secret')\nlogging.getLogger('any').warning('heard')"
    )
    assert [json.loads(line)["event"] for line in told] == ["heard"]
