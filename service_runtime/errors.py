"""What callers may be told: the only errors whose texts leave a service, and what our clients raise.

ServiceError
├── InvalidArgument      a request breaks a bound; names the fields
├── NotFound             what it names does not exist
├── AlreadyExists        what it would make exists
├── FailedPrecondition   right in itself, but not in the present state
├── ResourceExhausted    a bound of the service is reached
├── Unavailable          try again
├── Unimplemented        not offered by this version
└── DeadlineExceeded     it took too long
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field: its path in the request, and in words the value and what would be right."""

    field: str
    description: str


class ServiceError(Exception):
    """Base of what callers may be told. `reason` is a stable code, `retry_after` says when another try makes sense."""

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        violations: tuple[FieldViolation, ...] = (),
        retry_after: timedelta | None = None,
        metadata: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.violations = violations
        self.retry_after = retry_after
        self.metadata = metadata


class InvalidArgument(ServiceError):
    """A request breaks a bound."""


class NotFound(ServiceError):
    """What a request names does not exist."""


class AlreadyExists(ServiceError):
    """What a request would make exists."""


class FailedPrecondition(ServiceError):
    """A request is right in itself, but not in the present state."""


class ResourceExhausted(ServiceError):
    """A bound of the service is reached."""


class Unavailable(ServiceError):
    """The service cannot answer now."""


class Unimplemented(ServiceError):
    """This version does not offer it."""


class DeadlineExceeded(ServiceError):
    """It took too long."""
