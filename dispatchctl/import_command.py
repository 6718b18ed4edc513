"""The command `import-original`: takes over the original's unfinished tasks."""

from __future__ import annotations

import json

import click
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.json_format import MessageToDict

from dispatchctl.client import SchedulerClient
from dispatchctl.columns import TASKS, TASKS_WIDE
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.original_tasks import UNENDED, Import, batches, convert, read_rows
from dispatchctl.parameters import TEXT_FILE, SourceText
from dispatchctl.rendering import note, show, write
from dispatchctl.session import Session, common_options


@click.command("import-original")
@click.argument("file", type=TEXT_FILE)
@click.option(
    "--status",
    "statuses",
    type=click.Choice(UNENDED),
    multiple=True,
    default=("queued",),
    metavar="STATUS",
    help=f"Of this status there; repeatable; queued by default. One of: {', '.join(UNENDED)}.",
)
@click.option("--dry-run", is_flag=True, help="Print the tasks as a file for submit -f instead.")
@common_options()
@click.pass_obj
def import_original(session: Session, /, file: SourceText, statuses: tuple[str, ...], dry_run: bool) -> int:
    """Take over unfinished tasks of the original from a JSON list of its rows.

    They keep their ids, so that nothing is taken over twice. The rows, at the original's database:
    psql -d cecelia -tAc "SELECT json_agg(t) FROM tasks t" > rows.json

    \b
    Example:
      dispatchctl import-original deploy/examples/original-rows.json --dry-run
    """
    found = convert(read_rows(file.text, file.name), statuses, file.name)
    _tell(found)
    if not found.tasks:
        why = f"nothing_to_import: no row is {' or '.join(statuses)} and has its prerequisites"
        raise Failure("nothing was taken over", why, "name other statuses with --status", ExitStatus.FAILED)
    if dry_run:
        tasks = [MessageToDict(task, preserving_proto_field_name=True) for task in found.tasks]
        write(json.dumps({"tasks": tasks}, indent=2, ensure_ascii=False))
        return ExitStatus.DONE
    stored = session.run(lambda client: _submit(client, found))
    show(session, stored, stored.tasks, TASKS, wide=TASKS_WIDE, name=lambda task: task.id)
    note(f"took over {len(stored.tasks)} tasks")
    return ExitStatus.DONE


async def _submit(client: SchedulerClient, found: Import) -> pb.SubmitTasksResponse:
    stored = pb.SubmitTasksResponse()
    for batch in batches(found.tasks):
        stored.tasks.extend((await client.call(client.stub.SubmitTasks, batch)).tasks)
    return stored


def _tell(found: Import) -> None:
    if found.other_statuses:
        counts = ", ".join(f"{count} {status or 'without a status'}" for status, count in sorted(found.other_statuses.items()))
        note(f"left out by their status: {counts}")
    for id_, before in found.unmet.items():
        note(f"left out: {id_} waits for {before}, which does not come along and has not completed")
