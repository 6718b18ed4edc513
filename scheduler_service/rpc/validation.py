"""Requests to values: every bound of the contract, every wrong field named with its value and what would be right."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from cecelia.scheduler.v1 import scheduler_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from scheduler_service.core import limits
from scheduler_service.core.events import EventType
from scheduler_service.core.limits import TaskSpec, batch_violations, violations_of
from scheduler_service.core.reasons import Reason
from scheduler_service.core.routing import backend_for
from scheduler_service.core.task import EDITABLE_FIELDS, DependencyPolicy, Priority, TaskChanges, TaskStatus
from scheduler_service.core.tuning import TUNABLES
from scheduler_service.rpc.conversions import POLICIES, PRIORITIES, STATUSES
from scheduler_service.transactions.auditing import AUDITED_METHODS
from service_runtime.field_checks import FieldChecker, shown
from service_runtime.proto_values import moment_of, object_of, span_of

T = TypeVar("T")

_PRIORITIES = {number: priority for priority, number in PRIORITIES.items()} | {pb.PRIORITY_UNSPECIFIED: Priority.P1}
_POLICIES = {number: policy for policy, number in POLICIES.items()} | {pb.DEPENDENCY_POLICY_UNSPECIFIED: DependencyPolicy.FAIL}
_STATUSES = {number: status for status, number in STATUSES.items()}
STATUS_NAMES = {status: pb.TaskStatus.Name(number) for status, number in STATUSES.items()}
FILTERS_MAX = 50
SOURCE_MAX_CHARS = 64
KEY_MAX_CHARS = 256
PAUSE_MAX = timedelta(days=366)
WINDOWS_MAX = 10
WINDOW_MIN = timedelta(seconds=1)
TRIP_MAX = timedelta(days=366)
SLOTS_MAX = 1_000_000
VALUE_MAX_CHARS = 64
ACTOR_MAX_CHARS = 256


class Checker(FieldChecker):
    """Checks requests against the contract's bounds."""

    def request_id(self, text: str) -> str:
        """A request_id."""
        return self.text("request_id", text, limits.REQUEST_ID_MAX_CHARS)

    def reason(self, text: str) -> str:
        """A reason."""
        return self.text("reason", text, limits.REASON_MAX_CHARS)

    def page_size(self, size: int) -> int:
        """A page's size; 0 is the default."""
        if not 0 <= size <= limits.PAGE_SIZE_MAX:
            self.wrong("page_size", f"is {size}; must be 1 to {limits.PAGE_SIZE_MAX}, or 0 for {limits.PAGE_SIZE_DEFAULT}")
        return size or limits.PAGE_SIZE_DEFAULT

    def page_key(self, token: str, scope: str) -> int | None:
        """The key in a page token made by `page_token` for the same filters; None for the first page."""
        if not token:
            return None
        try:
            made_for, _, key = base64.urlsafe_b64decode(token.encode("ascii")).decode("ascii").partition(":")
            if made_for == _fingerprint(scope) and key.isdecimal() and len(key) < 19:
                return int(key)
        except (ValueError, binascii.Error):
            pass
        self.wrong("page_token", f"is {shown(token)}; must be the next_page_token of a call with the same filters")
        return None

    # --- tasks

    def spec(self, message: pb.TaskSpec, prefix: str) -> TaskSpec | None:
        """A task as submitted."""
        before = self.wrong_so_far
        # Most tasks have no id of their own and no prerequisites, and a thousand may come in one call.
        task_id = self.uuid(f"{prefix}.task_id", message.task_id) if message.task_id else None
        depends_on: Sequence[UUID] = self._depends_on(message, prefix) if message.depends_on else ()
        priority = _PRIORITIES.get(message.priority)
        if priority is None:
            self.wrong(f"{prefix}.priority", f"is {message.priority}; must be PRIORITY_P0, PRIORITY_P1 or PRIORITY_P2")
        policy = _POLICIES.get(message.dependency_policy)
        if policy is None:
            right = "DEPENDENCY_POLICY_FAIL or DEPENDENCY_POLICY_WAIT"
            self.wrong(f"{prefix}.dependency_policy", f"is {message.dependency_policy}; must be {right}")
        not_before = timeout = None
        if message.HasField("not_before_time"):
            not_before = self.converted(f"{prefix}.not_before_time", lambda: moment_of(message.not_before_time))
        if message.HasField("timeout"):
            timeout = self.converted(f"{prefix}.timeout", lambda: span_of(message.timeout))
        if self.wrong_so_far > before or priority is None or policy is None:
            return None
        spec = TaskSpec(
            title=message.title,
            task_id=task_id,
            description=message.description,
            task_type=message.task_type or limits.TASK_TYPE_DEFAULT,
            priority=priority,
            skill=message.skill,
            payload=object_of(message.payload) if message.HasField("payload") else {},
            depends_on=tuple(depends_on),
            max_tries=message.max_tries or limits.MAX_TRIES_DEFAULT,
            not_before_time=not_before,
            timeout=limits.TIMEOUT_DEFAULT if timeout is None else timeout,
            dependency_policy=policy,
        )
        for violation in violations_of(spec):
            self.wrong(f"{prefix}.{violation.field}", violation.description)
        return spec

    def _depends_on(self, message: pb.TaskSpec, prefix: str) -> list[UUID]:
        # With one more than is allowed, so that `violations_of` finds too many.
        texts = message.depends_on[: limits.DEPENDS_ON_MAX + 1]
        found = [self.uuid(f"{prefix}.depends_on[{i}]", text) for i, text in enumerate(texts)]
        return [other for other in found if other is not None]

    def routed(self, spec: TaskSpec | None, prefix: str, routes: Mapping[str, str]) -> None:
        """A type that goes to some backend."""
        if spec is not None and not backend_for(spec.task_type, routes):
            known = ", ".join(sorted(routes))
            self.wrong(f"{prefix}.task_type", f"is {spec.task_type!r}, which DISPATCH_ROUTES sends nowhere; it has {known}")

    def specs(self, messages: Sequence[pb.TaskSpec]) -> list[TaskSpec]:
        """A batch of tasks."""
        if not 1 <= len(messages) <= limits.SUBMIT_TASKS_MAX:
            self.wrong("tasks", f"has {len(messages)} tasks; must have 1 to {limits.SUBMIT_TASKS_MAX}")
            self.done()
        found = [self.spec(message, f"tasks[{i}]") for i, message in enumerate(messages)]
        self.done()
        specs = [spec for spec in found if spec is not None]
        for violation in batch_violations(specs):
            self.wrong(violation.field, violation.description)
        return specs

    def changes(self, request: pb.UpdateTaskRequest) -> TaskChanges:
        """The fields that an update mask names."""
        paths = list(dict.fromkeys(self.few("update_mask", request.update_mask.paths, FILTERS_MAX)))
        right = ", ".join(sorted(EDITABLE_FIELDS))
        if not paths:
            self.wrong("update_mask", f"is empty; must name some of {right}")
        for path in paths:
            if path not in EDITABLE_FIELDS:
                self.wrong("update_mask", f"names {shown(path)}; must name some of {right}")
        self.done()
        chosen = pb.TaskSpec(title="placeholder title")
        for path in paths:
            _copy_field(request.task, chosen, path)
        spec = self.spec(chosen, "task")
        self.done()
        if spec is None:
            return {}
        changes: TaskChanges = {}
        for path in paths:
            changes[path] = getattr(spec, path)  # type: ignore[literal-required]  # checked against EDITABLE_FIELDS above
        return changes

    def statuses(self, numbers: Sequence[int]) -> list[TaskStatus]:
        """A filter by status."""
        return self._known("statuses", numbers, {int(number): status for number, status in _STATUSES.items()})

    def bulk_statuses(self, numbers: Sequence[int], allowed: Collection[TaskStatus]) -> list[TaskStatus]:
        """The statuses of a change by filter: at least one, so that an empty request changes nothing."""
        found = self.statuses(numbers)
        right = ", ".join(STATUS_NAMES[status] for status in allowed)
        if not numbers:
            self.wrong("statuses", f"is empty; must name some of {right}")
        for status in found:
            if status not in allowed:
                self.wrong("statuses", f"has {STATUS_NAMES[status]}; must name some of {right}")
        return found

    def priorities(self, numbers: Sequence[int]) -> list[Priority]:
        """A filter by priority."""
        by_number = {int(number): priority for priority, number in PRIORITIES.items()}
        return self._known("priorities", numbers, by_number)

    def _known(self, field: str, numbers: Sequence[int], by_number: Mapping[int, T]) -> list[T]:
        few = self.few(field, numbers, FILTERS_MAX)
        for number in few:
            if number not in by_number:
                self.wrong(field, f"has {number}; must be one of {', '.join(str(n) for n in sorted(by_number))}")
        return [by_number[number] for number in few if number in by_number]

    def names(self, field: str, values: Sequence[str]) -> list[str]:
        """A filter by words."""
        return self.texts(field, values, FILTERS_MAX, limits.NAME_MAX_CHARS)

    def event_types(self, field: str, values: Sequence[str]) -> list[str]:
        """A filter by types of events; an unknown one would wait for ever."""
        known = [type_.value for type_ in EventType]
        few = self.few(field, values, FILTERS_MAX)
        for index, name in enumerate(few):
            if name not in known:
                self.wrong(f"{field}[{index}]", f"is {shown(name)}; must be one of {', '.join(known)}")
        return list(dict.fromkeys(few))

    def reason_code(self, field: str, code: str) -> str:
        """A filter by a reason code; '' for all."""
        known = [reason.value for reason in Reason]
        if code and code not in known:
            self.wrong(field, f"is {shown(code)}; must be one of {', '.join(known)}")
        return code

    def windows(self, messages: Sequence[Duration]) -> list[timedelta]:
        """Lengths of further windows."""
        spans = []
        for index, message in enumerate(self.few("windows", messages, WINDOWS_MAX)):
            span = self.converted(f"windows[{index}]", partial(span_of, message))
            if span is not None and not WINDOW_MIN <= span <= limits.WINDOW_MAX:
                self.wrong(f"windows[{index}]", f"is {span.total_seconds():g} s; must be 1 s to {limits.WINDOW_MAX.days} days")
            spans.append(span or WINDOW_MIN)
        return spans

    # --- overrides

    def setting(self, field: str, name: str) -> str:
        """The name of a setting that can change at run time."""
        if name not in TUNABLES:
            self.wrong(
                field, f"is {shown(name)}; must be one of {', '.join(TUNABLES)}: other settings are read at the start only"
            )
        return name

    def overriding_rpc(self, field: str, name: str) -> str:
        """A filter by an rpc that is audited; '' for all."""
        if name and name not in AUDITED_METHODS:
            self.wrong(field, f"is {shown(name)}; must be one of {', '.join(AUDITED_METHODS)}")
        return name

    def moment(self, field: str, message: Timestamp | None) -> datetime | None:
        """A time; None where none is set."""
        return None if message is None else self.converted(field, lambda: moment_of(message))

    def until(self, request: pb.SetBillingPauseRequest, now: datetime) -> datetime:
        """The end of a billing pause."""
        until = None
        if request.HasField("until_time"):
            until = self.converted("until_time", lambda: moment_of(request.until_time))
        else:
            self.wrong("until_time", "is not set; must be a time in the future")
        if until is not None and not now < until <= now + PAUSE_MAX:
            self.wrong("until_time", f"is {until.isoformat()}; must lie in the future, at most {PAUSE_MAX.days} days ahead")
        self.done()
        return until or now

    def trip_duration(self, request: pb.TripBreakerRequest) -> timedelta | None:
        """How long a trip lasts; None for the setting."""
        if not request.HasField("duration"):
            return None
        span = self.converted("duration", lambda: span_of(request.duration))
        if span is not None and not timedelta(0) < span <= TRIP_MAX:
            self.wrong("duration", f"is {span.total_seconds():g} s; must be more than 0, at most {TRIP_MAX.days} days")
        return span


def _copy_field(source: pb.TaskSpec, target: pb.TaskSpec, path: str) -> None:
    if path in ("payload", "not_before_time"):
        if source.HasField(path):  # type: ignore[arg-type]  # one of the two names above
            getattr(target, path).CopyFrom(getattr(source, path))
    else:
        setattr(target, path, getattr(source, path))


def _fingerprint(scope: str) -> str:
    return f"{zlib.crc32(scope.encode()):08x}"


def page_token(key: int, scope: str) -> str:
    """A token that names where the next page begins; good only with the same filters."""
    return base64.urlsafe_b64encode(f"{_fingerprint(scope)}:{key}".encode("ascii")).decode("ascii")
