"""Which columns each kind of message has."""

from __future__ import annotations

from datetime import UTC, datetime

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from dispatchctl.rendering import NOTHING, Column, counts_text, enum_word, iso, moment, relative, span_text
from service_runtime.proto_values import object_of


def _age(task: pb.Task) -> str:
    return relative(task.create_time, datetime.now(UTC))


def status_word(status: pb.TaskStatus.ValueType) -> str:
    """`queued` and so on; a status of a newer scheduler by its number."""
    return enum_word(pb.TaskStatus.Name(status), "TASK_STATUS_") if status in pb.TaskStatus.values() else str(status)


def priority_word(priority: pb.Priority.ValueType) -> str:
    """`P0` to `P2`."""
    return pb.Priority.Name(priority).removeprefix("PRIORITY_") if priority in pb.Priority.values() else str(priority)


def state_word(state: pb.BreakerState.ValueType) -> str:
    """`closed`, `open` or `half_open`."""
    return enum_word(pb.BreakerState.Name(state), "BREAKER_STATE_") if state in pb.BreakerState.values() else str(state)


def run_time(task: pb.Task) -> str:
    """How long its run took, or has been going on."""
    start, end = moment(task.start_time), moment(task.end_time)
    return "" if start is None else span_text((end or datetime.now(UTC)) - start)


def usage_text(usage: Struct) -> str:
    """What was used, such as `completion_tokens 30, prompt_tokens 12`."""
    return ", ".join(f"{name} {_figure(value)}" for name, value in sorted(object_of(usage).items()))


def _figure(value: object) -> str:
    return f"{value:,.15g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def outcome_line(task: pb.Task) -> str:
    """What came of it: the error, else the result's first line."""
    text = task.outcome.error or task.outcome.result
    return next((line for line in text.splitlines() if line.strip()), "")


TASKS: tuple[Column[pb.Task], ...] = (
    ("ID", lambda task: task.id),
    ("STATUS", lambda task: status_word(task.status)),
    ("HOLD", lambda task: task.hold_reason),
    ("PRIO", lambda task: priority_word(task.priority)),
    ("TYPE", lambda task: task.task_type),
    ("AGE", _age),
    ("TITLE", lambda task: task.title),
)
# The longest column comes last, so that it pads no other.
TASKS_WIDE: tuple[Column[pb.Task], ...] = (
    *TASKS[:-1],
    ("BACKEND", lambda task: task.backend),
    ("EXECUTOR", lambda task: task.executor_id),
    ("FAILED TRIES", lambda task: f"{task.tries}/{task.max_tries}"),
    ("RUN", lambda task: task.run_id),
    ("TIME", run_time),
    *TASKS[-1:],
    ("OUTCOME", outcome_line),
)

BREAKERS: tuple[Column[pb.Breaker], ...] = (
    ("KEY", lambda breaker: breaker.key),
    ("STATE", lambda breaker: state_word(breaker.state)),
    ("FAILURES", lambda breaker: str(breaker.failures)),
    ("OPENED", lambda breaker: relative(breaker.opened_time, datetime.now(UTC))),
    ("PROBE", lambda breaker: relative(breaker.retry_time, datetime.now(UTC))),
    # Of a closed one it would be why it was closed once.
    ("REASON", lambda breaker: "" if breaker.state == pb.BREAKER_STATE_CLOSED else breaker.reason),
)
BREAKERS_WIDE: tuple[Column[pb.Breaker], ...] = (
    *BREAKERS[:-1],
    ("GENERATION", lambda breaker: str(breaker.generation)),
    ("LAST FAILURE", lambda breaker: iso(breaker.last_failure_time)),
    ("RETRY TIME", lambda breaker: iso(breaker.retry_time)),
    *BREAKERS[-1:],
)

DECISIONS: tuple[Column[pb.DispatchEvent], ...] = (
    ("ID", lambda event: str(event.id)),
    ("AGE", lambda event: relative(event.time, datetime.now(UTC))),
    ("RESULT", lambda event: "success" if event.success else event.reason),
    ("BACKEND", lambda event: event.backend),
    ("TASK", lambda event: event.task_id),
    ("DETAIL", lambda event: event.detail),
)
DECISIONS_WIDE: tuple[Column[pb.DispatchEvent], ...] = (
    *DECISIONS[:-1],
    ("TIME", lambda event: iso(event.time)),
    ("ATTEMPT", lambda event: "yes" if event.attempt else "no"),
    ("EXECUTOR", lambda event: event.executor_id),
    ("RUN", lambda event: event.run_id),
    *DECISIONS[-1:],
)

TICK_DECISIONS: tuple[Column[pb.DispatchDecision], ...] = (
    ("RESULT", lambda decision: "dispatched" if decision.dispatched else decision.reason or "sent"),
    ("BACKEND", lambda decision: decision.backend),
    ("EXECUTOR", lambda decision: decision.executor_id),
    ("TASK", lambda decision: decision.task_id),
    ("DETAIL", lambda decision: decision.detail),
)

GUARDS: tuple[Column[pb.GuardVerdict], ...] = (
    ("GATE", lambda guard: guard.name),
    ("BACKEND", lambda guard: guard.backend or "all"),
    ("HOLDS", lambda guard: guard.reason if guard.holds else "no"),
    ("VALUE", lambda guard: guard.value),
    ("LIMIT", lambda guard: guard.limit),
    ("CLEARS", lambda guard: relative(guard.clears_time, datetime.now(UTC))),
    ("DETAIL", lambda guard: guard.detail),
)

EXECUTOR_VERDICTS: tuple[Column[pb.ExecutorVerdict], ...] = (
    ("EXECUTOR", lambda verdict: verdict.executor_id),
    ("REFUSES", lambda verdict: verdict.reason or "no"),
    ("VALUE", lambda verdict: verdict.value),
    ("LIMIT", lambda verdict: verdict.limit),
    ("DETAIL", lambda verdict: verdict.detail),
)

SETTINGS: tuple[Column[pb.Setting], ...] = (
    ("SETTING", lambda setting: setting.name),
    ("VALUE", lambda setting: setting.value),
    ("UNIT", lambda setting: setting.unit),
    ("ORIGIN", lambda setting: setting.origin),
    ("SINCE", lambda setting: relative(setting.since_time, datetime.now(UTC))),
    ("ACTOR", lambda setting: setting.actor),
    ("REASON", lambda setting: setting.reason),
)
SETTINGS_WIDE: tuple[Column[pb.Setting], ...] = (
    *SETTINGS[:4],
    ("WITHOUT", lambda setting: setting.value_without_override),
    ("SINCE", lambda setting: iso(setting.since_time)),
    *SETTINGS[5:],
    ("DETAIL", lambda setting: setting.meaning),
)

AUDIT: tuple[Column[pb.AuditEntry], ...] = (
    ("ID", lambda entry: str(entry.id)),
    ("AGE", lambda entry: relative(entry.time, datetime.now(UTC))),
    ("RPC", lambda entry: entry.method),
    ("TARGET", lambda entry: entry.target),
    ("ACTOR", lambda entry: entry.actor),
    ("DETAIL", lambda entry: change_text(entry.detail)),
    ("REASON", lambda entry: entry.reason),
)
AUDIT_WIDE: tuple[Column[pb.AuditEntry], ...] = (
    *AUDIT[:2],
    ("TIME", lambda entry: iso(entry.time)),
    *AUDIT[2:],
    ("REQUEST", lambda entry: entry.request_id),
)


def change_text(detail: Struct) -> str:
    """`value 1800000 -> 600000, origin default -> override`; what stayed as it was by its value alone."""
    fields = MessageToDict(detail)
    before, after = fields.get("before", {}), fields.get("after", {})
    return ", ".join(_change(name, before.get(name), after.get(name)) for name in sorted({*before, *after}))


def _change(name: str, before: object, after: object) -> str:
    was, is_ = (_plain(value) for value in (before, after))
    return f"{name} {is_}" if was == is_ else f"{name} {was} -> {is_}"


def _plain(value: object) -> str:
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


WINDOW_HEADERS = ("WINDOW", "TOTAL", "SUCCESS", "FAILED", "RATE", "REASONS")


def window_row(name: str, window: pb.DispatchWindow) -> tuple[str, ...]:
    """One row of the statistics; the rate is absent while there is nothing to divide."""
    rate = f"{window.rate:.3f}" if window.HasField("rate") else ""
    reasons = counts_text(window.failure_reasons)
    return name, str(window.total), str(window.success), str(window.failed), rate, reasons


def window_rows(stats: pb.GetDispatchStatsResponse) -> list[tuple[str, ...]]:
    """The statistics: each window, its attempts, those by backend and by executor."""
    rows = [window_row("window_1h", stats.window_1h), window_row("attempts", stats.attempts), *_attempt_rows("", stats)]
    for further in stats.windows:
        length = span_text(further.length)
        rows += [window_row(length, further.decisions), window_row(f"{length} attempts", further.attempts)]
        rows += _attempt_rows(f"{length} ", further)
    return rows


def _attempt_rows(prefix: str, stats: pb.GetDispatchStatsResponse | pb.DispatchStatsWindow) -> list[tuple[str, ...]]:
    both = [*sorted(stats.attempts_by_backend.items()), *sorted(stats.attempts_by_executor.items())]
    return [window_row(f"{prefix}attempts {name}", window) for name, window in both]
