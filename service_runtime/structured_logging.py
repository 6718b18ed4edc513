"""One line an event on standard error, JSON or for the eye; lines of libraries go the same way."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

VALUE_MAX_CHARS = 2_000
Format = Literal["json", "console"]
Level = Literal["debug", "info", "warning", "error"]


def _capped(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No value is longer than a screen, and none but a traceback breaks the line."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            flat = value.replace("\n", "\\n").replace("\r", "\\r")
            event[key] = flat if len(flat) <= VALUE_MAX_CHARS else flat[:VALUE_MAX_CHARS] + "…"
    return event


def configure_logging(format_: Format, level: Level) -> None:
    """Sets logging up for the process; called once, by its main."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
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
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(getattr(logging, level.upper()))
    for noisy in ("uvicorn", "uvicorn.error", "httpx", "httpcore", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # A pool that cannot reach its database says so on every try; we say it once, in words.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
