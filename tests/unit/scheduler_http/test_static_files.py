"""The files of the page: what they may reach, and the name that they lie under."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from scheduler_service.http import documents
from scheduler_service.http.static_files import PAGE_HEADERS, TYPES, StaticFiles, load_static_files

FOLDER = files("scheduler_service.http") / "static"
SOURCES = {entry.name: entry.read_text(encoding="utf-8") for entry in FOLDER.iterdir()}


def test_the_name_follows_the_content() -> None:
    one = StaticFiles({"a.js": b"1", "b.js": b"2"})
    assert one.version == StaticFiles({"b.js": b"2", "a.js": b"1"}).version
    others = [{"a.js": b"1"}, {"a.js": b"1", "b.js": b"3"}, {"a.js": b"1", "c.js": b"2"}, {"a.js": b"12", "b.js": b""}]
    assert len({one.version, *(StaticFiles(found).version for found in others)}) == 5
    assert one.root == f"/static/{one.version}"


def test_every_file_is_served() -> None:
    assert set(load_static_files()._files) == set(SOURCES)
    assert {name.rpartition(".")[2] for name in SOURCES} == {suffix.removeprefix(".") for suffix in TYPES}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_file_reaches_another_host_or_makes_markup_of_text(name: str) -> None:
    text = SOURCES[name]
    addresses = set(re.findall(r"\bhttps?://[^\s\"']*|@import|\burl\((?!#)[^)]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}, addresses
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    for imported in re.findall(r"from \"([^\"]+)\"", text):
        assert imported.removeprefix("./") in SOURCES, imported


@pytest.mark.parametrize(
    ("headers", "kinds"),
    [(PAGE_HEADERS, {"script", "style", "img", "connect", "worker"}), (documents.HEADERS, {"img", "style"})],
)
def test_nothing_but_our_own_is_allowed_and_nothing_inline(headers: dict[str, str], kinds: set[str]) -> None:
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert {name for name, sources in policy.items() if sources == "'self'"} == {f"{kind}-src" for kind in kinds}
    nothing = {name for name, sources in policy.items() if sources == "'none'"}
    assert nothing == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert len(policy) == len(kinds) + len(nothing)
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
