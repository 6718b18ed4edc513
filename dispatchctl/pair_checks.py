"""What `doctor` looks at in a running scheduler and its executors. What is gathered is judged by functions without I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from cecelia.executor.v1 import executor_service_pb2 as executor_pb
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.client import ExecutorClient, SchedulerClient, is_serving
from dispatchctl.failures import Failure
from dispatchctl.findings import Finding, ok, problem, problem_of, skipped, warning
from dispatchctl.host_checks import room_finding
from dispatchctl.rendering import moment, relative, span_text
from dispatchctl.up_plan import DEFAULT_DATA_DIR, reachable
from service_runtime.clock import Clock
from service_runtime.lifecycle import split_address

DISTRIBUTION = "cecelia-dispatch"
CLOCK_OFFSET = timedelta(seconds=2)
OVERRIDE_AGE = timedelta(days=1)
# Ticks that may be missed before the tick counts as standing still, and the least time that this is.
MISSED_TICKS = 3
TICK_LEAST = timedelta(seconds=15)
HOLDING_MODES = frozenset({"held", "draining"})
DATABASE_SILENT = "STORAGE_UNAVAILABLE"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class ExecutorAnswer:
    """What an executor said when asked from here, or why it did not; `took` is how long its answer was under way."""

    target: str
    said: executor_pb.CheckAvailabilityResponse | Failure
    asked: datetime
    took: timedelta


@dataclass(frozen=True, slots=True)
class Asked:
    """A scheduler's status with this machine's clock as it was asked, and how long the answer was under way."""

    status: pb.GetStatusResponse
    asked: datetime
    took: timedelta


async def pair_findings(client: SchedulerClient, environ: Mapping[str, str], clock: Clock) -> list[Finding]:
    """Looks at the scheduler of a client, and at each executor that it names."""
    begun, asked = clock.monotonic(), clock.now()
    try:
        status = await client.call(client.stub.GetStatus, pb.GetStatusRequest())
    except Failure as failure:
        return silent_findings(client.address, failure)
    found = Asked(status, asked, timedelta(seconds=clock.monotonic() - begun))
    targets = targets_from_here(client.address, [executor.target for executor in status.executors])
    serving, answers = await asyncio.gather(
        is_serving(client.address, client.timeout_s), _ask_executors(targets, client.timeout_s, clock)
    )
    return [
        ok("scheduler", "reachable", f"{client.address} answers"),
        serving_finding(client.address, serving=serving),
        *version_findings(version(DISTRIBUTION), status.version, answers),
        ok("database", "answers", f"the scheduler read its status within {span_text(found.took)}"),
        *leader_findings(status),
        *executor_findings(status, answers),
        *backend_findings(status, answers),
        *dispatch_findings(status),
        *clock_findings(found, answers),
        *override_findings(status),
        *_disk_findings(client.address, environ),
    ]


def targets_from_here(scheduler: str, targets: Sequence[str]) -> list[str]:
    """The targets that mean the same executor here as for the scheduler: loopback on another machine is none of them."""
    near = _is_loopback(scheduler)
    return [target for target in targets if target and (near or not _is_loopback(target))]


def _is_loopback(address: str) -> bool:
    return split_address(address)[0] in _LOOPBACK


async def _ask_executors(targets: Sequence[str], timeout_s: float, clock: Clock) -> list[ExecutorAnswer]:
    async def ask(target: str) -> ExecutorAnswer:
        async with ExecutorClient(reachable(target), timeout_s, "EXECUTOR_TARGETS of the scheduler") as client:
            begun, asked = clock.monotonic(), clock.now()
            said: executor_pb.CheckAvailabilityResponse | Failure
            try:
                said = await client.call(client.stub.CheckAvailability, executor_pb.CheckAvailabilityRequest())
            except Failure as failure:
                said = failure
            return ExecutorAnswer(target, said, asked, timedelta(seconds=clock.monotonic() - begun))

    return list(await asyncio.gather(*(ask(target) for target in targets)))


def silent_findings(address: str, failure: Failure) -> list[Finding]:
    """Judges a scheduler that gave no status: it is away, or it is there without its database."""
    if failure.why.startswith(DATABASE_SILENT):
        remedy = "start the database; read the log of the scheduler, which says what it cannot reach"
        return [
            ok("scheduler", "reachable", f"{address} answers"),
            problem("database", "answers", failure.why, remedy),
        ]
    return [problem_of("scheduler", "reachable", failure)]


def serving_finding(address: str, *, serving: bool) -> Finding:
    """Judges the health check."""
    if serving:
        return ok("scheduler", "serving", "its health check says SERVING")
    remedy = "read the log of the scheduler, and /readyz on its HTTP address, which says why"
    return problem("scheduler", "serving", f"the health check of {address} does not say SERVING", remedy)


def version_findings(own: str, scheduler: str, executors: Sequence[ExecutorAnswer]) -> list[Finding]:
    """Judges whether this program, the scheduler and the executors are of one version."""
    found = {"dispatchctl": own, "scheduler": scheduler}
    for answer in executors:
        if isinstance(answer.said, executor_pb.CheckAvailabilityResponse):
            found[f"executor {answer.target}"] = answer.said.version
    if len(set(found.values())) == 1:
        return [ok("versions", "equal", f"all are {own}")]
    detail = ", ".join(f"{who} {which or 'unknown'}" for who, which in found.items())
    return [warning("versions", "equal", detail, "update what is older; executors first, then schedulers")]


def leader_findings(status: pb.GetStatusResponse) -> list[Finding]:
    """Judges whether somebody leads, and whether the tick goes on."""
    if not status.leader and not status.leader_address:
        return [problem("leader", "there", "no replica leads", "see the log of each scheduler; a leader is found within seconds")]
    where = "this replica leads" if status.leader else f"{status.leader_address} leads"
    found = [ok("leader", "there", f"{where}, term {status.term}")]
    if status.leader and not status.tick.enabled:
        remedy = "unset TICK_ENABLED, or change it: dispatchctl settings set TICK_ENABLED true"
        return [*found, warning("leader", "ticking", "TICK_ENABLED is false: only dispatchctl tick starts tasks", remedy)]
    now, last = moment(status.scheduler_time), moment(status.tick.last_success_time)
    patience = max(MISSED_TICKS * status.tick.interval.ToTimedelta(), TICK_LEAST)
    error = f"; it says: {status.tick.last_error}" if status.tick.last_error else ""
    if last is None or (now is not None and now - last > patience):
        age = "none has succeeded yet" if last is None or now is None else f"the last one succeeded {span_text(now - last)} ago"
        return [*found, problem("leader", "ticking", f"{age}{error}", "read the log of the leader; try one: dispatchctl tick")]
    if error:
        detail = f"the last tick failed{error}"
        return [*found, warning("leader", "ticking", detail, "read the log of the leader; look again in a few seconds")]
    return [*found, ok("leader", "ticking", f"last {relative(status.tick.last_success_time, now or last)}")]


def executor_findings(status: pb.GetStatusResponse, answers: Sequence[ExecutorAnswer]) -> list[Finding]:
    """Judges whether the scheduler hears each executor, and whether each answers from here."""
    if not status.executors:
        return [problem("executors", "there", "the scheduler knows none", "name them in EXECUTOR_TARGETS of the scheduler")]
    from_here = {answer.target: answer.said for answer in answers}
    found: list[Finding] = []
    for executor in status.executors:
        name, said = executor.executor_id or executor.target, from_here.get(executor.target)
        reason = f"; from here: {said.why}" if isinstance(said, Failure) else ""
        if not executor.live:
            detail = f"the scheduler does not hear {executor.target}{reason}"
            remedy = "start it, or correct EXECUTOR_TARGETS; one that is gone for good is left out there"
            found.append(problem("executors", name, detail, remedy))
        elif executor.draining:
            remedy = "start it again where it is stopping; what it runs goes on until EXECUTOR_DRAIN_MS is over"
            found.append(warning("executors", name, "it drains and takes no new runs", remedy))
        elif isinstance(said, Failure):
            remedy = "run this where the scheduler runs, to see its offset and its backends"
            found.append(warning("executors", name, f"the scheduler hears it{reason}", remedy))
        else:
            found.append(ok("executors", name, f"heard, {executor.running} running"))
    return found


def backend_findings(status: pb.GetStatusResponse, answers: Sequence[ExecutorAnswer]) -> list[Finding]:
    """Judges whether each executor's backends are set up rightly, as it says itself, else as the scheduler has heard."""
    from_here = {answer.target: answer.said for answer in answers}
    found: list[Finding] = []
    for executor in status.executors:
        said, name = from_here.get(executor.target), executor.executor_id or executor.target
        if isinstance(said, executor_pb.CheckAvailabilityResponse):
            right = [backend.backend for backend in said.backends if backend.configured]
            wrong = {backend.backend: backend.detail for backend in said.backends if not backend.configured}
        else:
            right, wrong = list(executor.backends), {one.backend: one.detail for one in executor.misconfigured}
        found += [ok("backends", f"{backend} on {name}", "is configured") for backend in right]
        for backend, detail in wrong.items():
            remedy = "mend it on that executor, and start the executor again; or leave it out of EXECUTOR_BACKENDS"
            found.append(problem("backends", f"{backend} on {name}", f"config_error: {detail}", remedy))
    return found


def dispatch_findings(status: pb.GetStatusResponse) -> list[Finding]:
    """Tells what keeps tasks from being started, and which breakers are not closed. Either may be meant, and is no problem."""
    if status.mode in HOLDING_MODES:
        found = [
            warning("dispatch", "starts", status.sentence, "see every gate: dispatchctl explain; docs/how-to/troubleshoot.md")
        ]
    else:
        found = [ok("dispatch", "starts", status.sentence)]
    now = moment(status.scheduler_time)
    for breaker in status.breakers:
        if breaker.state != pb.BREAKER_STATE_CLOSED and now is not None:
            state = pb.BreakerState.Name(breaker.state).removeprefix("BREAKER_STATE_")
            detail = f"{state}, opened {relative(breaker.opened_time, now)}: {breaker.reason}"
            remedy = f"mend the backend, then: dispatchctl reset {breaker.key}; why: dispatchctl history --reason executor_failed"
            found.append(warning("dispatch", f"breaker {breaker.key}", detail, remedy))
    return found


def clock_findings(found: Asked, answers: Sequence[ExecutorAnswer]) -> list[Finding]:
    """Judges how far the clocks of database and executors are from the scheduler's.

    Each is compared with this machine's as it was asked; what the answers were under way is allowed for.
    """
    scheduler, database = moment(found.status.scheduler_time), moment(found.status.database_time)
    if scheduler is None or database is None:
        return [skipped("clocks", "offset", "the scheduler is older and does not tell its clock")]
    rows = [_clock_finding("database", database - scheduler, found.took)]
    for answer in answers:
        told = moment(answer.said.executor_time) if isinstance(answer.said, executor_pb.CheckAvailabilityResponse) else None
        if told is not None:
            offset = (told - answer.asked) - (scheduler - found.asked)
            rows.append(_clock_finding(f"executor {answer.target}", offset, found.took + answer.took))
    return rows


def _clock_finding(who: str, offset: timedelta, unsure: timedelta) -> Finding:
    side = "behind" if offset < timedelta() else "ahead of"
    words = f"{span_text(offset)} {side} the scheduler's, give or take {span_text(unsure)}"
    if abs(offset) - unsure > CLOCK_OFFSET:
        remedy = "set both machines' clocks by NTP: see timedatectl"
        return warning("clocks", who, f"its clock is {words}: retry times and ages are wrong by so much", remedy)
    return ok("clocks", who, f"its clock is {words}")


def override_findings(status: pb.GetStatusResponse) -> list[Finding]:
    """Names the overrides that have been in force for longer than a day."""
    now = moment(status.scheduler_time)
    old: list[Finding] = []
    for override in status.overrides:
        since = moment(override.since_time)
        if now is not None and since is not None and now - since > OVERRIDE_AGE:
            name = f"{override.kind} {override.scope}".rstrip()
            detail = f"for {span_text(now - since)} by {override.actor}: {override.reason}"
            old.append(warning("overrides", name, detail, f"end it if it is forgotten: {_ending(override)}"))
    return old or [ok("overrides", "age", f"none of {len(status.overrides)} in force is older than a day")]


def _ending(override: pb.Override) -> str:
    match override.kind:
        case "drain":
            return f"dispatchctl drain off --source {override.scope}"
        case "billing_pause":
            return f"dispatchctl billing clear{f' --backend {override.scope}' if override.scope else ''}"
        case "budget_cap":
            return "dispatchctl cap off"
        case _:
            return f"dispatchctl reset {override.scope}"


def _disk_findings(address: str, environ: Mapping[str, str]) -> list[Finding]:
    if not _is_loopback(address):
        return [skipped("disk", "data folder", "the scheduler is on another machine: run this there")]
    folder = Path(environ.get("DISPATCH_DATA_DIR") or DEFAULT_DATA_DIR).expanduser()
    if not folder.is_dir():
        return [skipped("disk", "data folder", f"{folder} is not there: name the scheduler's with DISPATCH_DATA_DIR")]
    return [room_finding("DISPATCH_DATA_DIR", folder)]
