"""When a call is repeated, and how long it may take: gRPC service configs made from the services' descriptors.

For other languages `make protos` writes them into protos/:

- `service_config.json` repeats what only reads, and is right for every caller;
- `service_config_with_request_ids.json` also repeats calls that take a `request_id`, and is right for callers who set one in each
  of them, as the clients here do: without one, a repeated SubmitTask could store a second task.

RunTick and what a scheduler alone says to executors are never repeated by gRPC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cecelia.executor.v1 import executor_service_pb2 as executor_pb
from cecelia.scheduler.v1 import scheduler_service_pb2 as scheduler_pb
from google.protobuf.descriptor import MethodDescriptor

_READING = ("Get", "List", "Watch", "Stream", "Explain", "Check")
_UNARY_S = 10.0
_OTHER_S = MappingProxyType({"RunTick": 30.0})
# gRPC adds jitter of its own. A repeat takes a token, and below half of them nothing is repeated: a service that is down for
# all must not get four times the calls.
_RETRY = MappingProxyType(
    {
        "maxAttempts": 4,
        "initialBackoff": "0.2s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
)
_THROTTLING = MappingProxyType({"maxTokens": 20, "tokenRatio": 0.1})

METHODS: tuple[MethodDescriptor, ...] = tuple(
    method
    for file, name in ((scheduler_pb, "SchedulerService"), (executor_pb, "ExecutorService"))
    for method in file.DESCRIPTOR.services_by_name[name].methods
)


def takes_request_id(method: MethodDescriptor) -> bool:
    """Whether a repeated call can be told from a second one."""
    return "request_id" in method.input_type.fields_by_name


def only_reads(method: MethodDescriptor) -> bool:
    """Whether a call changes nothing."""
    return method.name.startswith(_READING)


def deadline_s(method: MethodDescriptor) -> float | None:
    """How long a call may take, with its repeats, in seconds; None for a stream, which lasts while it is read."""
    return None if method.server_streaming else _OTHER_S.get(method.name, _UNARY_S)


def service_config(*, request_ids: bool, deadlines: bool) -> dict[str, Any]:
    """A service config. `request_ids`: the caller sets them. `deadlines`: with them; no call can then have a longer one."""
    return {
        "methodConfig": [_method(method, request_ids=request_ids, deadlines=deadlines) for method in METHODS],
        "retryThrottling": dict(_THROTTLING),
    }


def _method(method: MethodDescriptor, *, request_ids: bool, deadlines: bool) -> dict[str, Any]:
    config: dict[str, Any] = {"name": [{"service": method.containing_service.full_name, "method": method.name}]}
    limit = deadline_s(method)
    if deadlines and limit is not None:
        config["timeout"] = f"{limit:g}s"
    if only_reads(method) or (request_ids and takes_request_id(method)):
        config["retryPolicy"] = dict(_RETRY)
    return config


def files() -> Mapping[str, str]:
    """The files for other languages, by name."""
    configs = {
        "service_config.json": service_config(request_ids=False, deadlines=True),
        "service_config_with_request_ids.json": service_config(request_ids=True, deadlines=True),
    }
    return {name: json.dumps(config, indent=2) + "\n" for name, config in configs.items()}


CHANNEL_OPTIONS = (
    # Without deadlines: each call here brings its own, and a longer one must count.
    ("grpc.service_config", json.dumps(service_config(request_ids=True, deadlines=False))),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Finds out that the other side of a long stream has gone without a word.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    # A proxy variable of the machine must not stand between an operator and the scheduler.
    ("grpc.enable_http_proxy", 0),
)
"""How our channels behave."""
