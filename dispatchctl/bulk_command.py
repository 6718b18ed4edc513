"""cancel and requeue of all tasks that a filter chooses: counted first, carried out page by page."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.client import SchedulerClient
from dispatchctl.completion import tasks_that_are
from dispatchctl.failures import ExitStatus
from dispatchctl.overriding import by_whom
from dispatchctl.parameters import PRIORITIES, STATUSES
from dispatchctl.progress import Bar, progress
from dispatchctl.rendering import note, show
from dispatchctl.session import Session, new_request_id

F = TypeVar("F", bound=Callable[..., Any])
Response = pb.CancelTasksResponse | pb.RequeueTasksResponse

TO_CANCEL = ("queued", "dispatching", "running", "quarantined")
TO_REQUEUE = ("failed", "cancelled", "quarantined")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which tasks: one by its id, or all that match."""

    task_id: str | None
    statuses: tuple[str, ...]
    task_types: tuple[str, ...]
    priorities: tuple[str, ...]
    everything: bool
    dry_run: bool

    def checked(self) -> Chosen:
        """The same. Raises UsageError for a choice that is none, or two."""
        filtered = bool(self.statuses or self.task_types or self.priorities or self.everything)
        if self.task_id is not None and (filtered or self.dry_run):
            raise click.UsageError("a TASK goes not with --all, --status, --type, --priority or --dry-run")
        if self.task_id is None and not filtered:
            raise click.UsageError("name a TASK, or choose by --status, --type or --priority, or say --all")
        if self.everything and (self.statuses or self.task_types or self.priorities):
            raise click.UsageError("--all goes not with --status, --type or --priority: they choose fewer")
        return self


def choice(statuses: Sequence[str]) -> Callable[[F], F]:
    """The argument TASK, and the options that choose many; the command takes a `Chosen` as `chosen`."""
    options = [
        click.argument("task_id", metavar="[TASK]", required=False, shell_complete=tasks_that_are(*statuses)),
        click.option("--status", "statuses", multiple=True, type=click.Choice(statuses), help="All with these; repeatable."),
        click.option("--type", "task_types", multiple=True, metavar="TYPE", help="All of these types; repeatable."),
        click.option(
            "--priority",
            "priorities",
            multiple=True,
            type=click.Choice(list(PRIORITIES), case_sensitive=False),
            help="All of these; repeatable.",
        ),
        click.option("--all", "everything", is_flag=True, help=f"All that are {', '.join(statuses)}."),
        click.option("--dry-run", is_flag=True, help="Only count them."),
    ]

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def change_all(
    session: Session,
    chosen: Chosen,
    reason: str | None,
    request_type: type[pb.CancelTasksRequest] | type[pb.RequeueTasksRequest],
    every: Sequence[str],
    verb: str,
) -> int:
    """Counts, asks, and changes all that match; one audit entry for each 500."""
    request = request_type(
        statuses=[STATUSES[status] for status in chosen.statuses or every],
        task_types=chosen.task_types,
        priorities=[PRIORITIES[priority.upper()] for priority in chosen.priorities],
        validate_only=True,
    )
    counted = session.run(lambda client: _call(client, request))
    words = "1 task" if counted.matched == 1 else f"{counted.matched:,} tasks"
    if chosen.dry_run or not counted.matched:
        show(session, counted, [counted], _COLUMNS, name=lambda one: str(one.matched))
        note(f"{words} would be looked at: nothing was changed")
        return ExitStatus.DONE
    session.confirm(f"{verb} {words} ({_described(chosen, every)})?")
    request.validate_only = False
    request.reason = session.reason(reason)
    with progress(verb, counted.matched) as bar:
        total = session.run(lambda client: _pages(client, request, bar))
    show(session, total, [total], _COLUMNS, name=lambda one: str(one.changed))
    note(f"{verb}: {total.changed:,} of {words}, {by_whom(request.reason)}, since now")
    if total.skipped:
        note(f"{total.skipped:,} were passed over: they had changed meanwhile, or a prerequisite of theirs ended badly")
    return ExitStatus.DONE


_COLUMNS = (
    ("MATCHED", lambda one: str(one.matched)),
    ("CHANGED", lambda one: str(one.changed)),
    ("SKIPPED", lambda one: str(one.skipped)),
)


def _described(chosen: Chosen, every: Sequence[str]) -> str:
    parts = [f"status {', '.join(chosen.statuses or every)}"]
    if chosen.task_types:
        parts.append(f"type {', '.join(shlex.quote(name) for name in chosen.task_types)}")
    if chosen.priorities:
        parts.append(f"priority {', '.join(chosen.priorities).upper()}")
    return "; ".join(parts)


async def _call(client: SchedulerClient, request: pb.CancelTasksRequest | pb.RequeueTasksRequest) -> Response:
    if isinstance(request, pb.CancelTasksRequest):
        return await client.call(client.stub.CancelTasks, request)
    return await client.call(client.stub.RequeueTasks, request)


async def _pages(client: SchedulerClient, request: pb.CancelTasksRequest | pb.RequeueTasksRequest, bar: Bar) -> Response:
    """All pages as one answer; the bar shows how far they have come."""
    total: Response | None = None
    while True:
        request.request_id = new_request_id()
        page = await _call(client, request)
        if total is None:
            total = page
        else:
            total.changed += page.changed
            total.skipped += page.skipped
        bar.reached(total.changed + total.skipped, f"{total.changed:,} changed")
        if not page.next_page_token:
            total.next_page_token = ""
            return total
        request.page_token = page.next_page_token
