"""A server of whole services made from their descriptors: notes what was called and by whom, and answers with what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass


class AnyService(grpc.GenericRpcHandler):
    """Every rpc of some services. `answers` has the messages of an rpc's answer; an empty message by default.

    A request for a task in `unknown_tasks` is NOT_FOUND.
    """

    def __init__(self, *services: ServiceDescriptor, answers: Mapping[str, Sequence[Message]] | None = None) -> None:
        self.unknown_tasks: set[str] = set()
        self.called: list[str] = []
        self.requests: list[Message] = []
        self.metadata: list[dict[str, Any]] = []
        self._answers = dict(answers or {})
        self._methods = {f"/{service.full_name}/{method.name}": method for service in services for method in service.methods}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = self._methods.get(handler_call_details.method)
        if method is None:
            return None
        self.called.append(method.name)
        self.metadata.append(dict(handler_call_details.invocation_metadata or ()))
        make: Callable[..., grpc.RpcMethodHandler] = (
            grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(
            lambda request, context: self._answer(method, request, context),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _answer(self, method: MethodDescriptor, request: Message, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        if getattr(request, "task_id", "") in self.unknown_tasks:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such task")
        answers = self._answers.get(method.name) or [GetMessageClass(method.output_type)()]
        if method.name == "WatchEvents":
            context.send_initial_metadata((("next-event-id", "2"),))
        return iter(answers) if method.server_streaming else answers[0]


@contextmanager
def serving_any(handler: AnyService) -> Iterator[str]:
    """Serves it on a free port of loopback; the address."""
    server = grpc.server(ThreadPoolExecutor(4), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=0).wait(5)
