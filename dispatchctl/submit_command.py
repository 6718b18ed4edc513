"""The command `submit`: one task, or a file of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Any

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.struct_pb2 import Struct

from dispatchctl.batch_file import load_batch
from dispatchctl.client import SchedulerClient
from dispatchctl.columns import TASKS, TASKS_WIDE, status_word
from dispatchctl.completion import ANY_TASK
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.parameters import DURATION, JSON_OBJECT, MOMENT, POLICIES, POSITIVE_DURATION, PRIORITIES, TEXT_FILE, SourceText
from dispatchctl.progress import progress
from dispatchctl.rendering import counts_text, note, show
from dispatchctl.session import Session, common_options, new_request_id
from dispatchctl.task_view import show_task
from dispatchctl.waiting import ENDED, wait_for_all, wait_for_end


@click.command()
@click.option("--title", help="What is to be done, in a line.")
@click.option("--description", help="The work, so that somebody else could do it.")
@click.option("--description-file", type=TEXT_FILE, metavar="FILE", help="The description from a file; - is standard input.")
@click.option("--type", "task_type", default="", metavar="TYPE", help="Routes the task to a backend; dev by default.")
@click.option("--priority", type=click.Choice(list(PRIORITIES), case_sensitive=False), help="P1 by default.")
@click.option("--skill", default="", help="The skill that the command is told of.")
@click.option("--payload", type=JSON_OBJECT, metavar="JSON", help="Further data, a JSON object.")
@click.option(
    "--depends-on",
    multiple=True,
    metavar="TASK",
    shell_complete=ANY_TASK,
    help="A task that must have completed before; repeatable.",
)
@click.option(
    "--dependency-policy",
    type=click.Choice(list(POLICIES)),
    help="What a prerequisite that ended badly does to it; fail by default.",
)
@click.option("--max-tries", type=click.IntRange(1, 100), help="Executions that it may fail; 3 by default.")
@click.option(
    "--timeout", "run_timeout", type=POSITIVE_DURATION, metavar="DURATION", help="When a run is ended: at most 7d; 1h by default."
)
@click.option("--not-before", type=MOMENT, metavar="TIME", help="Not to be started before: 2026-01-31T08:00:00Z or +10m.")
@click.option("--id", "task_id", default="", metavar="UUID", help="The task's id; one is made by default.")
@click.option("--request-id", metavar="ID", help="Repeating a submission with the same id answers with the first one's task.")
@click.option(
    "-f", "--file", "file", type=TEXT_FILE, metavar="FILE", help="A batch of tasks as JSON instead; - is standard input."
)
@click.option("--wait", is_flag=True, help="Follow it to its end: status 0 completed, 7 not (one of a batch), 6 held by a gate.")
@click.option("--max-hold", type=DURATION, default="10s", metavar="DURATION", help="With --wait: a gate may hold it so long.")
@common_options(timeout=False)
@click.pass_obj
def submit(
    session: Session,
    /,
    title: str | None,
    description: str | None,
    description_file: SourceText | None,
    file: SourceText | None,
    request_id: str | None,
    wait: bool,
    max_hold: float,
    **fields: Any,
) -> int:
    """Submit a task, or a batch of them.

    \b
    Example:
      dispatchctl submit --title "Tidy it" --description "Split it up" --wait
      dispatchctl submit -f deploy/examples/tasks.json -o name
    """
    request_id = request_id or new_request_id()
    hold = max_hold if wait else None
    if file is not None:
        _refuse_task_options()
        batch = pb.SubmitTasksRequest(request_id=request_id)
        batch.tasks.extend(load_batch(file.text, file.name, request_id).tasks)
        return session.run(lambda client: _submit_batch(client, session, batch, hold))
    if title is None:
        raise click.UsageError("--title is missing (or -f for a batch)")
    if description is not None and description_file is not None:
        raise click.UsageError("--description goes not with --description-file")
    text = description_file.text if description_file is not None else description or ""
    request = pb.SubmitTaskRequest(task=_spec(title, text, **fields), request_id=request_id)
    return session.run(lambda client: _submit_one(client, session, request, hold))


def _refuse_task_options() -> None:
    """A file's tasks are as the file says: an option that would be passed over is a mistake."""
    context = click.get_current_context()
    allowed = {"file", "request_id", "wait", "max_hold"}
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in allowed and parameter.expose_value:
            raise click.UsageError(f"-f goes not with {parameter.opts[0]}: the file says what the tasks are")


def _spec(
    title: str,
    description: str,
    *,
    task_type: str,
    priority: str | None,
    skill: str,
    payload: Struct | None,
    depends_on: tuple[str, ...],
    dependency_policy: str | None,
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
        payload=payload,
        depends_on=depends_on,
        dependency_policy=POLICIES[dependency_policy] if dependency_policy else pb.DEPENDENCY_POLICY_UNSPECIFIED,
        max_tries=max_tries or 0,
    )
    if run_timeout is not None:
        spec.timeout.FromMilliseconds(round(run_timeout * 1000))
    if not_before is not None:
        spec.not_before_time.FromDatetime(not_before)
    return spec


async def _submit_one(client: SchedulerClient, session: Session, request: pb.SubmitTaskRequest, hold: float | None) -> int:
    task = (await client.call(client.stub.SubmitTask, request)).task
    held: Failure | None = None
    if hold is not None:
        note(f"submitted {task.id}; Ctrl-C stops waiting, not the task")
        task, held = await wait_for_end(client, task, hold, note)
    show_task(session, task)
    if held is not None:
        raise held
    if hold is None and task.status not in ENDED:
        note(f"see it with: dispatchctl task {task.id}")
    return _concluded([task])


async def _submit_batch(client: SchedulerClient, session: Session, request: pb.SubmitTasksRequest, hold: float | None) -> int:
    stored = await client.call(client.stub.SubmitTasks, request)
    held: Failure | None = None
    if hold is not None:
        note(f"submitted {len(stored.tasks)} tasks; Ctrl-C stops waiting, not the tasks")
        tasks, held = await _wait_for_batch(client, list(stored.tasks), hold)
        stored = pb.SubmitTasksResponse(tasks=tasks)
    show(session, stored, stored.tasks, TASKS, wide=TASKS_WIDE, name=lambda task: task.id)
    if held is not None:
        raise held
    return _concluded(list(stored.tasks))


async def _wait_for_batch(client: SchedulerClient, tasks: list[pb.Task], hold: float) -> tuple[list[pb.Task], Failure | None]:
    """The tasks at last, and what holds them; a bar shows how far they have come."""
    with progress("waiting", len(tasks)) as bar:

        def seen(now: Collection[pb.Task]) -> None:
            left = Counter(status_word(task.status) for task in now if task.status not in ENDED)
            bar.reached(len(now) - left.total(), counts_text(left))

        return await wait_for_all(client, tasks, hold, bar.say, seen)


def _concluded(tasks: list[pb.Task]) -> int:
    """The exit status of what is known to have ended. Raises Failure when a task has ended badly, be it at once."""
    badly = [task for task in tasks if task.status in ENDED and task.status != pb.TASK_STATUS_COMPLETED]
    if not badly:
        return ExitStatus.DONE
    first = badly[0]
    more = f"; {len(badly) - 1} more ended badly" if len(badly) > 1 else ""
    why = first.outcome.error or f"it is {status_word(first.status)}"
    raise Failure(
        f"task {first.id} is {status_word(first.status)}{more}",
        f"{first.hold_reason or 'task_failed'}: {why}",
        f"see all of it: dispatchctl task {first.id} -o wide; once mended: dispatchctl requeue {first.id}",
        ExitStatus.TASK_FAILED,
    )
