"""Every HTTP path, called wrongly in every way: always a problem document in the caller's words, and nothing changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler_service.http.routes import BrainPaths
from scheduler_service.http.static_files import load_static_files
from service_runtime.clock import SystemClock
from service_runtime.http_app import HttpPolicy
from tests.acceptance.programs import Pair
from tests.acceptance.test_every_rpc import OUR_WORDS

KEY = "cecelia-run"
_ANY: Any = None
TASK = "123e4567-e89b-42d3-a456-426614174002"
"""A task that waits."""
STATIC = load_static_files()
SETTING = "OPEN_DURATION_MS"
_FILLED = {"/static/{version}/{name}": f"{STATIC.root}/page.js", "{key}": KEY, "{task_id}": TASK, "{name}": SETTING}


def filled(path: str) -> str:
    """A path with something in place of each of its parameters."""
    for what, value in _FILLED.items():
        path = path.replace(what, value)
    return path


PATHS = [
    (filled(path), sorted(methods - {"HEAD"})[0])
    for route in BrainPaths(_ANY, _ANY, _ANY, SystemClock(), HttpPolicy(), hide_payloads=False).routes()
    for path, methods in [(getattr(route, "path", ""), getattr(route, "methods", set()))]
]
READ = [path for path, method in PATHS if method == "GET"]
WRITE = [path for path, method in PATHS if method == "POST"]
JSON = {"content-type": "application/json"}
# The paths whose wrong bodies are told by the name of a field.
FIELDS = {
    f"/api/brain/circuit-breaker/{KEY}/reset": {"reason", "request_id"},
    "/api/brain/drain": {"reason", "request_id", "source", "until_idle"},
    "/api/brain/drain/off": {"reason", "request_id", "source"},
    "/api/brain/execution-callback": {"task_id", "run_id", "status"},
    f"/api/ui/tasks/{TASK}/cancel": {"reason", "request_id"},
    f"/api/ui/tasks/{TASK}/requeue": {"reason", "request_id"},
    "/api/ui/tasks/cancel": {"statuses", "validate_only", "page_token", "reason", "request_id"},
    "/api/ui/tasks/requeue": {"statuses", "validate_only", "page_token", "reason", "request_id"},
    "/api/ui/billing-pause/clear": {"backend", "reason", "request_id"},
    "/api/ui/budget-cap/lift": {"reason", "request_id"},
    f"/api/ui/settings/{SETTING}/reset": {"reason", "request_id"},
}
UNDECODABLE = {
    "no JSON": b"{",
    "not a number": b'{"reason": NaN}',
    "no UTF-8": b'{"reason": "\xff"}',
    "deeper than any parser goes": b"[" * 100_000 + b"]" * 100_000,
    "trailing words": b"{} and more",
    "half a surrogate pair": b'{"reason": "\\ud800"}',
    "half a surrogate pair in a name": b'{"\\ud800": 1}',
    "a number beyond all numbers": b'{"reason": 1e999}',
}
WRONG_VALUES: list[Any] = [None, 1, 1.5, [], {}, "\0", "x" * 5_000]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.Client]:
    pair = Pair(tmp_path_factory.mktemp("pair"), "", TICK_ENABLED="false")
    await pair.start()
    await pair.submit(1, task_id=TASK)
    base = f"http://127.0.0.1:{pair.scheduler.http_port}"
    try:
        with httpx.Client(base_url=base, timeout=20, trust_env=False) as client:
            yield client
    finally:
        await pair.stop()


def problem(response: httpx.Response, *statuses: int) -> dict[str, Any]:
    """The problem document of an answer with one of these statuses."""
    assert response.status_code in statuses, (response.status_code, response.text)
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == response.status_code
    assert body["title"]
    assert body["reason"]
    assert not OUR_WORDS.search(response.text), response.text
    return body


def named(body: dict[str, Any]) -> set[str]:
    """The fields that a problem document names."""
    return {error["field"] for error in body.get("errors", ())}


def test_every_path_that_writes_is_in_the_table() -> None:
    assert set(WRITE) == set(FIELDS), "a new path must join the table"


@pytest.mark.parametrize(("path", "method"), PATHS)
def test_another_method_is_refused_with_the_right_one(http: httpx.Client, path: str, method: str) -> None:
    for wrong in {"GET", "POST", "PUT", "DELETE", "PATCH"} - {method}:
        response = http.request(wrong, path)
        assert problem(response, 405)
        assert method in response.headers["allow"]


@pytest.mark.parametrize("path", WRITE)
def test_a_body_that_does_not_decode_is_refused(http: httpx.Client, path: str) -> None:
    for content in UNDECODABLE.values():
        assert problem(http.post(path, content=content, headers=JSON), 400)["reason"] == "UNDECODABLE"
    for content in (b"[1]", b'"text"', b"7", b"null"):
        assert problem(http.post(path, content=content, headers=JSON), 400)["reason"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("path", WRITE)
def test_another_type_or_too_much_of_a_body_is_refused(http: httpx.Client, path: str) -> None:
    for type_ in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp"):
        problem(http.post(path, content=b"{}", headers={"content-type": type_}), 415)
    large = json.dumps({"reason": "x" * 5_000_000}).encode()
    problem(http.post(path, content=large, headers=JSON), 413)

    def in_pieces() -> Iterator[bytes]:
        for start in range(0, len(large), 65_536):
            yield large[start : start + 65_536]

    problem(http.post(path, content=in_pieces(), headers=JSON), 413)


@pytest.mark.parametrize("path", READ)
def test_only_the_head_can_be_asked_for_but_not_of_a_stream(http: httpx.Client, path: str) -> None:
    response = http.head(path)
    assert (response.status_code, response.content) == (405 if path.endswith(("/events", "/output")) else 200, b"")


@pytest.mark.parametrize("path", WRITE)
def test_a_field_of_another_kind_is_named(http: httpx.Client, path: str) -> None:
    for field in FIELDS[path]:
        for value in WRONG_VALUES:
            content = json.dumps({field: value}).encode()
            assert field in named(problem(http.post(path, content=content, headers=JSON), 400)), (field, value)


@pytest.mark.parametrize(
    ("key", "status"),
    [("nobody", 404), ("%00", 400), ("%ff", 404), ("x" * 300, 400), ("..%2f..%2fetc", 404), ("%F0%9F%92%A5", 404)],
)
def test_a_breaker_that_is_not_there(http: httpx.Client, key: str, status: int) -> None:
    problem(http.post(f"/api/brain/circuit-breaker/{key}/reset"), status)


def asked_briefly(http: httpx.Client, url: str, headers: dict[str, str]) -> httpx.Response:
    """An answer; of a stream, its status only."""
    with http.stream("GET", url, headers=headers) as response:
        if response.status_code != 200:
            response.read()
        return response


@pytest.mark.parametrize(
    "query",
    [
        "after=",
        "after=x",
        "after=-2",
        "after=1.5",
        "after=9223372036854775808",
        "after=9223372036854775807",
        "after=1&after=2",
        "types=nosuch",
        "type=task_failed",
        "types=%00",
    ],
)
def test_a_wrong_question_to_the_events(http: httpx.Client, query: str) -> None:
    problem(asked_briefly(http, f"/api/brain/events?{query}", {}), 400)


@pytest.mark.parametrize("last", ["x", "-2", "9223372036854775808"])
def test_a_wrong_place_to_resume_the_events_from(http: httpx.Client, last: str) -> None:
    problem(asked_briefly(http, "/api/brain/events", {"last-event-id": last}), 400)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(
    st.sampled_from(sorted(set().union(*FIELDS.values()) | {"result", "error", "checkpoint_id"})) | st.text(max_size=10),
    JSONS | st.sampled_from(["\ud800", "\0", "completed", "123e4567-e89b-42d3-a456-426614174000"]),
    max_size=5,
)


@pytest.mark.parametrize("path", WRITE)
def test_whatever_is_posted_the_answer_is_in_the_callers_words(http: httpx.Client, path: str) -> None:
    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    @given(BODIES)
    def post(body: dict[str, Any]) -> None:
        response = http.post(path, content=json.dumps(body).encode(), headers=JSON)
        if response.status_code != 200:
            problem(response, 400, 404, 409)

    post()


def test_after_all_that_every_path_still_answers(http: httpx.Client) -> None:
    for path in READ:
        with http.stream("GET", path) as response:
            assert response.status_code == 200, path
