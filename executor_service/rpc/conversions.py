"""Messages to values and back: the only place where the executor's answers take their wire form."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

from cecelia.executor.v1 import executor_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from executor_service.core.admission import SWAP_MAX_PCT, ResourceReport, half_up
from executor_service.core.reservation import Room
from executor_service.core.run import BackendKind, RunOutcome, RunRecord, RunSpec, RunState, StartVerdict
from service_runtime.field_checks import FieldChecker
from service_runtime.proto_values import object_of, set_struct, set_timestamp, span_of, timestamp

TITLE_MAX_CHARS = 500
DESCRIPTION_MAX_BYTES = 256 * 1024
PAYLOAD_MAX_BYTES = 512 * 1024  # a Struct's own size; as JSON, which the scheduler bounds at 256 KiB, it is smaller
PAYLOAD_MAX_DEPTH = 16
BRIEF_CHARS = 80
NAME_MAX_CHARS = 128
RUNS_MAX = 500
BATCH_MAX_BYTES = 2 * 1024 * 1024
ENTRY_BYTES = 16
TIMEOUT_DEFAULT = timedelta(hours=1)
TIMEOUT_MAX = timedelta(days=7)
LEASE_MAX = timedelta(days=7)

_USUAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

BACKEND_KINDS = {
    None: pb.BACKEND_KIND_UNSPECIFIED,
    BackendKind.SHARED: pb.BACKEND_KIND_SHARED,
    BackendKind.PER_EXECUTOR: pb.BACKEND_KIND_PER_EXECUTOR,
}
_STATES = {
    RunState.ACCEPTED: pb.RUN_STATE_ACCEPTED,
    RunState.RUNNING: pb.RUN_STATE_RUNNING,
    RunState.ENDED: pb.RUN_STATE_ENDED,
    RunState.REFUSED: pb.RUN_STATE_REFUSED,
}
_VERDICTS = {
    StartVerdict.SUCCESS: pb.START_VERDICT_SUCCESS,
    StartVerdict.FAILURE: pb.START_VERDICT_FAILURE,
    StartVerdict.NEUTRAL: pb.START_VERDICT_NEUTRAL,
}
_OUTCOMES = {
    RunOutcome.COMPLETED: pb.RUN_OUTCOME_COMPLETED,
    RunOutcome.FAILED: pb.RUN_OUTCOME_FAILED,
    RunOutcome.FAILED_FOR_GOOD: pb.RUN_OUTCOME_FAILED_FOR_GOOD,
    RunOutcome.TIMED_OUT: pb.RUN_OUTCOME_TIMED_OUT,
    RunOutcome.CANCELLED: pb.RUN_OUTCOME_CANCELLED,
    RunOutcome.LOST: pb.RUN_OUTCOME_LOST,
    RunOutcome.NOT_STARTED: pb.RUN_OUTCOME_NOT_STARTED,
}
_OUTCOMES_BY_NUMBER: dict[int, RunOutcome] = {number: outcome for outcome, number in _OUTCOMES.items()}


class Checker(FieldChecker):
    """Checks requests against the contract's bounds."""

    def run_id(self, field: str, text: str) -> str:
        """A UUID, as text in its usual form."""
        if _USUAL_UUID.fullmatch(text):
            return text
        value = self.uuid(field, text)
        return str(value) if value is not None else text

    def outcome(self, field: str, value: int) -> RunOutcome | None:
        """How a run ended; None for none."""
        if value == pb.RUN_OUTCOME_UNSPECIFIED:
            return None
        found = _OUTCOMES_BY_NUMBER.get(value)
        if found is None:
            self.wrong(field, f"is {value}; must be one of RunOutcome, 0 to {max(_OUTCOMES_BY_NUMBER)}")
        return found

    def uuids(self, field: str, texts: Sequence[str], most: int) -> list[str]:
        """A list of UUIDs within its bound."""
        if len(texts) > most:
            self.wrong(field, f"has {len(texts)} entries; at most {most} are allowed")
            return []
        if all(map(_USUAL_UUID.fullmatch, texts)):
            return list(texts)
        return [self.run_id(f"{field}[{i}]", text) for i, text in enumerate(texts)]

    def span(self, field: str, message: Duration, most: timedelta) -> timedelta:
        """A time span within its bound."""
        try:
            span = span_of(message)
        except ValueError as error:
            self.wrong(field, str(error))
            return timedelta(0)
        if span > most:
            self.wrong(field, f"is {message.seconds} s; must be 0 to {int(most.total_seconds())} s")
        return span

    def payload(self, field: str, message: Struct) -> dict[str, Any]:
        """A JSON object within its bounds."""
        if not message.fields:
            return {}
        found = object_of(message)
        if message.ByteSize() > PAYLOAD_MAX_BYTES:
            self.wrong(field, f"has {message.ByteSize()} bytes; at most {PAYLOAD_MAX_BYTES} are allowed")
        elif problem := _json_problem(found):
            self.wrong(field, problem)
        return found

    def spec(self, run: pb.RunRequest, prefix: str, cluster_id: str) -> RunSpec:
        """One run as asked for."""
        timeout = TIMEOUT_DEFAULT
        if run.HasField("timeout"):
            timeout = self.span(f"{prefix}.timeout", run.timeout, TIMEOUT_MAX)
            if not timeout:
                self.wrong(f"{prefix}.timeout", "is 0; must be more than 0")
        self.text(f"{prefix}.description", run.description, DESCRIPTION_MAX_BYTES)
        if not run.description.isascii() and len(run.description.encode("utf-8", "replace")) > DESCRIPTION_MAX_BYTES:
            self.wrong(f"{prefix}.description", f"is longer than {DESCRIPTION_MAX_BYTES} bytes")
        if run.fence < 0:
            self.wrong(f"{prefix}.fence", f"is {run.fence}; must be 0 or more")
        return RunSpec(
            run_id=self.run_id(f"{prefix}.run_id", run.run_id),
            task_id=self.run_id(f"{prefix}.task_id", run.task_id),
            fence=run.fence,
            title=self.text(f"{prefix}.title", run.title, TITLE_MAX_CHARS, required=True),
            description=run.description,
            task_type=self.text(f"{prefix}.task_type", run.task_type, NAME_MAX_CHARS),
            backend=self.text(f"{prefix}.backend", run.backend, NAME_MAX_CHARS, required=True),
            payload=self.payload(f"{prefix}.payload", run.payload),
            timeout=timeout,
            lease_ttl=self.span(f"{prefix}.lease_ttl", run.lease_ttl, LEASE_MAX),
            skill=self.text(f"{prefix}.skill", run.skill, NAME_MAX_CHARS),
            permission_mode=self.text(f"{prefix}.permission_mode", run.permission_mode, NAME_MAX_CHARS),
            model=self.text(f"{prefix}.model", run.model, NAME_MAX_CHARS),
            provider=self.text(f"{prefix}.provider", run.provider, NAME_MAX_CHARS),
            cluster_id=cluster_id,
        )


def _json_problem(payload: dict[str, Any]) -> str:
    """Why JSON cannot hold it, or that it is too deep; '' when all is well."""
    level: list[Any] = [payload]
    for _ in range(PAYLOAD_MAX_DEPTH):
        inner = [value for one in level for value in (one.values() if isinstance(one, dict) else one)]
        if any(isinstance(value, float) and not math.isfinite(value) for value in inner):
            return "holds a number that JSON cannot hold"
        level = [value for value in inner if isinstance(value, dict | list)]
        if not level:
            return ""
    return f"is more than {PAYLOAD_MAX_DEPTH} deep"


def resources_message(report: ResourceReport, running: int, room: Room) -> pb.CheckResourcesResponse:
    """The resources under the reference's names, and what the door makes of them."""
    message = pb.CheckResourcesResponse(
        ok=report.ok,
        reason=report.reason,
        effective_slots=report.effective_slots,
        running=running,
        cpu_threshold_pct=report.cpu_threshold_pct,
        cpu_pressure=report.cpu_pressure,
        mem_min_mb=report.mem_min_mb,
        swap_max_pct=SWAP_MAX_PCT,
        mem_pressure=report.mem_pressure,
        swap_pressure=report.swap_pressure,
        max_pressure=report.max_pressure,
        physical_capacity=report.physical_capacity,
        budget_cap=report.budget_cap,
        max_seats=report.max_seats,
        admission_slots=room.slots,
        admission_reason=room.reason,
    )
    sample = report.sample
    if sample is not None:
        message.MergeFrom(
            pb.CheckResourcesResponse(
                load_avg_1m=sample.load_avg_1m,
                cpu_usage_pct=half_up(sample.cpu_usage_pct),
                free_mem_mb=sample.free_mem_mb,
                swap_used_pct=sample.swap_used_pct,
                cpu_cores=sample.cpu_cores,
                total_mem_mb=sample.total_mem_mb,
                headed_sessions=sample.headed_sessions,
                headless_sessions=sample.headless_sessions,
                sample_time=timestamp(sample.time),
                memory_stall_pct=sample.memory_stall_pct,
                cpu_stall_pct=sample.cpu_stall_pct,
            )
        )
    return message


def changes(records: Iterable[RunRecord]) -> Iterator[pb.WatchRunsResponse]:
    """Runs in the portions that one message takes: at most 500 and 2 MiB; one run always fits."""
    response, size = pb.WatchRunsResponse(), 0
    for record in records:
        # Filled where it is to be: one made apart would be copied, and the list with it.
        runs = response.runs.runs
        message = runs.add()
        _set_run(message, record)
        # With what the list adds to each of its entries.
        own = message.ByteSize() + ENTRY_BYTES
        if len(runs) > 1 and (len(runs) > RUNS_MAX or size + own > BATCH_MAX_BYTES):
            del runs[-1]
            yield _told(response)
            response, size = pb.WatchRunsResponse(), 0
            _set_run(response.runs.runs.add(), record)
        size += own
    if size:
        yield _told(response)


def _told(response: pb.WatchRunsResponse) -> pb.WatchRunsResponse:
    runs = response.runs.runs
    return pb.WatchRunsResponse(run=runs[0]) if len(runs) == 1 else response


def run_message(record: RunRecord, *, brief: bool = False) -> pb.Run:
    """A run; `brief` leaves out its result and usage and shortens words, so that ten thousand fit into an answer."""
    message = pb.Run()
    _set_run(message, record, brief=brief)
    return message


def _set_run(message: pb.Run, record: RunRecord, *, brief: bool = False) -> None:
    spec, start, end = record.spec, record.start, record.end
    message.run_id = spec.run_id
    message.task_id = spec.task_id
    message.fence = spec.fence
    message.backend = spec.backend
    message.state = _STATES[record.state]
    message.cluster_id = spec.cluster_id
    set_timestamp(message.accept_time, record.accept_time)
    # What is empty is so already, and to look at it costs as well.
    if record.start_time is not None:
        set_timestamp(message.start_time, record.start_time)
    if record.end_time is not None:
        set_timestamp(message.end_time, record.end_time)
    if start is not None:
        message.start_verdict = _VERDICTS[start.verdict]
        if start.reason:
            message.start_reason = start.reason
        if start.detail:
            message.start_detail = start.detail[:BRIEF_CHARS] if brief else start.detail
    if end is not None:
        if end.retry_time is not None:
            set_timestamp(message.retry_time, end.retry_time)
        message.outcome = _OUTCOMES[end.outcome]
        if end.error:
            message.error = end.error[:BRIEF_CHARS] if brief else end.error
        if end.error_class:
            message.error_class = end.error_class
        if end.exit_code is not None:
            message.exit_code = end.exit_code
        if end.signal is not None:
            message.signal = end.signal
        if end.result and not brief:
            message.result = end.result
        if end.usage and not brief:
            set_struct(message.usage, end.usage)
