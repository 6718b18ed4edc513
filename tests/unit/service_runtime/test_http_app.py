"""Who may ask over HTTP, and what a caller is told when something breaks."""

from __future__ import annotations

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service_runtime.errors import FieldViolation, InvalidArgument, Unavailable
from service_runtime.http_app import HttpPolicy, host_allowed, json_body, make_app, problem_of, same_origin


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("localhost:5221", True),
        ("LOCALHOST.:80", True),
        ("api.localhost", True),
        ("127.0.0.1:5221", True),
        ("192.168.1.9", True),
        ("[::1]:5221", True),
        ("[2001:db8::1]", True),
        ("dispatch.example.org", True),
        ("Dispatch.Example.org:443", True),
        ("", False),
        (":80", False),
        ("evil.example", False),
        ("dispatch.example.org.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("notlocalhost", False),
        ("[::1", True),
    ],
)
def test_hosts(host: str, allowed: bool) -> None:
    assert host_allowed(host, frozenset({"dispatch.example.org"})) is allowed


def test_a_star_lets_every_named_host_in() -> None:
    assert host_allowed("anything.example", frozenset({"*"}))
    assert not host_allowed("", frozenset({"*"}))


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({}, True),
        ({"origin": "http://localhost:5221"}, True),
        ({"origin": "https://localhost:5221"}, True),
        ({"origin": "http://localhost:5222"}, False),
        ({"origin": "http://localhost"}, False),
        ({"origin": "null"}, False),
        ({"origin": "file://localhost:5221"}, False),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "http://localhost:5221"}, False),
    ],
)
def test_origins(headers: dict[str, str], same: bool) -> None:
    assert same_origin(headers, "localhost:5221") is same


def test_a_service_error_keeps_its_reason_fields_and_patience() -> None:
    response = problem_of(
        InvalidArgument("title is empty", reason="INVALID_ARGUMENT", violations=(FieldViolation("title", "is"),))
    )
    assert response.status_code == 400
    assert b'"errors": [{"field": "title", "detail": "is"}]' in response.body
    assert problem_of(Unavailable("later", reason="X")).status_code == 503


async def _answer(policy: HttpPolicy, method: str, path: str, **arguments: object) -> httpx.Response:
    async def echo(request: Request) -> Response:
        return JSONResponse({"path": request.url.path, "body": await json_body(request)})

    async def broken(_request: Request) -> Response:
        raise RuntimeError("our own words")

    routes = [Route("/echo", echo, methods=["GET", "POST"]), Route("/broken", broken), Route("/open", echo)]
    transport = httpx.ASGITransport(app=make_app(routes, policy), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, **arguments)  # type: ignore[arg-type]


async def test_what_nobody_foresaw_is_told_by_an_id_only() -> None:
    response = await _answer(HttpPolicy(), "GET", "/broken")
    assert (response.status_code, response.json()["reason"]) == (500, "INTERNAL")
    assert "our own words" not in response.text
    assert response.json()["id"] in response.json()["detail"]


async def test_a_base_path_may_be_kept_or_stripped_by_the_proxy() -> None:
    policy = HttpPolicy(base_path="/dispatch")
    assert (await _answer(policy, "GET", "/dispatch/echo")).json()["path"] == "/echo"
    assert (await _answer(policy, "GET", "/echo")).json()["path"] == "/echo"
    assert (await _answer(policy, "GET", "/dispatching/echo")).status_code == 404


async def test_open_paths_take_any_host_for_reading_only() -> None:
    policy = HttpPolicy(open_paths=frozenset({"/open"}))
    assert (await _answer(policy, "GET", "/open", headers={"host": "pod.svc"})).status_code == 200
    assert (await _answer(policy, "POST", "/open", headers={"host": "pod.svc"})).status_code == 403


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 200), (b"  ", 200), (b'{"a": 1}', 200), (b"[" * 100_000, 400), (b'{"a": NaN}', 400), (b"\xff", 400), (b'"text"', 400)],
)
async def test_bodies(content: bytes, status: int) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    response = await _answer(HttpPolicy(), "POST", "/echo", content=content, headers=headers)
    assert response.status_code == status


CROSS = {"host": "localhost", "sec-fetch-site": "cross-site"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (CROSS, 403),
        ({"host": "localhost", "origin": "http://evil.example"}, 403),
        ({**CROSS, "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, 403),
        ({**CROSS, "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
        ({**CROSS, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
        ({**CROSS, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "origin": "null"}, 403),
        ({"host": "localhost"}, 200),
    ],
)
async def test_a_page_from_elsewhere_may_link_to_us_and_read_nothing(headers: dict[str, str], status: int) -> None:
    response = await _answer(HttpPolicy(), "GET", "/echo", headers=headers)
    assert response.status_code == status
    if status == 403:
        assert response.json()["reason"] == "CROSS_ORIGIN"
