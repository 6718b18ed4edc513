"""Writes the reference pages and the diagrams of docs/ from the code: `python docs/generate.py [FOLDER]` (default docs)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from diagrams import breaker_diagram, check_chain_diagram
from log_lines import LEVELS, MEANINGS, LogLine, log_lines
from prometheus_client import CollectorRegistry

from executor_service.core.failure_classes import CLASS_MEANINGS
from executor_service.metrics import ExecutorMetrics
from executor_service.settings import ExecutorSettings
from scheduler_service.core.billing import END_PAUSES, START_PAUSES
from scheduler_service.core.events import EVENT_SHAPES
from scheduler_service.core.reasons import (
    ATTEMPT_REASONS,
    EXECUTOR_CODE_MEANINGS,
    EXECUTOR_REASON_MAP,
    HOLD_MEANINGS,
    REASON_KINDS,
    REASON_MEANINGS,
)
from scheduler_service.core.routing import DEFAULT_BACKENDS
from scheduler_service.core.tuning import TUNABLES
from scheduler_service.core.verdicts import UNBLAMED_ERROR_CLASSES
from scheduler_service.metrics import SchedulerMetrics
from scheduler_service.settings import SchedulerSettings
from service_runtime.error_reasons import ERROR_REASONS
from service_runtime.metrics import MadeMetric
from service_runtime.settings import ServiceSettings

DOCS = Path(__file__).resolve().parent
NOTE = "Made from the code by `make docs`; a test tells when it is stale."
UNITS = {"_ms": "ms", "_mb": "MiB"}


def page(title: str, *parts: str) -> str:
    """A page of paragraphs and tables."""
    return "\n\n".join([f"# {title}", NOTE, *(part.strip() for part in parts)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def code(text: object) -> str:
    """Text as code; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


# --- settings


def settings_page() -> str:
    """Every environment variable of both services."""
    return page(
        "Settings",
        """
Environment variables; an empty one counts as unset unless said otherwise. Wrong ones are all reported at the start, with what
would be right, and nothing is started. `--check` checks them and ends.
""",
        "## Scheduler",
        """
Those marked `yes` can be changed while it runs, by `dispatchctl settings set` (SetSetting): [how-to-tune.md](how-to-tune.md).
""",
        _settings_table(SchedulerSettings, TUNABLES),
        "## Executor",
        "All of them are read at the start.",
        _settings_table(ExecutorSettings),
    )


def _settings_table(cls: type[ServiceSettings], tunable: Collection[str] = ()) -> str:
    schema: Mapping[str, Any] = cls.model_json_schema()
    rows = []
    for name, shape in schema["properties"].items():
        flat = {**shape, **_flattened(shape, schema.get("$defs", {}))}
        note = "; may be empty" if name in cls.empty_is_a_value else ""
        unit = next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), "")
        row = [code(name.upper()), _default(shape), _bounds(flat), unit, str(shape["description"]) + note]
        rows.append([*row, "yes" if name.upper() in tunable else "no"] if tunable else row)
    return table(["variable", "default", "takes", "unit", "meaning", *(["at run time"] if tunable else [])], rows)


def _flattened(shape: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a schema that says what a value may be: behind a reference, or the one beside null."""
    if "$ref" in shape:
        return dict(definitions[shape["$ref"].rpartition("/")[2]])
    inner: dict[str, Any] = next((part for part in shape.get("anyOf", ()) if part.get("type") != "null"), {})
    return inner


def _default(shape: Mapping[str, Any]) -> str:
    if "default" not in shape:
        return "the host's name"
    value = shape["default"]
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return code(str(value).lower())
    return code(value) or "empty"


def _bounds(shape: Mapping[str, Any]) -> str:
    if "enum" in shape:
        return ", ".join(code(value) for value in shape["enum"])
    if shape["type"] == "boolean":
        return "`true`, `false`"
    if shape["type"] in ("integer", "number"):
        low = shape.get("minimum", shape.get("exclusiveMinimum"))
        kind = "whole number" if shape["type"] == "integer" else "number"
        span = f"{low:,} to" if "minimum" in shape else f"above {low:,}, up to"
        return f"{kind}, {span} {shape['maximum']:,}"
    return "text"


# --- metrics


def metrics_page() -> str:
    """Every metric of both services."""
    backends = DEFAULT_BACKENDS
    scheduler = SchedulerMetrics(CollectorRegistry(), "0", backends).made
    executor = ExecutorMetrics(CollectorRegistry(), "0", sorted(backends)).made
    return page(
        "Metrics",
        """
At `/metrics` on the HTTP address of each service. Histograms have `_bucket`, `_sum` and `_count`. The series of closed sets of
labels are there from the start, at zero.
""",
        "## Scheduler",
        _metrics_table(scheduler),
        "## Executor",
        _metrics_table(executor),
    )


def _metrics_table(made: Iterable[MadeMetric]) -> str:
    rows = [
        [_full_name(metric), metric.kind, "; ".join(_label(*item) for item in metric.labels.items()), metric.help]
        for metric in made
    ]
    return table(["metric", "type", "labels", "meaning"], rows)


def _full_name(metric: MadeMetric) -> str:
    return code(f"{metric.name}_total" if metric.kind == "counter" else metric.name)


def _label(name: str, values: tuple[str, ...] | None) -> str:
    if values is None or name == "version":
        return code(name)
    return f"{code(name)} ({', '.join(value or 'empty' for value in values)})"


# --- codes and events


def reason_codes_page() -> str:
    """Every code that says why something did not happen."""
    reasons = [
        [code(r), REASON_KINDS[r] + (", an attempt" if r in ATTEMPT_REASONS else ""), REASON_MEANINGS[r]] for r in REASON_KINDS
    ]
    holds = [[code(hold), meaning] for hold, meaning in HOLD_MEANINGS.items()]
    answers = [[code(c), code(EXECUTOR_REASON_MAP[c]), meaning] for c, meaning in EXECUTOR_CODE_MEANINGS.items()]
    errors = [[code(reason), meaning] for reason, meaning in ERROR_REASONS.items()]
    return page(
        "Reason codes",
        "## Why a dispatch did not happen",
        """
The same strings in PostgreSQL, JSON, the labels of metrics and `failure_reasons`. Only an attempt feeds the success-rate guard
and the breaker.
""",
        table(["code", "kind", "when"], reasons),
        "## Why one task waits, or was put aside",
        "`hold_reason` of a task; never a gate's hold.",
        table(["code", "status, and why"], holds),
        "## What an executor says at its door",
        "A code that is not listed is recorded as `config_error`.",
        table(["code", "recorded as", "meaning"], answers),
        "## What kind of failure it was",
        """
Told by an answer's status and codes first and by whole phrases last (`executor_service/core/failure_classes.py`), or by the
command itself in `CECELIA_OUTCOME_FILE`. At the start, `billing_cap`, `rate_limit` and `auth` are nobody's failure: they count
nowhere.
""",
        table(["class", "meaning", "pauses the backend, unless a time was named", "an ended run costs a try"], _classes()),
        "## Why a call failed",
        "`ErrorInfo.reason` (domain `dispatch.cecelia`), and `reason` of a problem document.",
        table(["reason", "meaning"], errors),
    )


def _classes() -> Iterable[Sequence[str]]:
    for name, meaning in CLASS_MEANINGS.items():
        pauses = [
            f"{when} for {minutes(table_[name])}"
            for when, table_ in (("at a start", START_PAUSES), ("at an end", END_PAUSES))
            if name in table_
        ]
        yield code(name), meaning, ", ".join(pauses) or "no", "no" if name in UNBLAMED_ERROR_CLASSES else "yes"


def minutes(span: timedelta) -> str:
    """A span for people."""
    return f"{int(span.total_seconds() // 60)} min"


def events_page() -> str:
    """Every type of event."""
    rows = [
        [code(type_), code(shape.source), _listed(shape.always), _listed(shape.sometimes), shape.meaning]
        for type_, shape in EVENT_SHAPES.items()
    ]
    return page(
        "Events",
        """
Over `WatchEvents`, `GET /api/brain/events` and `dispatchctl events`, numbered in the order of commits; a stream that is resumed
after an id misses nothing and tells nothing twice.
""",
        table(["type", "source", "payload", "where it applies", "says"], rows),
    )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(code(word) for word in words)


# --- log lines


def logs_page() -> str:
    """Every line that the services log."""
    rows = [
        [code(line.event), line.level, line.package.removesuffix("_service"), _carried(line), MEANINGS[line.event]]
        for line in log_lines()
    ]
    return page(
        "Log lines",
        """
On standard error, one line an event: with `LOG_FORMAT=json` an object with `event`, `level`, `timestamp` (UTC) and the fields
below, otherwise for the eye (where a traceback has lines of its own). `LOG_LEVEL` says from which level on. A line about one run
has its `task_id` and `run_id` where both are known.
""",
        """
Never in a line: passwords, tokens, and what people submit (titles, descriptions, payloads, results). No field but a traceback is
longer than 2,000 characters, and that has the first line only of what each exception says. Libraries are heard from `warning` on.
""",
        "## Levels",
        table(["level", "means"], [[code(level), meaning] for level, meaning in LEVELS.items()]),
        "## Lines",
        "`service_runtime` is what both services stand on.",
        table(["event", "level", "service", "fields", "says"], rows),
    )


def _carried(line: LogLine) -> str:
    return ", ".join([*map(code, line.fields), *(["a traceback"] if line.traceback else [])])


# --- runbooks


def runbooks_page() -> str:
    """The pages of the alerts, each with what it says of itself first."""
    rows = []
    for path in sorted((DOCS / "runbooks").glob("Cecelia*.md")):
        heading, said, *_ = path.read_text(encoding="utf-8").split("\n\n")
        rows.append([f"[{heading.removeprefix('# ')}]({path.name})", " ".join(said.split())])
    return page(
        "Runbooks",
        "A page for each alert of `deploy/prometheus/rules/`: what it means, what to look at, what to do, how it clears.",
        table(["alert", "in short"], rows),
    )


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "reason-codes.md": reason_codes_page,
    "events.md": events_page,
    "logs.md": logs_page,
    "runbooks/index.md": runbooks_page,
    "images/breaker.svg": breaker_diagram,
    "images/check-chain.svg": check_chain_diagram,
}


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    for name, make in PAGES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(make(), encoding="utf-8")
