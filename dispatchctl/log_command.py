"""The command `logs`: the output of a run, or of a task's current or last run."""

from __future__ import annotations

import codecs
import sys
from collections.abc import AsyncIterator

import click
from cecelia.executor.v1 import executor_service_pb2 as executor_pb
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.client import ExecutorClient, SchedulerClient
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.rendering import clean, json_text, note, write
from dispatchctl.session import DEFAULT_EXECUTOR, TABLES, Output, Session, common_options
from dispatchctl.waiting import ENDED, changes


@click.command()
@click.argument("subject", metavar="TASK|RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended; wait for one that has not begun.")
@click.option("--offset", type=click.IntRange(0), default=0, metavar="BYTES", help="Leave out so many bytes of the beginning.")
@click.option("--tail", type=click.IntRange(1), metavar="BYTES", help="Only so many bytes of the end, and what follows.")
@common_options(executor=True)
@click.pass_obj
def logs(session: Session, subject: str, follow: bool, offset: int, tail: int | None) -> int:
    """Show the output of a task or of a run.

    That is its standard output and standard error, of a task's current or last run.

    The executor of a task's run is found through the scheduler; --executor names it for a run, or where it is reached otherwise.

    \b
    Example:
      dispatchctl logs 123e4567-e89b-12d3-a456-426614174000 -f
    """
    if follow and session.output is Output.JSON:
        raise click.UsageError("-f goes not with -o json, which is one document; use -o jsonl")
    return session.run(lambda client: _logs(client, session, subject, follow, offset, tail))


async def _logs(client: SchedulerClient, session: Session, subject: str, follow: bool, offset: int, tail: int | None) -> int:
    run_id, address = await _run_of(client, session, subject, follow)
    async with ExecutorClient(address, session.timeout_s) as executor:
        # Has a deadline, which a stream has not that may be silent for long.
        await executor.call(executor.stub.GetRun, executor_pb.GetRunRequest(run_id=run_id))
        request = executor_pb.StreamRunLogsRequest(run_id=run_id, offset=offset, follow=follow, tail_bytes=tail or 0)
        pieces = _whole(executor.stream(executor.stub.StreamRunLogs, request, may_be_silent=True))
        if session.output in TABLES:
            await _write_output(pieces)
        elif session.output is Output.NAME:
            write(run_id)
        elif session.output is Output.JSONL:
            async for piece in pieces:
                write(json_text(piece, indent=None))
        else:
            found = [piece async for piece in pieces]
            begin = found[0].offset if found else offset
            write(json_text(executor_pb.StreamRunLogsResponse(offset=begin, data=b"".join(piece.data for piece in found))))
    return ExitStatus.DONE


async def _whole(
    pieces: AsyncIterator[executor_pb.StreamRunLogsResponse],
) -> AsyncIterator[executor_pb.StreamRunLogsResponse]:
    """The pieces, and a note where something between two of them is no longer kept."""
    expected: int | None = None
    async for piece in pieces:
        if expected is not None and piece.offset > expected:
            note(f"{piece.offset - expected} bytes of the output, from byte {expected} on, were not kept")
        expected = piece.offset + len(piece.data)
        yield piece


async def _write_output(pieces: AsyncIterator[executor_pb.StreamRunLogsResponse]) -> None:
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


async def _run_of(client: SchedulerClient, session: Session, subject: str, follow: bool) -> tuple[str, str]:
    """The run, and its executor's address. What is no task is taken for a run. Raises Failure."""
    try:
        task = (await client.call(client.stub.GetTask, pb.GetTaskRequest(task_id=subject))).task
    except Failure as failure:
        # With the executor named, nothing of the scheduler is needed.
        without = failure.status is ExitStatus.UNREACHABLE and session.executor
        if failure.status is not ExitStatus.NOT_FOUND and not without:
            raise
        return subject, session.executor or DEFAULT_EXECUTOR
    if follow and not task.run_id and task.status not in ENDED:
        note("waiting for its first run")
        async for task in changes(client, subject):
            if task.run_id:
                break
    if not task.run_id:
        remedy = f"wait for one with: dispatchctl logs -f {subject}; why there is none: dispatchctl explain {subject}"
        raise Failure(f"task {subject} has no output", "no_run: it has never been started", remedy, ExitStatus.NOT_FOUND)
    return task.run_id, session.executor or await _executor_of(client, task)


async def _executor_of(client: SchedulerClient, task: pb.Task) -> str:
    status = await client.call(client.stub.GetStatus, pb.GetStatusRequest())
    targets = [executor.target for executor in status.executors if executor.executor_id == task.executor_id]
    if not targets:
        why = f"unknown_executor: the scheduler knows no address of {task.executor_id or 'it'} any more"
        what = f"cannot find the executor of run {task.run_id}"
        raise Failure(what, why, "name it with --executor HOST:PORT", ExitStatus.NOT_FOUND)
    return targets[0]
