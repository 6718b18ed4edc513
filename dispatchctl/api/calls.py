"""What both kinds of clients do with a call: who calls, under which request_id, for how long, and what its error says."""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from types import MappingProxyType
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from dispatchctl.api.service_config import METHODS, deadline_s
from service_runtime import errors
from service_runtime.grpc_errors import error_of
from service_runtime.identity import ACTOR_METADATA

Request = TypeVar("Request", bound=Message)

_DEADLINES_S = MappingProxyType({method.input_type.full_name: deadline_s(method) for method in METHODS})


def this_caller() -> str:
    """Who calls, as far as this machine knows: user@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def metadata_of(caller: str) -> tuple[tuple[str, str], ...]:
    """The metadata that names a caller; gRPC takes nothing but ASCII there."""
    return ((ACTOR_METADATA, caller.encode("ascii", "replace").decode("ascii")),)


def with_request_id(request: Request) -> Request:
    """The request, with a request_id of its own if it takes one and has none: then a repeat is carried out once."""
    given: Any = request
    if "request_id" not in request.DESCRIPTOR.fields_by_name or given.request_id:
        return request
    named: Any = type(request)()
    named.CopyFrom(request)
    named.request_id = str(uuid.uuid4())
    return cast("Request", named)


def limit_of(request: Message, timeout_s: float | None) -> float | None:
    """How long a call may take, in seconds: as told, else as the service config says; None for a stream."""
    return _DEADLINES_S[request.DESCRIPTOR.full_name] if timeout_s is None else timeout_s


def raised(error: Any) -> errors.ServiceError:
    """What a failed call says, of either kind of channel; a code that is none of ours is a plain ServiceError."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        # The details contradict the call's code: they are somebody else's.
        status = None
    code: grpc.StatusCode = error.code()
    return error_of(code, error.details() or "no text", status)
