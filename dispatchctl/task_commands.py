"""The commands about tasks: submit, tasks, task, cancel, requeue."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TextIO

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import ParseDict

from dispatchctl.batch_file import load_batch
from dispatchctl.client import SchedulerClient
from dispatchctl.columns import TASKS, TASKS_WIDE, outcome_line, priority_word, run_time, status_word
from dispatchctl.failures import ExitStatus
from dispatchctl.parameters import DURATION, JSON_OBJECT, MOMENT, PRIORITIES, STATUSES
from dispatchctl.rendering import NOTHING, clean, iso, note, show, write
from dispatchctl.session import Output, Session, caller, common_options, new_request_id
from dispatchctl.waiting import wait_for_end

SEE_TASKS = "dispatchctl tasks"


@click.command()
@click.option("--title", help="What is to be done, in a line.")
@click.option("--description", help="The work, so that somebody else could do it.")
@click.option("--description-file", type=click.File(encoding="utf-8"), help="The description from a file; - is standard input.")
@click.option("--type", "task_type", default="", metavar="TYPE", help="Routes the task to a backend; dev by default.")
@click.option("--priority", type=click.Choice(list(PRIORITIES), case_sensitive=False), help="P1 by default.")
@click.option("--skill", default="", help="The skill that the command is told of.")
@click.option("--payload", type=JSON_OBJECT, metavar="JSON", help="Further data, a JSON object.")
@click.option("--depends-on", multiple=True, metavar="TASK", help="A task that must have completed before; repeatable.")
@click.option("--max-tries", type=click.IntRange(1, 100), help="Executions that it may fail; 3 by default.")
@click.option("--timeout", "run_timeout", type=DURATION, metavar="DURATION", help="When a run is ended; 1h by default.")
@click.option("--not-before", type=MOMENT, metavar="TIME", help="Not to be started before: 2026-01-31T08:00:00Z or +10m.")
@click.option("--id", "task_id", default="", metavar="UUID", help="The task's id; one is made by default.")
@click.option("--request-id", metavar="ID", help="Repeating a submission with the same id answers with the first one's task.")
@click.option("--file", "file", type=click.File(encoding="utf-8"), help="A batch of tasks as JSON instead; - is standard input.")
@click.option("--wait", is_flag=True, help="Follow it until it ends: status 0 completed, 7 not, 6 held by a gate.")
@click.option("--max-hold", type=DURATION, default="10s", metavar="DURATION", help="With --wait: a gate may hold it so long.")
@common_options(timeout=False)
@click.pass_obj
def submit(
    session: Session,
    /,
    title: str | None,
    description: str | None,
    description_file: TextIO | None,
    file: TextIO | None,
    request_id: str | None,
    wait: bool,
    max_hold: float,
    **fields: Any,
) -> int:
    """Submit a task, or a batch of them.

    \b
    dispatchctl submit --title "Tidy it" --description "Split it by table." --wait
    dispatchctl submit --file tasks.json -o name
    """
    request_id = request_id or new_request_id()
    if file is not None:
        if title is not None or wait:
            raise click.UsageError("--file goes neither with --title nor with --wait")
        batch = pb.SubmitTasksRequest(request_id=request_id)
        batch.tasks.extend(load_batch(file.read(), file.name, request_id).tasks)
        stored = session.run(lambda client: client.call(client.stub.SubmitTasks, batch))
        show(session, stored, stored.tasks, TASKS, wide=TASKS_WIDE, name=lambda task: task.id)
        return ExitStatus.DONE
    if title is None:
        raise click.UsageError("--title is missing (or --file for a batch)")
    if description is not None and description_file is not None:
        raise click.UsageError("--description goes not with --description-file")
    text = description_file.read() if description_file is not None else description or ""
    request = pb.SubmitTaskRequest(task=_spec(title, text, **fields), request_id=request_id)
    return session.run(lambda client: _submit(client, session, request, max_hold if wait else None))


def _spec(
    title: str,
    description: str,
    *,
    task_type: str,
    priority: str | None,
    skill: str,
    payload: dict[str, Any] | None,
    depends_on: tuple[str, ...],
    max_tries: int | None,
    run_timeout: float | None,
    not_before: datetime | None,
    task_id: str,
) -> pb.TaskSpec:
    spec = pb.TaskSpec(
        task_id=task_id,
        title=title,
        description=description,
        task_type=task_type,
        priority=PRIORITIES[priority.upper()] if priority else pb.PRIORITY_UNSPECIFIED,
        skill=skill,
        depends_on=depends_on,
        max_tries=max_tries or 0,
    )
    if payload is not None:
        ParseDict(payload, spec.payload)
    if run_timeout is not None:
        spec.timeout.FromMilliseconds(round(run_timeout * 1000))
    if not_before is not None:
        spec.not_before_time.FromDatetime(not_before)
    return spec


async def _submit(client: SchedulerClient, session: Session, request: pb.SubmitTaskRequest, max_hold: float | None) -> int:
    task = (await client.call(client.stub.SubmitTask, request)).task
    if max_hold is None:
        show_task(session, task)
        note(f"see it with: dispatchctl task {task.id}")
        return ExitStatus.DONE
    note(f"submitted {task.id}; Ctrl-C stops waiting, not the task")
    task, held = await wait_for_end(client, task, max_hold, note)
    show_task(session, task)
    if held is not None:
        raise held
    return ExitStatus.DONE if task.status == pb.TASK_STATUS_COMPLETED else ExitStatus.TASK_FAILED


def show_task(session: Session, task: pb.Task) -> None:
    """Prints one task with all that is known of it."""
    if session.output in (Output.JSON, Output.JSONL, Output.NAME):
        show(session, task, [task], (), name=lambda found: found.id)
        return
    fields = {
        "id": task.id,
        "title": task.title,
        "status": status_word(task.status),
        "hold": task.hold_reason,
        "priority": priority_word(task.priority),
        "type": task.task_type,
        "backend": task.backend,
        "executor": task.executor_id,
        "run": task.run_id,
        "failed tries": f"{task.tries} of {task.max_tries}",
        "depends on": ", ".join(task.depends_on),
        "created": iso(task.create_time),
        "next attempt": iso(task.next_attempt_time),
        "started": iso(task.start_time),
        "ended": iso(task.end_time),
        "run time": run_time(task),
        "exit status": str(task.outcome.exit_code) if task.outcome.HasField("exit_code") else "",
        "error": task.outcome.error,
        "result": outcome_line(task) if not task.outcome.error else "",
    }
    for name, value in fields.items():
        if value or session.output is Output.WIDE:
            write(f"{name:<13}{clean(value) or NOTHING}")
    if session.output is Output.WIDE and task.outcome.result:
        write("")
        for line in task.outcome.result.splitlines():
            write(clean(line))


@click.command()
@click.option("--status", "statuses", multiple=True, type=click.Choice(list(STATUSES)), help="Only these; repeatable.")
@click.option("--type", "task_types", multiple=True, metavar="TYPE", help="Only these; repeatable.")
@click.option(
    "--priority",
    "priorities",
    multiple=True,
    type=click.Choice(list(PRIORITIES), case_sensitive=False),
    help="Only these; repeatable.",
)
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="At most so many.")
@click.option("--page-token", default="", help="The next_page_token of the page before.")
@common_options()
@click.pass_obj
def tasks(
    session: Session,
    statuses: tuple[str, ...],
    task_types: tuple[str, ...],
    priorities: tuple[str, ...],
    limit: int,
    page_token: str,
) -> int:
    """List tasks, newest first.

    \b
    dispatchctl tasks --status queued --status running
    """
    request = pb.ListTasksRequest(
        page_size=limit,
        page_token=page_token,
        statuses=[STATUSES[status] for status in statuses],
        task_types=task_types,
        priorities=[PRIORITIES[priority.upper()] for priority in priorities],
    )
    page = session.run(lambda client: client.call(client.stub.ListTasks, request))
    show(session, page, page.tasks, TASKS, wide=TASKS_WIDE, name=lambda task: task.id)
    if page.next_page_token:
        note(f"more with: dispatchctl tasks --page-token {page.next_page_token}")
    return ExitStatus.DONE


@click.command()
@click.argument("task_id", metavar="TASK")
@common_options()
@click.pass_obj
def task(session: Session, task_id: str) -> int:
    """Show one task; -o wide adds its whole result.

    \b
    dispatchctl task 123e4567-e89b-12d3-a456-426614174000 -o json
    """
    request = pb.GetTaskRequest(task_id=task_id)
    found = session.run(lambda client: client.call(client.stub.GetTask, request, see=SEE_TASKS))
    show_task(session, found.task)
    return ExitStatus.DONE


@click.command()
@click.argument("task_id", metavar="TASK")
@click.option("--reason", help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def cancel(session: Session, task_id: str, reason: str | None) -> int:
    """Stop a task wherever it is, queued or running.

    \b
    dispatchctl cancel 123e4567-e89b-12d3-a456-426614174000 --yes
    """
    session.confirm(f"cancel {task_id}?")
    request = pb.CancelTaskRequest(task_id=task_id, reason=session.reason(reason), request_id=new_request_id())
    after = session.run(lambda client: client.call(client.stub.CancelTask, request, see=SEE_TASKS)).task
    show_task(session, after)
    ended = after.status == pb.TASK_STATUS_CANCELLED
    note(
        f"{'cancelled' if ended else 'will be cancelled when its run has ended'}: by {caller()}, {request.reason}, now, for good"
    )
    return ExitStatus.DONE


@click.command()
@click.argument("task_id", metavar="TASK")
@click.option("--reason", help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def requeue(session: Session, task_id: str, reason: str | None) -> int:
    """Put a failed, cancelled or quarantined task back into the queue.

    \b
    dispatchctl requeue 123e4567-e89b-12d3-a456-426614174000 --reason quota
    """
    request = pb.RequeueTaskRequest(task_id=task_id, reason=session.reason(reason), request_id=new_request_id())
    after = session.run(lambda client: client.call(client.stub.RequeueTask, request, see=SEE_TASKS)).task
    show_task(session, after)
    note(f"requeued: by {caller()}, {request.reason}, now; why it waits: dispatchctl explain {after.id}")
    return ExitStatus.DONE
