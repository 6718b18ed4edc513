"""The commands about stored tasks: tasks, task, cancel, requeue, edit."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from dispatchctl.api.calls import this_caller
from dispatchctl.bulk_command import TO_CANCEL, TO_REQUEUE, Chosen, change_all, choice
from dispatchctl.client import SchedulerClient
from dispatchctl.columns import TASKS, TASKS_WIDE, status_word
from dispatchctl.completion import ANY_TASK, CHANGEABLE
from dispatchctl.failures import ExitStatus
from dispatchctl.overriding import by_whom
from dispatchctl.parameters import JSON_OBJECT, MOMENT, PRIORITIES, STATUSES, TEXT_FILE, WORDS, SourceText
from dispatchctl.redrawing import show_or_watch, watch_option
from dispatchctl.rendering import clean, json_text, note, show, write
from dispatchctl.session import Output, Session, common_options, new_request_id
from dispatchctl.task_view import show_task
from dispatchctl.waiting import changes

CLEARABLE = ("description", "skill", "payload", "not_before_time")


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
@watch_option
@common_options()
@click.pass_obj
def tasks(
    session: Session,
    statuses: tuple[str, ...],
    task_types: tuple[str, ...],
    priorities: tuple[str, ...],
    limit: int,
    page_token: str,
    interval: float | None,
) -> int:
    """List tasks, newest first.

    \b
    Example:
      dispatchctl tasks --status queued --status running
      dispatchctl tasks --watch
    """
    request = pb.ListTasksRequest(
        page_size=limit,
        page_token=page_token,
        statuses=[STATUSES[status] for status in statuses],
        task_types=task_types,
        priorities=[PRIORITIES[priority.upper()] for priority in priorities],
    )

    def draw(page: pb.ListTasksResponse) -> int:
        show(session, page, page.tasks, TASKS, wide=TASKS_WIDE, name=lambda task: task.id)
        if page.next_page_token and interval is None:
            note(f"there are more: the same once more with --page-token {page.next_page_token}")
        return ExitStatus.DONE

    return show_or_watch(session, interval, lambda client: client.call(client.stub.ListTasks, request), draw)


@click.command()
@click.argument("task_id", metavar="TASK", shell_complete=ANY_TASK)
@click.option("--watch", is_flag=True, help="Follow it until it ends: status 0 completed, 7 not.")
@common_options()
@click.pass_obj
def task(session: Session, task_id: str, watch: bool) -> int:
    """Show one task, or follow it to its end.

    -o wide adds its description and its whole result.

    \b
    Example:
      dispatchctl task 123e4567-e89b-12d3-a456-426614174000 -o json
      dispatchctl task 123e4567-e89b-12d3-a456-426614174000 --watch
    """
    if watch:
        return session.run(lambda client: _follow(client, session, task_id))
    request = pb.GetTaskRequest(task_id=task_id)
    show_task(session, session.run(lambda client: client.call(client.stub.GetTask, request)).task)
    return ExitStatus.DONE


async def _follow(client: SchedulerClient, session: Session, task_id: str) -> int:
    last: pb.Task | None = None
    async for found in changes(client, task_id):
        if session.output is Output.JSONL:
            write(json_text(found, indent=None))
        elif last is None or (last.status, last.hold_reason) != (found.status, found.hold_reason):
            note(f"{status_word(found.status)}{f': {found.hold_reason}' if found.hold_reason else ''}")
        last = found
    if last is None:
        return ExitStatus.FAILED
    if session.output is not Output.JSONL:
        show_task(session, last)
    return ExitStatus.DONE if last.status == pb.TASK_STATUS_COMPLETED else ExitStatus.TASK_FAILED


@click.command()
@choice(TO_CANCEL)
@click.option("--reason", type=WORDS, help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def cancel(session: Session, /, reason: str | None, **choosing: Any) -> int:
    """Stop a task wherever it is, queued or running; or all that match.

    \b
    Example:
      dispatchctl cancel 123e4567-e89b-12d3-a456-426614174000 --yes
      dispatchctl cancel --status queued --type research --dry-run
    """
    chosen = Chosen(**choosing).checked()
    if chosen.task_id is None:
        return change_all(session, chosen, reason, pb.CancelTasksRequest, TO_CANCEL, "cancel")
    return _cancel_one(session, chosen.task_id, reason)


def _cancel_one(session: Session, task_id: str, reason: str | None) -> int:
    session.confirm(f"cancel {task_id}?")
    request = pb.CancelTaskRequest(task_id=task_id, reason=session.reason(reason), request_id=new_request_id())

    async def work(client: SchedulerClient) -> tuple[pb.Task, pb.Task]:
        before = (await client.call(client.stub.GetTask, pb.GetTaskRequest(task_id=task_id))).task
        return before, (await client.call(client.stub.CancelTask, request)).task

    before, after = session.run(work)
    show_task(session, after)
    who = f"{by_whom(request.reason)}, since now, for good"
    if before.status == pb.TASK_STATUS_CANCELLED:
        note("it was cancelled already: nothing has changed")
    elif before.hold_reason == "cancel_requested":
        note("its cancellation was asked for already: nothing has changed")
    elif after.status == pb.TASK_STATUS_CANCELLED:
        note(f"cancelled: {who}")
    else:
        note(f"it will be cancelled when its run has ended: {who}; follow it with: dispatchctl task {after.id} --watch")
    return ExitStatus.DONE


@click.command()
@choice(TO_REQUEUE)
@click.option("--reason", type=WORDS, help="Why; asked for on a terminal.")
@common_options()
@click.pass_obj
def requeue(session: Session, /, reason: str | None, **choosing: Any) -> int:
    """Put a task that ended badly back into the queue; or all that match.

    That is one that is failed, cancelled or quarantined.

    \b
    Example:
      dispatchctl requeue 123e4567-e89b-12d3-a456-426614174000 --reason quota
      dispatchctl requeue --status failed --type research --yes
    """
    chosen = Chosen(**choosing).checked()
    if chosen.task_id is None:
        return change_all(session, chosen, reason, pb.RequeueTasksRequest, TO_REQUEUE, "requeue")
    request = pb.RequeueTaskRequest(task_id=chosen.task_id, reason=session.reason(reason), request_id=new_request_id())
    after = session.run(lambda client: client.call(client.stub.RequeueTask, request)).task
    show_task(session, after)
    note(f"requeued: {by_whom(request.reason)}, since now; why it waits: dispatchctl explain {after.id}")
    return ExitStatus.DONE


@click.command()
@click.argument("task_id", metavar="TASK", shell_complete=CHANGEABLE)
@click.option("--title", help="What is to be done, in a line.")
@click.option("--description", help="The work, so that somebody else could do it.")
@click.option("--description-file", type=TEXT_FILE, metavar="FILE", help="The description from a file; - is standard input.")
@click.option("--priority", type=click.Choice(list(PRIORITIES), case_sensitive=False), help="When it is its turn.")
@click.option("--skill", help="The skill that the command is told of.")
@click.option("--payload", type=JSON_OBJECT, metavar="JSON", help="Further data, a JSON object, in place of the old one.")
@click.option("--not-before", type=MOMENT, metavar="TIME", help="Not to be started before: 2026-01-31T08:00:00Z or +10m.")
@click.option("--clear", multiple=True, type=click.Choice(CLEARABLE), help="Make this empty; repeatable.")
@common_options()
@click.pass_obj
def edit(
    session: Session,
    task_id: str,
    title: str | None,
    description: str | None,
    description_file: SourceText | None,
    priority: str | None,
    skill: str | None,
    payload: Struct | None,
    not_before: datetime | None,
    clear: tuple[str, ...],
) -> int:
    """Change a queued task, or mend a quarantined one.

    A quarantined task goes back into the queue by it.

    \b
    Example:
      dispatchctl edit 123e4567-e89b-12d3-a456-426614174000 --priority p0
      dispatchctl edit 123e4567-e89b-12d3-a456-426614174000 --clear payload
    """
    if description is not None and description_file is not None:
        raise click.UsageError("--description goes not with --description-file")
    given = {
        "title": title,
        "description": description_file.text if description_file is not None else description,
        "priority": PRIORITIES[priority.upper()] if priority is not None else None,
        "skill": skill,
        "payload": payload,
        "not_before_time": not_before,
    }
    values = {name: value for name, value in given.items() if value is not None}
    if both := [name for name in clear if name in values]:
        raise click.UsageError(f"{both[0]} is both given and cleared")
    if not values and not clear:
        raise click.UsageError("nothing is to be changed: name a field, such as --priority p0")
    spec = pb.TaskSpec(**values)  # type: ignore[arg-type]  # each field's own type, as above
    mask = FieldMask(paths=[*values, *clear])
    request = pb.UpdateTaskRequest(task_id=task_id, task=spec, update_mask=mask, request_id=new_request_id())
    after = session.run(lambda client: client.call(client.stub.UpdateTask, request)).task
    show_task(session, after)
    note(f"changed {', '.join(mask.paths)}: by {clean(this_caller())}, since now; why it waits: dispatchctl explain {after.id}")
    return ExitStatus.DONE
