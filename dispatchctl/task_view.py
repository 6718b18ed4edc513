"""One task with all that is known of it."""

from __future__ import annotations

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.columns import outcome_line, priority_word, run_time, status_word, usage_text
from dispatchctl.rendering import NOTHING, clean, iso, show, span_text, write
from dispatchctl.session import TABLES, Output, Session


def show_task(session: Session, task: pb.Task) -> None:
    """Prints one task; -o wide adds the fields that are empty, its description and its whole result."""
    if session.output not in TABLES:
        show(session, task, [task], (), name=lambda found: found.id)
        return
    wide = session.output is Output.WIDE
    result = outcome_line(task) if task.outcome.result and not task.outcome.error and not wide else ""
    fields = {
        "id": task.id,
        "title": task.title,
        "status": status_word(task.status),
        "hold": task.hold_reason,
        "priority": priority_word(task.priority),
        "type": task.task_type,
        "skill": task.skill,
        "backend": task.backend,
        "executor": task.executor_id,
        "run": task.run_id,
        "failed tries": f"{task.tries} of {task.max_tries}" if task.tries or wide else "",
        "failed starts": str(task.start_failures) if task.start_failures or wide else "",
        "depends on": ", ".join(task.depends_on),
        "if they fail": "waits" if task.dependency_policy == pb.DEPENDENCY_POLICY_WAIT else "fails" if wide else "",
        "dependents": _dependents(task),
        "created": iso(task.create_time),
        "not before": iso(task.not_before_time),
        "next attempt": iso(task.next_attempt_time),
        "started": iso(task.start_time),
        "ended": iso(task.end_time),
        "run time": run_time(task),
        "time-out": span_text(task.timeout) if wide and task.HasField("timeout") else "",
        "exit status": str(task.outcome.exit_code) if task.outcome.HasField("exit_code") else "",
        "usage": usage_text(task.usage),
        "error": task.outcome.error,
        "result": result,
    }
    for name, value in fields.items():
        if value or (wide and name != "result"):
            write(f"{name:<15}{clean(value) or NOTHING}")
    if wide:
        _write_text("description", task.description)
        _write_text("result", task.outcome.result)


def _dependents(task: pb.Task) -> str:
    more = task.dependents_total - len(task.dependents)
    return ", ".join(task.dependents) + (f" and {more} more" if more > 0 else "")


def _write_text(name: str, text: str) -> None:
    if text:
        write(f"\n{name}:")
        for line in text.splitlines():
            write(f"  {clean(line)}")
