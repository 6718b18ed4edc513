"""One line an event on standard error, JSON or for the eye; lines of libraries go the same way."""

from __future__ import annotations

import logging
import sys
import textwrap
import traceback
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

VALUE_MAX_CHARS = 2_000
CHAIN_MAX = 10
Format = Literal["json", "console"]
Level = Literal["debug", "info", "warning", "error"]


def _capped(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No value is longer than a screen, and none but a traceback breaks the line."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            flat = value.replace("\n", "\\n").replace("\r", "\\r")
            event[key] = flat if len(flat) <= VALUE_MAX_CHARS else flat[:VALUE_MAX_CHARS] + "…"
    return event


def _told(exc_info: structlog.typing.ExcInfo) -> str:
    """A traceback with the first line of what each exception says: what follows may be a row, with somebody's work in it."""
    error: BaseException | None = exc_info[1]
    told: list[str] = []
    while error is not None and len(told) < CHAIN_MAX:
        told.append(_one_told(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(reversed(told))


def _one_told(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    first = first if len(first) <= VALUE_MAX_CHARS else first[:VALUE_MAX_CHARS] + "…"
    lines = ["Traceback (most recent call last):", *traceback.format_tb(error.__traceback__)]
    lines.append(f"{type(error).__module__}.{type(error).__qualname__}: {first}")
    text = "\n".join(line.rstrip("\n") for line in lines)
    parts = error.exceptions[:CHAIN_MAX] if isinstance(error, BaseExceptionGroup) else ()
    return "\n".join([text, *(textwrap.indent(_one_told(part), "  | ") for part in parts)])


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Ours, or a library's warning: below that libraries tell what they send, addresses with passwords among it."""
    return record.levelno >= logging.WARNING or hasattr(record, "_logger")


def configure_logging(format_: Format, level: Level) -> None:
    """Sets logging up for the process; called once, by its main."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(_told),
        _capped,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if format_ == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_worth_a_line)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(getattr(logging, level.upper()))
    # A pool that cannot reach its database says so on every try; we say it once, in words.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
