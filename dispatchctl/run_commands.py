"""The commands that ask an executor: runs, run, resources, backends."""

from __future__ import annotations

from datetime import UTC, datetime

import click
from cecelia.executor.v1 import executor_service_pb2 as pb

from dispatchctl.columns import usage_text
from dispatchctl.failures import ExitStatus
from dispatchctl.rendering import NOTHING, Column, clean, enum_word, iso, moment, relative, show, span_text, write
from dispatchctl.session import TABLES, Output, Session, common_options


def state_word(run: pb.Run) -> str:
    """`accepted`, `running`, `ended` or `refused`."""
    return enum_word(pb.RunState.Name(run.state), "RUN_STATE_") if run.state in pb.RunState.values() else str(run.state)


def outcome_word(run: pb.Run) -> str:
    """How it ended, such as `completed`; '' while it has not."""
    if not run.outcome:
        return ""
    known = run.outcome in pb.RunOutcome.values()
    return enum_word(pb.RunOutcome.Name(run.outcome), "RUN_OUTCOME_") if known else str(run.outcome)


def verdict_word(run: pb.Run) -> str:
    """The start verdict with its reason; '' while it is not known."""
    if not run.start_verdict:
        return ""
    known = run.start_verdict in pb.StartVerdict.values()
    word = enum_word(pb.StartVerdict.Name(run.start_verdict), "START_VERDICT_") if known else str(run.start_verdict)
    return f"{word}: {run.start_reason}" if run.start_reason else word


def kind_word(backend: pb.BackendAvailability) -> str:
    """`shared` or `per_executor`; '' while it is not known."""
    known = backend.kind in pb.BackendKind.values() and backend.kind
    return enum_word(pb.BackendKind.Name(backend.kind), "BACKEND_KIND_") if known else ""


def run_time(run: pb.Run) -> str:
    """How long it took, or has been going on."""
    start, end = moment(run.start_time), moment(run.end_time)
    return "" if start is None else span_text((end or datetime.now(UTC)) - start)


RUNS: tuple[Column[pb.Run], ...] = (
    ("RUN", lambda run: run.run_id),
    ("STATE", state_word),
    ("OUTCOME", outcome_word),
    ("BACKEND", lambda run: run.backend),
    ("AGE", lambda run: relative(run.accept_time, datetime.now(UTC))),
    ("TIME", run_time),
    ("TASK", lambda run: run.task_id),
)
RUNS_WIDE: tuple[Column[pb.Run], ...] = (
    *RUNS,
    ("START", verdict_word),
    ("EXIT", lambda run: str(run.exit_code) if run.HasField("exit_code") else ""),
    ("ERROR", lambda run: run.error),
)
BACKENDS: tuple[Column[pb.BackendAvailability], ...] = (
    ("BACKEND", lambda backend: backend.backend),
    ("AVAILABLE", lambda backend: "yes" if backend.available else backend.reason),
    ("CONFIGURED", lambda backend: "yes" if backend.configured else "no"),
    ("RUNS", lambda backend: f"{backend.running}/{backend.max_runs}" if backend.max_runs else str(backend.running)),
    ("LIMIT", lambda backend: "slots" if backend.local else "its own"),
    ("KIND", kind_word),
    ("DETAIL", lambda backend: backend.detail),
)


@click.command()
@click.option("--live", is_flag=True, help="Only those that have not ended.")
@common_options(executor=True)
@click.pass_obj
def runs(session: Session, live: bool) -> int:
    """List the runs that an executor knows, newest first.

    \b
    Example:
      dispatchctl runs --live --executor 127.0.0.1:50052
    """
    request = pb.ListRunsRequest(live_only=live)
    found = session.run_with_executor(lambda client: client.call(client.stub.ListRuns, request))
    show(session, found, found.runs, RUNS, wide=RUNS_WIDE, name=lambda run: run.run_id)
    return ExitStatus.DONE


@click.command()
@click.argument("run_id", metavar="RUN")
@common_options(executor=True)
@click.pass_obj
def run(session: Session, run_id: str) -> int:
    """Show one run as its executor knows it.

    -o wide adds its whole result.

    \b
    Example:
      dispatchctl run 123e4567-e89b-12d3-a456-426614174000
    """
    request = pb.GetRunRequest(run_id=run_id)
    found = session.run_with_executor(lambda client: client.call(client.stub.GetRun, request)).run
    if session.output not in TABLES:
        show(session, found, [found], (), name=lambda one: one.run_id)
        return ExitStatus.DONE
    wide = session.output is Output.WIDE
    fields = {
        "run": found.run_id,
        "task": found.task_id,
        "state": state_word(found),
        "start": verdict_word(found),
        "start detail": found.start_detail,
        "outcome": outcome_word(found),
        "backend": found.backend,
        "accepted": iso(found.accept_time),
        "started": iso(found.start_time),
        "ended": iso(found.end_time),
        "run time": run_time(found),
        "exit status": str(found.exit_code) if found.HasField("exit_code") else "",
        "signal": str(found.signal) if found.HasField("signal") else "",
        "usage": usage_text(found.usage),
        "error": found.error,
        "try again": iso(found.retry_time),
    }
    for name, value in fields.items():
        if value or wide:
            write(f"{name:<14}{clean(value) or NOTHING}")
    if wide and found.result:
        write("\nresult:")
        for line in found.result.splitlines():
            write(f"  {clean(line)}")
    return ExitStatus.DONE


@click.command()
@common_options(executor=True)
@click.pass_obj
def resources(session: Session) -> int:
    """Show what an executor's machine can take now.

    \b
    Example:
      dispatchctl resources -o json
    """
    request = pb.CheckResourcesRequest()
    found = session.run_with_executor(lambda client: client.call(client.stub.CheckResources, request))
    if session.output not in TABLES:
        show(session, found, [found], (), name=lambda one: "ok" if one.ok else "refuses")
        return ExitStatus.DONE
    write("it takes local runs" if found.ok else f"it takes no local runs: {clean(found.reason)}")
    seats = f"{found.max_seats} by memory, cores and ceiling"
    write(f"slots     {found.effective_slots} at this pressure, {seats}; {found.running} running")
    if found.ok and found.admission_reason:
        write(f"no more   {clean(found.admission_reason)}")
    load = f"{found.cpu_usage_pct:.0f} % of {found.cpu_cores:g} cores, load {found.load_avg_1m:.2f}"
    write(f"cpu       {load}, {_pressure(found.cpu_pressure)}")
    write(f"memory    {found.free_mem_mb} of {found.total_mem_mb} MiB free, {_pressure(found.mem_pressure)}")
    write(f"swap      {found.swap_used_pct:.0f} % used, {_pressure(found.swap_pressure)}")
    write(f"sessions  {found.headed_sessions} at a terminal, {found.headless_sessions} without")
    write(f"measured  {relative(found.sample_time, datetime.now(UTC)) or 'not yet'}")
    return ExitStatus.DONE


def _pressure(pressure: float) -> str:
    return f"pressure {pressure:.2f}"


@click.command()
@common_options(executor=True)
@click.pass_obj
def backends(session: Session) -> int:
    """List an executor's backends, and which could take a run.

    \b
    Example:
      dispatchctl backends
    """
    request = pb.CheckAvailabilityRequest()
    found = session.run_with_executor(lambda client: client.call(client.stub.CheckAvailability, request))
    show(session, found, found.backends, BACKENDS, name=lambda backend: backend.backend)
    return ExitStatus.DONE
