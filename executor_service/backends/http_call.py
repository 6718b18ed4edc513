"""One JSON call to a service that may misbehave: bounded in time and size, and every way to go wrong is a verdict.

The table of verdicts is the contract's: a refused connection, a time-out, a 5xx or unreadable answer is the service's failure;
credentials, quota, billing and rate limits are nobody's; any other 4xx is a proper answer to a task that will not do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from executor_service.backends.replies import Ended, Reply, failure, neutral, task_failed
from executor_service.core.failure_classes import FailureClass, classify, text_of
from executor_service.core.run import RunOutcome
from service_runtime.clock import Clock
from service_runtime.settings import without_password

CONNECT_S = 10.0
BODY_MAX_BYTES = 1024 * 1024
NOBODYS_FAULT = (FailureClass.BILLING_CAP, FailureClass.RATE_LIMIT, FailureClass.AUTH)


class Unreadable(Exception):
    """The answer is not what the service is to answer; the text says in which way."""


R = TypeVar("R", bound=Reply)
Judge = Callable[[Mapping[str, Any]], R]
"""The verdict of a readable answer with a status of 200 to 299."""


def wrong_url(name: str, url: str) -> str:
    """What is wrong with the URL in a setting; '' when nothing is."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    return "" if valid else f"{name}={without_password(url)} is no http or https URL with a host"


def _retry_time(header: str | None, now: datetime) -> datetime | None:
    """Retry-After in either of its forms; None for one that cannot be read."""
    if not header:
        return None
    try:
        moment = now + timedelta(seconds=int(header)) if header.strip().isdecimal() else parsedate_to_datetime(header)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _json_object(content_type: str, body: bytes) -> dict[str, Any]:
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Unreadable(f"the content type is {content_type or 'missing'}, not application/json")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the body is no JSON: {type(error).__name__}") from error
    if not isinstance(data, dict):
        raise Unreadable("the body is no JSON object")
    return data


def judge(status: int, headers: Mapping[str, str], body: bytes, now: datetime, flag: str, good: Judge[R]) -> R | Ended:
    """The verdict of a whole answer; `flag` is the field that must be true in it, `good` judges one in which it is.

    Services report quota and billing under any status, also a 500 (reference.md 2.8): see core.failure_classes.
    """
    if 300 <= status < 400:
        return failure(f"HTTP {status}: a redirect, which is not followed")
    unreadable = ""
    data: dict[str, Any] = {}
    try:
        data = _json_object(headers.get("content-type", ""), body)
    except Unreadable as error:
        unreadable = str(error)
    error_text = text_of(data) or "no error given"
    text = f"HTTP {status}: {error_text}" if data else f"HTTP {status}"
    is_good = 200 <= status < 300 and data.get(flag) is True
    found = FailureClass.UNKNOWN if is_good else classify(status, data)
    if found in NOBODYS_FAULT:
        return neutral(found, text, RunOutcome.NOT_STARTED, _retry_time(headers.get("retry-after"), now))
    if 400 <= status < 500:
        return task_failed(text)
    if not 200 <= status < 300:
        return failure(text)
    if unreadable:
        return failure(f"HTTP {status}, unreadable: {unreadable}")
    if data.get(flag) is not True:
        return failure(f"{flag} is not true: {error_text}")
    return good(data)


class JsonCaller:
    """Calls one service. `total_s` bounds a whole call, whatever the service does; `most` calls may be under way at once."""

    def __init__(self, url: str, clock: Clock, *, total_s: float, most: int | None = None) -> None:
        self._clock = clock
        self.url = url.rstrip("/")
        self._total_s = total_s
        # No proxy and no certificate of the environment: the one address is what was configured.
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(total_s, connect=min(CONNECT_S, total_s)),
            # A kept connection may be closed just as it is used again, which would look like a failure of the service.
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=0),
            headers={"accept": "application/json", "accept-encoding": "identity"},
        )

    async def post(self, path: str, body: Mapping[str, Any], flag: str, good: Judge[R]) -> R | Ended:
        """The verdict of one call."""
        try:
            async with asyncio.timeout(self._total_s):
                return await self._post(path, body, flag, good)
        except TimeoutError:
            return failure(f"no answer within {self._total_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            return failure(f"{type(error).__name__}: {error}")

    async def _post(self, path: str, body: Mapping[str, Any], flag: str, good: Judge[R]) -> R | Ended:
        async with self._client.stream("POST", f"{self.url}{path}", json=body) as response:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                return failure(f"HTTP {response.status_code}, unreadable: compressed though it was not to be")
            data = bytearray()
            async for chunk in response.aiter_raw(65_536):
                data += chunk
                if len(data) > BODY_MAX_BYTES:
                    return failure(f"HTTP {response.status_code}, unreadable: more than {BODY_MAX_BYTES} bytes")
            return judge(response.status_code, response.headers, bytes(data), self._clock.now(), flag, good)

    async def close(self) -> None:
        """Closes connections."""
        await self._client.aclose()
