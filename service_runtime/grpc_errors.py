"""Errors as `google.rpc.Status` and back: one table, and nothing of ours in what it does not list."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from types import MappingProxyType

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from service_runtime import errors

_log = structlog.get_logger(__name__)

STATUS_CODES: Mapping[type[errors.ServiceError], grpc.StatusCode] = MappingProxyType(
    {
        errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
        errors.NotFound: grpc.StatusCode.NOT_FOUND,
        errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
        errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
        errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
        errors.Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
        errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)


def status_code(error: errors.ServiceError) -> grpc.StatusCode:
    """The code of an error's class, or of the nearest base that the table lists; INTERNAL without one."""
    for base in type(error).__mro__:
        code = STATUS_CODES.get(base)
        if code is not None:
            return code
    return grpc.StatusCode.INTERNAL


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def status_of(error: errors.ServiceError, domain: str) -> status_pb2.Status:
    """The status with ErrorInfo, and BadRequest and RetryInfo where they apply."""
    details = [_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=domain, metadata=dict(error.metadata)))]
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description) for v in error.violations
        ]
        details.append(_packed(error_details_pb2.BadRequest(field_violations=violations)))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(error.retry_after)
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=status_code(error).value[0], message=error.message, details=details)


def grpc_status(error: Exception, domain: str, method: str) -> grpc.Status:
    """What a caller is told of an exception. An unexpected one is logged under an opaque id, and only the id is told."""
    if isinstance(error, errors.ServiceError):
        status: grpc.Status = rpc_status.to_status(status_of(error, domain))
        return status
    id_ = secrets.token_hex(8)
    _log.error("internal_error", id=id_, method=method, exc_info=error)
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=domain, metadata={"id": id_})
    told = status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message=f"internal error, id {id_}", details=[_packed(info)])
    internal: grpc.Status = rpc_status.to_status(told)
    return internal


def error_of(code: grpc.StatusCode, message: str, status: status_pb2.Status | None) -> errors.ServiceError:
    """What a server was told to tell: the inverse of `status_of`, for callers.

    A code that the table does not list is a plain ServiceError. Without ErrorInfo the reason is the code's name; details that
    we do not know are passed over.
    """
    reason, metadata, violations, retry_after = "", {}, [], None
    for packed in status.details if status is not None else ():
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if packed.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif packed.Unpack(bad):
            violations += [errors.FieldViolation(v.field, v.description) for v in bad.field_violations]
        elif packed.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta()
    kind = next((kind for kind, listed in STATUS_CODES.items() if listed is code), errors.ServiceError)
    return kind(
        message,
        reason=reason or code.name,
        violations=tuple(violations),
        retry_after=retry_after,
        metadata=MappingProxyType(metadata),
    )
