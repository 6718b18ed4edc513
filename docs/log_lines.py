"""Every line that the services log, read from their code: its event, level and fields; and what each means, told here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("scheduler_service", "executor_service", "service_runtime")
LEVELS = {
    "error": "something is wrong that does not mend itself, or a fault of ours: look at it",
    "warning": "something failed and is tried again, or goes on with less: look at it when it repeats",
    "info": "what a service does once in a while: it starts, stops, leads, migrates",
    "debug": "each rpc, and what repeats while something is away",
}

MEANINGS = {
    "backend_failed": "a backend raised an error that it must not raise; its run counts as lost",
    "backend_misconfigured": "a backend is set up wrongly (`config_error`); told once, until it changes",
    "backend_name_taken": "several distributions offer a backend of this name; the others are ignored",
    "backend_not_closed": "a plug-in could not be closed at the stop",
    "backend_not_made": "a plug-in could not be loaded; its tasks get `config_error`",
    "background_work_failed": "a part that runs as long as the service has ended: the service stops",
    "call_failed_after_its_caller_had_gone": "an rpc's work failed when nobody waited for it any more",
    "cancel_not_written": "the reason for a run's end could not be left for its guard; the run is ended all the same",
    "cleanup_failed": "a step of the stop failed; the others were taken",
    "database_answers": "the database answers (again)",
    "database_lost": "the database does not answer; told once, until it does",
    "database_not_there_yet": "at the start the database is tried for 30 s",
    "dispatch_unanswered": "claimed runs were sent and nobody answered; the same runs are sent again",
    "executor_disowns_runs": "an executor does not know runs that it had accepted: their tasks wait for the leases to run out",
    "executor_housekeeping_failed": "renewing leases or comparing runs with an executor failed; tried again",
    "executor_replay_incomplete": "an executor named fewer runs than it said, one may be unreadable: none is ended as missing",
    "executor_id_taken": "two executors have the same `EXECUTOR_ID`: the second is not used",
    "executor_message_unreadable": "an executor sent what this version cannot read: versions too far apart?",
    "executor_reports_not_stored": "what an executor reported could not be stored; it is kept and tried again",
    "executor_snapshot_not_stored": "an executor's snapshot could not be stored; the stream is opened anew",
    "executor_started": "the executor serves",
    "executor_stopped": "the executor has stopped",
    "executor_stream_lost": "an executor does not answer; tried again (the events `executor_down` and `executor_up` say it once)",
    "final_not_journalled": "a run's end is reported, and could not be written to disk",
    "guard_died": "the guard process of a run died; what was below it has been ended, and the run counts as lost",
    "housekeeping_put_off": "old runs could not be forgotten; tried again in 10 min",
    "initdb": "a new embedded PostgreSQL is made",
    "internal_error": "a fault of ours in a call; `id` is in what the caller was told",
    "journal_failed": "the journal cannot be written: nothing is accepted",
    "journal_left_over_removed": "the folder of a run that was never accepted was removed",
    "journal_not_written": "a change could not be written to the journal; what waited for it has been told",
    "journal_record_unreadable": "a run's record cannot be read; the run is not known any more",
    "journal_taken_over": "a journal of the older format, a file a run, has become part of the present one",
    "launch_not_noted": "a command was launched behind the bridge, and after a restart the executor would not know of it",
    "leader_lease_not_asked": "the database could not be asked who leads; tried again",
    "leader_lease_not_resigned": "the lease could not be given back at the stop; it runs out by itself",
    "leadership_not_begun": "the lease was got, and the first work failed; tried again",
    "leadership_taken_over": "another replica has taken the lead, as this one was too slow",
    "leading": "this replica leads from now on",
    "lease_not_renewed": "a run's lease could not be noted; the run ends if that goes on",
    "leases_not_looked_at": "expired leases could not be looked for; tried again",
    "maintenance_put_off": "old rows could not be deleted; tried again in 10 min",
    "metrics_not_observed": "the state could not be read for the metrics; they stay as they are",
    "migrated": "the schema was brought up to date",
    "not_leading": "this replica does not lead any more",
    "partitions_missing": "a decision fell on a day without a partition (a clock that jumps?); it was made",
    "postgres_died": "the embedded PostgreSQL died; it is started again",
    "postgres_is_back": "the embedded PostgreSQL answers again",
    "postgres_keeps_reading_capability": "PostgreSQL's user cannot read its programs without a capability; it keeps that one",
    "postgres_recovers": "the embedded PostgreSQL recovers after it was killed; that may take some minutes",
    "reader_cut_off": "somebody took nothing of an HTTP answer for 30 s; a stream is resumed when its reader asks again",
    "removing_stale_pid_file": "a killed PostgreSQL left its pid file",
    "resources_not_measured": "the machine could not be measured; told once. Without a sample nothing is accepted",
    "rpc": "an rpc has ended",
    "run_not_cancelled": "a plug-in could not end a run when asked to",
    "run_not_ended": "a plug-in could not say that nothing of a run is left",
    "run_not_taken_up_yet": "after a restart a run's folder could not be written; tried again",
    "scheduler_started": "the scheduler serves",
    "scheduler_stopped": "the scheduler has stopped",
    "task_row_unreadable": "a task's row cannot be read (changed by hand?); it is passed over, the others go on",
    "tick_broke": "a tick failed by a fault of ours; the next one is tried",
    "tick_failed": "a tick was taken back, as the database did not answer",
    "vacuum_notice": "what PostgreSQL says about freeing the room of deleted rows, as of tables that are not the role's own",
    "variables_ignored": "PG* variables count only with `DATABASE_URL`",
    "waiting_for_earlier_postgres": "an earlier PostgreSQL on the folder is still stopping",
    "waiting_tasks_mended": "tasks that waited for prerequisites had a wrong count of them (changed by hand?); it was set right",
    "work_begun_anew": "a part of the service failed and is begun anew after a pause",
    "work_does_not_end": "a backend's work goes on although its run was ended",
    "work_failed_after_its_time": "a backend's work failed after its run had ended",
}


@dataclass(frozen=True, slots=True, order=True)
class LogLine:
    """A line that a service logs; `fields` in the order of the code, without the traceback."""

    event: str
    level: str
    package: str
    fields: tuple[str, ...]
    traceback: bool


def log_lines() -> list[LogLine]:
    """Those of all services, each once."""
    return sorted({line for name in PACKAGES for path in (ROOT / name).rglob("*.py") for line in _lines_of(path, name)})


def _lines_of(path: Path, package: str) -> Iterator[LogLine]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not _is_logger(node.func.value):
            continue
        event = node.args[0] if len(node.args) == 1 else None
        if not isinstance(event, ast.Constant) or None in {keyword.arg for keyword in node.keywords}:
            raise ValueError(f"{path}:{node.lineno}: a log line has its event as a word, and fields by name only")
        fields = tuple(keyword.arg for keyword in node.keywords if keyword.arg and keyword.arg != "exc_info")
        traceback = any(keyword.arg == "exc_info" for keyword in node.keywords)
        yield LogLine(str(event.value), node.func.attr, package, fields, traceback)


def _is_logger(value: ast.expr) -> bool:
    return (isinstance(value, ast.Name) and value.id == "_log") or (
        isinstance(value, ast.Call) and ast.unparse(value.func).endswith("get_logger")
    )
