"""The status page: what GetStatus says, as plain HTML that needs no script, no style and no other file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from scheduler_service.http.shapes import time_json
from scheduler_service.http.static_files import PAGE_HEADERS

REFRESH_S = 5
HEADERS = {"cache-control": "no-store", **PAGE_HEADERS}


@dataclass(frozen=True, slots=True)
class PageSetup:
    """Where the page and its files lie, and what it may show.

    `read_only`: no actions; `hide_payloads`: nothing that submitters of tasks wrote.
    """

    base_path: str
    static_root: str
    read_only: bool
    hide_payloads: bool


def status_page(status: pb.GetStatusResponse, setup: PageSetup) -> str:
    """The page as HTML; whatever a caller once wrote in it is text.

    What it shows needs no script; where scripts run, `page.js` puts the live page in its place.
    """
    static = f"{setup.base_path}{setup.static_root}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<noscript><meta http-equiv="refresh" content="{REFRESH_S}"></noscript>
<title>{escape(status.mode)} - cecelia-dispatch</title>
<link rel="icon" href="{static}/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{static}/style.css">
<script type="module" src="{static}/page.js"></script>
</head>
<body data-read-only="{_flag(setup.read_only)}" data-hide-payloads="{_flag(setup.hide_payloads)}">
<main id="plain">
<h1>cecelia-dispatch {escape(status.version)}: {escape(status.mode)}</h1>
<p><strong>{escape(status.sentence)}</strong></p>
{_windows(status.stats)}
{_table("Breakers", ("key", "state", "failures", "probe from", "reason"), map(_breaker, status.breakers))}
{_table("Overrides", ("kind", "of", "by", "reason", "since", "until"), map(_override, status.overrides))}
{_table("Slots", ("pool", "budget", "used"), _pools(status.slots))}
{_table("Queue", ("status", "priority", "tasks"), map(_depth, status.queue))}
{_table("Executors", ("executor", "state", "running", "backends", "last heard"), map(_executor, status.executors))}
<p>Last good tick: {_time(status.tick.last_success_time)}; last error: {escape(status.tick.last_error) or "-"}</p>
<p>Without scripts this page reads itself anew every {REFRESH_S} s. The same in a terminal: <code>dispatchctl status</code>;
why a task waits: <code>dispatchctl explain</code>.</p>
</main>
</body>
</html>
"""


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table under a heading; without rows, the word none."""
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>\n" for row in rows)
    if not body:
        return f"<h2>{title}</h2>\n<p>none</p>"
    names = "".join(f'<th scope="col">{name}</th>' for name in head)
    return f"<h2>{title}</h2>\n<table>\n<thead><tr>{names}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _time(stamp: Timestamp) -> str:
    return time_json(stamp) or "-"


def _windows(stats: pb.GetDispatchStatsResponse) -> str:
    named = [("all decisions", stats.window_1h), ("starts", stats.attempts)]
    named += [(f"starts of {name}", stats.attempts_by_backend[name]) for name in sorted(stats.attempts_by_backend)]
    rows = [
        (
            name,
            window.total,
            window.success,
            window.failed,
            f"{window.rate:.1%}" if window.HasField("rate") else "-",
            ", ".join(f"{reason} {n}" for reason, n in sorted(window.failure_reasons.items(), key=lambda item: -item[1])) or "-",
        )
        for name, window in named
    ]
    return _table("The last hour", ("of", "total", "success", "failed", "rate", "reasons"), rows)


def _breaker(breaker: pb.Breaker) -> Sequence[object]:
    state = pb.BreakerState.Name(breaker.state).removeprefix("BREAKER_STATE_")
    return breaker.key, state, breaker.failures, _time(breaker.retry_time), breaker.reason or "-"


def _override(override: pb.Override) -> Sequence[object]:
    until = time_json(override.until_time) or "ended by hand"
    return override.kind, override.scope or "all", override.actor, override.reason, _time(override.since_time), until


def _pools(slots: pb.GetSlotsResponse) -> list[Sequence[object]]:
    return [
        ("people", slots.user.budget, slots.user.used),
        ("internal", slots.internal.budget, slots.internal.used),
        ("tasks", slots.task_pool.budget, slots.task_pool.used),
        *((backend.backend, backend.budget, backend.used) for backend in slots.backends if not backend.local),
    ]


def _depth(depth: pb.QueueDepth) -> Sequence[object]:
    status = pb.TaskStatus.Name(depth.status).removeprefix("TASK_STATUS_").lower()
    return status, pb.Priority.Name(depth.priority).removeprefix("PRIORITY_"), depth.tasks


def _executor(executor: pb.ExecutorStatus) -> Sequence[object]:
    state = "gone" if not executor.live else "stopping" if executor.draining else "live"
    return executor.executor_id, state, executor.running, ", ".join(executor.backends), _time(executor.last_heard_time)
