"""The MiniMax service: `POST {HK_MINIMAX_URL}/execute`; the answer is the work, so its verdict is the run's end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from executor_service.core.run import EndReport, RunOutcome, RunSpec, StartReport, StartVerdict
from executor_service.runs.ports import Reporter
from executor_service.settings import ExecutorSettings

NAME = "hk-minimax"
TOTAL_S = 120.0
CONNECT_S = 10.0
BODY_MAX_BYTES = 1024 * 1024
WORDS_MAX = 500
EXECUTOR_FAILED = "executor_failed"
QUOTA_WORDS = ("quota", "billing", "insufficient balance", "spending cap", "credit")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the verdict on the backend, and the end of the run."""

    start: StartReport
    end: EndReport


class Unreadable(Exception):
    """The answer is not what the service is to answer; the text says in which way."""


def _failure(detail: str) -> Reply:
    words = _words(detail)
    return Reply(StartReport(StartVerdict.FAILURE, EXECUTOR_FAILED, words), EndReport(RunOutcome.NOT_STARTED, error=words))


def _neutral(reason: str, detail: str, outcome: RunOutcome, retry_time: datetime | None = None) -> Reply:
    words = _words(detail)
    return Reply(
        StartReport(StartVerdict.NEUTRAL, reason, words),
        EndReport(outcome, error=words, error_class=reason, retry_time=retry_time),
    )


def _words(text: str) -> str:
    """Text of others, cleaned and shortened."""
    return "".join(c if c.isprintable() else " " for c in text)[:WORDS_MAX].strip()


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


def judge(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Reply:
    """The verdict of a whole answer: the contract's table.

    The service reports every error as a 500 with a JSON body (reference.md 2.8), so what the body says of quota and billing
    counts before the status: such an answer is nobody's failure.
    """
    if 300 <= status < 400:
        return _failure(f"HTTP {status}: a redirect, which is not followed")
    unreadable = ""
    data: dict[str, Any] = {}
    try:
        data = _json_object(headers.get("content-type", ""), body)
    except Unreadable as error:
        unreadable = str(error)
    error_text = str(data.get("error") or "no error given")
    words = f"HTTP {status}: {error_text}" if data else f"HTTP {status}"
    if status in (401, 403):
        return _neutral("auth", words, RunOutcome.NOT_STARTED)
    quota = data.get("success") is not True and any(word in error_text.lower() for word in QUOTA_WORDS)
    if status in (402, 429) or quota:
        reason = "billing_cap" if quota or status == 402 else "rate_limit"
        return _neutral(reason, words, RunOutcome.NOT_STARTED, _retry_time(headers.get("retry-after"), now))
    if 400 <= status < 500:
        end = EndReport(RunOutcome.FAILED_FOR_GOOD, error=_words(words))
        return Reply(StartReport(StartVerdict.SUCCESS), end)
    if not 200 <= status < 300:
        return _failure(words)
    if unreadable:
        return _failure(f"HTTP {status}, unreadable: {unreadable}")
    return _success(data)


def _success(data: Mapping[str, Any]) -> Reply:
    if data.get("success") is not True:
        return _failure(f"success is not true: {data.get('error') or 'no error given'}")
    result = data.get("result", "")
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    usage = data.get("usage")
    return Reply(
        StartReport(StartVerdict.SUCCESS),
        EndReport(RunOutcome.COMPLETED, result=text, usage=usage if isinstance(usage, dict) else {}),
    )


class MiniMax:
    """The backend `hk-minimax`. `total_s` bounds a whole call, whatever the service does."""

    name = NAME
    local = False

    def __init__(self, url: str, max_runs: int, *, total_s: float = TOTAL_S) -> None:
        self._url = url.rstrip("/")
        self.max_runs = max_runs
        self._total_s = total_s
        self._cancelled: dict[str, str] = {}
        self._calls: dict[str, asyncio.Task[Reply]] = {}
        # No proxy and no certificate of the environment: the one address is what was configured.
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(total_s, connect=min(CONNECT_S, total_s)),
            # A kept connection may be closed just as it is used again, which would look like a failure of the service.
            limits=httpx.Limits(max_connections=max_runs, max_keepalive_connections=0),
            headers={"accept": "application/json", "accept-encoding": "identity"},
        )

    def check_configuration(self) -> str:
        """What is wrong with the URL; '' when nothing is."""
        try:
            parts = urlsplit(self._url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        return "" if valid else f"HK_MINIMAX_URL={self._url} is no http or https URL with a host"

    def prepare(self, spec: RunSpec, run_dir: Path) -> None:
        """Nothing: the answer is the work."""

    async def execute(self, spec: RunSpec, run_dir: Path, lease_from: int, reporter: Reporter) -> EndReport:
        """Makes the call and judges its answer."""
        call = asyncio.get_running_loop().create_task(self._call(spec))
        self._calls[spec.run_id] = call
        try:
            reply = await call
        except asyncio.CancelledError:
            reason = self._cancelled.get(spec.run_id)
            if reason is None:
                call.cancel()
                raise
            reply = _neutral("cancelled", reason, RunOutcome.CANCELLED)
        finally:
            self._calls.pop(spec.run_id, None)
            self._cancelled.pop(spec.run_id, None)
        reporter.started(reply.start)
        return reply.end

    async def _call(self, spec: RunSpec) -> Reply:
        own_s = spec.timeout.total_seconds()
        try:
            async with asyncio.timeout(min(self._total_s, own_s)):
                return await self._post(spec)
        except TimeoutError:
            if own_s <= self._total_s:
                return _neutral("timed_out", f"no answer within the task's {own_s:g} s", RunOutcome.TIMED_OUT)
            return _failure(f"no answer within {self._total_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            return _failure(f"{type(error).__name__}: {error}")

    async def _post(self, spec: RunSpec) -> Reply:
        body = {
            "id": spec.task_id,
            "title": spec.title,
            "description": spec.description,
            "task_type": spec.task_type,
        }
        async with self._client.stream("POST", f"{self._url}/execute", json=body) as response:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                return _failure(f"HTTP {response.status_code}, unreadable: compressed though it was not to be")
            data = bytearray()
            async for chunk in response.aiter_raw(65_536):
                data += chunk
                if len(data) > BODY_MAX_BYTES:
                    return _failure(f"HTTP {response.status_code}, unreadable: more than {BODY_MAX_BYTES} bytes")
            return judge(response.status_code, response.headers, bytes(data), datetime.now(UTC))

    async def reattach(self, spec: RunSpec, run_dir: Path, reporter: Reporter) -> EndReport:
        """A call does not outlive the executor: its answer is gone."""
        reply = _neutral("lost", "the executor stopped while the call was under way", RunOutcome.LOST)
        reporter.started(reply.start)
        return reply.end

    async def make_sure_gone(self, spec: RunSpec, run_dir: Path) -> None:
        """Nothing: a call ends with `execute`."""

    async def cancel(self, spec: RunSpec, run_dir: Path, reason: str) -> None:
        """Breaks the call off."""
        call = self._calls.get(spec.run_id)
        if call is not None:
            self._cancelled[spec.run_id] = reason
            call.cancel()

    def renew(self, spec: RunSpec, run_dir: Path, lease_from: int) -> None:
        """Nothing: a call is far shorter than a lease, and ends with the executor."""

    async def close(self) -> None:
        """Closes connections."""
        await self._client.aclose()


def create(settings: ExecutorSettings, environ: Mapping[str, str]) -> MiniMax:
    """The backend as configured."""
    return MiniMax(settings.hk_minimax_url, settings.hk_minimax_max_runs)
