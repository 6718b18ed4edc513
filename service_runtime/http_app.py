"""HTTP applications of ours: errors as RFC 9457 problem documents, and who may ask at all.

A page in somebody's browser can reach a service on loopback. So a request must name a host that is ours (DNS rebinding),
and what a browser sends must come from our own page (cross-site requests), but for a link that somebody follows; programs send
no Origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service_runtime import errors

_log = structlog.get_logger(__name__)

BODY_MAX_BYTES = 256 * 1024
BODY_S = 20.0
PROBLEM_TYPE = "application/problem+json"
READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})

HTTP_STATUSES: Mapping[type[errors.ServiceError], int] = MappingProxyType(
    {
        errors.InvalidArgument: 400,
        errors.NotFound: 404,
        errors.AlreadyExists: 409,
        errors.FailedPrecondition: 409,
        errors.ResourceExhausted: 429,
        errors.Unimplemented: 501,
        errors.Unavailable: 503,
        errors.DeadlineExceeded: 504,
    }
)
_TITLES = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timed out",
    409: "Conflict",
    413: "Content too large",
    415: "Unsupported media type",
    429: "Too many requests",
    500: "Internal error",
    501: "Not implemented",
    503: "Service unavailable",
    504: "Timed out",
}


@dataclass(frozen=True, slots=True)
class HttpPolicy:
    """Who may ask: hosts besides loopback names and IP literals ('*': any), where the paths begin, whether writes are let in.

    `open_paths` take any Host: probes and Prometheus name us as they like.
    """

    allowed_hosts: frozenset[str] = frozenset()
    base_path: str = ""
    read_only: bool = False
    open_paths: frozenset[str] = frozenset()


def problem(
    status: int, detail: str, reason: str, *, headers: Mapping[str, str] = MappingProxyType({}), **members: Any
) -> Response:
    """A problem document (RFC 9457); `reason` is our stable code."""
    body = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status, "detail": detail, "reason": reason}
    return Response(
        json.dumps({**body, **members}, ensure_ascii=False),
        status_code=status,
        headers=dict(headers),
        media_type=PROBLEM_TYPE,
    )


def problem_of(error: errors.ServiceError) -> Response:
    """The problem document of one of our errors: what gRPC callers are told, as HTTP."""
    status = next((HTTP_STATUSES[base] for base in type(error).__mro__ if base in HTTP_STATUSES), 500)
    members: dict[str, Any] = {}
    if error.violations:
        members["errors"] = [{"field": v.field, "detail": v.description} for v in error.violations]
    headers = {} if error.retry_after is None else {"retry-after": str(max(1, round(error.retry_after.total_seconds())))}
    return problem(status, error.message, error.reason, headers=headers, **members)


def make_app(routes: Sequence[BaseRoute], policy: HttpPolicy) -> ASGIApp:
    """An application of these routes under a policy."""
    app = Starlette(
        routes=list(routes),
        exception_handlers={errors.ServiceError: _service_error, HTTPException: _http_error, Exception: _internal_error},
    )
    # A redirect would be wrong behind a proxy that strips a prefix.
    app.router.redirect_slashes = False
    return _Guard(_Told(app), policy)


async def _service_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.ServiceError)
    return problem_of(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: f"there is nothing at {request.url.path[:200]}", 405: f"{request.method} is not offered here"}
    reasons = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}
    detail = words.get(error.status_code, error.detail)
    return problem(error.status_code, detail, reasons.get(error.status_code, "HTTP_ERROR"), headers=error.headers or {})


async def _internal_error(request: Request, error: Exception) -> Response:
    """What nobody foresaw: logged under an opaque id, and only the id is told."""
    id_ = secrets.token_hex(8)
    _log.error("internal_error", id=id_, path=request.url.path, exc_info=error)
    return problem(500, f"internal error, id {id_}", "INTERNAL", id=id_)


class _Told:
    """Starlette raises an unforeseen error once more after it was logged and answered; that would be logged twice."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(Exception):
            await self._app(scope, receive, send)


class _Guard:
    """Lets in whom the policy lets in."""

    def __init__(self, app: ASGIApp, policy: HttpPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = _below(scope, self._policy.base_path)
        refused = self._refused(Request(scope))
        await (refused or self._app)(scope, receive, send)

    def _refused(self, request: Request) -> Response | None:
        if request.scope["path"] in self._policy.open_paths and request.method in READING_METHODS:
            return None
        host = request.headers.get("host", "")
        if not host_allowed(host, self._policy.allowed_hosts):
            return problem(403, f"the host {host[:100]!r} is not served here: add it to HTTP_ALLOWED_HOSTS", "HOST_NOT_ALLOWED")
        if not same_origin(request.headers, host) and not _is_link(request):
            return problem(403, "a browser's request must come from a page of this service", "CROSS_ORIGIN")
        if request.method in READING_METHODS:
            return None
        if self._policy.read_only:
            return problem(403, "this address only reads: HTTP_READ_ONLY is set", "READ_ONLY")
        return None


def _is_link(request: Request) -> bool:
    """Whether somebody only follows a link to here, from wherever."""
    headers = request.headers
    followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return request.method in READING_METHODS and followed and "origin" not in headers


def _below(scope: Scope, base_path: str) -> Scope:
    """The scope without the base path, for a proxy that keeps it; one that strips it has none to take away."""
    path = str(scope["path"])
    if base_path and (path == base_path or path.startswith(f"{base_path}/")):
        below = path[len(base_path) :] or "/"
        return {**scope, "path": below, "raw_path": below.encode()}
    return scope


def host_allowed(host: str, allowed: frozenset[str]) -> bool:
    """Whether a Host header names us: a loopback name, an IP literal, or a name that was allowed."""
    name = _bare(host)
    if name in LOOPBACK_NAMES or name.endswith(".localhost") or "*" in allowed or name in allowed:
        return bool(name)
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _bare(host: str) -> str:
    """A Host header without port and brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def same_origin(headers: Mapping[str, str], host: str) -> bool:
    """Whether a request is no browser's, or comes from a page of the same host and port."""
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    scheme, _, authority = origin.partition("://")
    return scheme in ("http", "https") and authority.lower() == host.lower()


async def _whole_body(request: Request, most: int) -> bytes:
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                data += chunk
                if len(data) > most:
                    raise HTTPException(413, f"the body is larger than {most} bytes")
    except TimeoutError:
        raise HTTPException(408, f"the body did not come within {BODY_S:g} s", headers={"connection": "close"}) from None
    except ClientDisconnect:
        # Nobody is left to read the answer, and nothing was done.
        raise HTTPException(400, "the body broke off") from None
    return bytes(data)


async def json_body(request: Request, most: int = BODY_MAX_BYTES) -> dict[str, Any]:
    """The JSON object of a request; {} without a body. Raises InvalidArgument, and HTTPException for 400, 408, 413 and 415."""
    data = await _whole_body(request, most)
    if not data.strip():
        return {}
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "a body must be application/json")
    try:
        body = json.loads(data, parse_constant=_no_constant)
        # Half a surrogate pair and 1e999 are JSON to the parser, and neither text nor number to anybody after it.
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise errors.InvalidArgument("the body is no JSON", reason="UNDECODABLE") from error
    if not isinstance(body, dict):
        raise errors.InvalidArgument("the body is no JSON object", reason="INVALID_ARGUMENT")
    return body


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
