"""The command `logs`: the output of a run, or of a task's current or last run."""

from __future__ import annotations

import codecs
import contextlib
import sys
from collections.abc import AsyncIterator

import click
from cecelia.executor.v1 import executor_service_pb2 as executor_pb
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.client import ExecutorClient, SchedulerClient
from dispatchctl.completion import ANY_TASK
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.rendering import clean, json_text, note, write
from dispatchctl.session import DEFAULT_EXECUTOR, TABLES, Output, Session, common_options
from dispatchctl.waiting import ENDED

Piece = executor_pb.StreamRunLogsResponse | pb.StreamTaskLogsResponse


@click.command()
@click.argument("subject", metavar="TASK|RUN", shell_complete=ANY_TASK)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended; wait for one that has not begun.")
@click.option("--offset", type=click.IntRange(0), default=0, metavar="BYTES", help="Leave out so many bytes of the beginning.")
@click.option("--tail", type=click.IntRange(1), metavar="BYTES", help="Only so many bytes of the end, and what follows.")
@common_options(executor=True)
@click.pass_obj
def logs(session: Session, subject: str, follow: bool, offset: int, tail: int | None) -> int:
    """Show the output of a task or of a run.

    That is its standard output and standard error, of a task's current or last run.

    A task's comes through the scheduler; a run's from the executor, which --executor names.

    \b
    Example:
      dispatchctl logs 123e4567-e89b-12d3-a456-426614174000 -f
    """
    if follow and session.output is Output.JSON:
        raise click.UsageError("-f goes not with -o json, which is one document; use -o jsonl")
    return session.run(lambda client: _logs(client, session, subject, follow, offset, tail))


async def _logs(client: SchedulerClient, session: Session, subject: str, follow: bool, offset: int, tail: int | None) -> int:
    async with contextlib.AsyncExitStack() as stack:
        pieces = await _pieces_of(client, session, subject, follow, offset, tail or 0, stack)
        await _show(session, _whole(pieces), subject, offset)
    return ExitStatus.DONE


async def _pieces_of(
    client: SchedulerClient,
    session: Session,
    subject: str,
    follow: bool,
    offset: int,
    tail_bytes: int,
    stack: contextlib.AsyncExitStack,
) -> AsyncIterator[Piece]:
    """The output of a task, through the scheduler; of what is no task, as a run's, from the executor. Raises Failure."""
    try:
        task = (await client.call(client.stub.GetTask, pb.GetTaskRequest(task_id=subject))).task
    except Failure as failure:
        # With the executor named, nothing of the scheduler is needed.
        without = failure.status is ExitStatus.UNREACHABLE and session.executor
        if failure.status is not ExitStatus.NOT_FOUND and not without:
            raise
        executor = await stack.enter_async_context(ExecutorClient(session.executor or DEFAULT_EXECUTOR, session.timeout_s))
        # Has a deadline, which a stream has not that may be silent for long.
        await executor.call(executor.stub.GetRun, executor_pb.GetRunRequest(run_id=subject))
        of_run = executor_pb.StreamRunLogsRequest(run_id=subject, offset=offset, follow=follow, tail_bytes=tail_bytes)
        return executor.stream(executor.stub.StreamRunLogs, of_run, may_be_silent=True)
    if follow and not task.run_id and task.status not in ENDED:
        note("waiting for its first run")
    of_task = pb.StreamTaskLogsRequest(task_id=subject, offset=offset, follow=follow, tail_bytes=tail_bytes)
    return client.stream(client.stub.StreamTaskLogs, of_task, may_be_silent=True)


async def _show(session: Session, pieces: AsyncIterator[Piece], subject: str, offset: int) -> None:
    if session.output in TABLES:
        await _write_output(pieces)
    elif session.output is Output.JSONL:
        async for piece in pieces:
            write(json_text(piece, indent=None))
    else:
        found = [piece async for piece in pieces]
        whole = found[0] if found else pb.StreamTaskLogsResponse(offset=offset)
        whole.data = b"".join(piece.data for piece in found)
        write(getattr(whole, "run_id", "") or subject if session.output is Output.NAME else json_text(whole))


async def _whole(
    pieces: AsyncIterator[Piece],
) -> AsyncIterator[Piece]:
    """The pieces, and a note where something between two of them is no longer kept."""
    expected: int | None = None
    async for piece in pieces:
        if expected is not None and piece.offset > expected:
            note(f"{piece.offset - expected} bytes of the output, from byte {expected} on, were not kept")
        expected = piece.offset + len(piece.data)
        yield piece


async def _write_output(pieces: AsyncIterator[Piece]) -> None:
    """Byte for byte where a program reads; for a terminal without what would steer it."""
    if not sys.stdout.isatty():
        async for piece in pieces:
            sys.stdout.buffer.write(piece.data)
            sys.stdout.buffer.flush()
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    async for piece in pieces:
        *lines, rest = (rest + decoder.decode(piece.data)).split("\n")
        for line in lines:
            write(harmless(line))
    if rest := rest + decoder.decode(b"", final=True):
        write(harmless(rest))


def harmless(line: str) -> str:
    """A line of output with its blanks, without control characters."""
    return "".join(char if char in " \t" else clean(char) for char in line.rstrip("\r"))
