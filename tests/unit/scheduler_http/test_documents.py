"""The documents at /docs/: rendering, addresses, policy; and the files themselves: links, anchors, commands."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import pytest
from markdown_it import MarkdownIt
from starlette.applications import Starlette

from dispatchctl.cli import cli
from dispatchctl.session import Session
from scheduler_service.http.documents import Documents, documents_folder, load_documents, render, slug

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


async def get(documents: Documents, path: str) -> httpx.Response:
    """One answer."""
    app = Starlette(routes=documents.routes())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1") as client:
        return await client.get(path)


@pytest.fixture(scope="module")
def documents() -> Documents:
    return load_documents(documents_folder())


async def test_every_page_and_image_is_served_at_its_own_address(documents: Documents) -> None:
    assert documents_folder() == DOCS
    for page in PAGES:
        name = str(page.relative_to(DOCS))
        answer = await get(documents, f"/docs/{name}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8"), name
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; img-src 'self'; style-src 'self'")
        assert "<script" not in answer.text
    for image in DOCS.rglob("*.svg"):
        answer = await get(documents, f"/docs/{image.relative_to(DOCS)}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
        assert answer.content == image.read_bytes()


async def test_the_index_and_addresses_without_a_suffix(documents: Documents) -> None:
    index = await get(documents, "/docs/")
    assert '<h1 id="documents">Documents</h1>' in index.text
    with_suffix = await get(documents, "/docs/how-to/troubleshoot.md")
    assert (await get(documents, "/docs/how-to/troubleshoot")).text == with_suffix.text
    assert '<link rel="stylesheet" href="../documents.css">' in with_suffix.text
    style = await get(documents, "/docs/documents.css")
    assert (style.status_code, style.headers["content-type"]) == (200, "text/css; charset=utf-8")


@pytest.mark.parametrize("path", ["generate.py", "../pyproject.toml", "%2e%2e/pyproject.toml", "nothing", "how-to/", "index.md/"])
async def test_nothing_else_is_served(documents: Documents, path: str) -> None:
    assert (await get(documents, f"/docs/{path}")).status_code == 404


def test_html_in_markdown_is_left_out_and_text_is_text() -> None:
    page = render("# A <b>title</b>\n\n<script>alert(1)</script>\n\n<!-- note -->\n\n`<i>` & [x](javascript:alert)\n", depth=0)
    assert "alert(1)" not in page
    assert "<b>" not in page
    assert "note" not in page
    assert "<code>&lt;i&gt;</code> &amp;" in page
    assert 'href="javascript' not in page


def links(page: Path) -> Iterator[str]:
    """Where a page's links and images point."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        for part in token.children or ():
            target = part.attrGet("href") if part.type == "link_open" else part.attrGet("src") if part.type == "image" else None
            if target is not None:
                yield str(target)


def anchors(page: Path) -> set[str]:
    """The anchors that a page has."""
    return set(re.findall(r'<h\d id="([^"]*)"', render(page.read_text(encoding="utf-8"), depth=0)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_link_leads_somewhere_inside(page: Path) -> None:
    for link in links(page):
        assert not link.startswith("//"), link
        if link.startswith(("http://127.0.0.1", "http://localhost")):
            continue
        assert "://" not in link, f"{link} leaves the documents: they must work offline"
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{link} leads nowhere"
        assert target.is_relative_to(DOCS), f"{link} leaves docs/: the scheduler does not serve it"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_every_page_is_reached_from_the_index() -> None:
    seen: set[Path] = set()
    ahead = [DOCS / "index.md"]
    while ahead:
        page = ahead.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        ahead += [
            (page.parent / path).resolve() for link in links(page) if (path := link.partition("#")[0]) and "://" not in path
        ]
    assert [str(page.relative_to(DOCS)) for page in PAGES if page not in seen] == []


def commands() -> Iterator[tuple[str, str]]:
    """Each line of a code block that calls dispatchctl, with its page."""
    for page in PAGES:
        for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
            if token.type in ("code_block", "fence"):
                for line in token.content.replace("\\\n", " ").splitlines():
                    if line.strip().startswith("dispatchctl "):
                        yield str(page.relative_to(DOCS)), line.strip()


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_every_command_in_the_documents_is_one(page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line, comments=True)[1:]
    for cut in ("|", ">", "&&", ";"):
        words = words[: words.index(cut)] if cut in words else words
    # Files that a page speaks of.
    for word in words:
        if word.endswith((".json", ".csv")):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).write_text("[]")
    command: click.Command = cli
    context = click.Context(cli, info_name="dispatchctl", **cli.context_settings)
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"{page}: there is no {name}"
        command, context = found, click.Context(found, parent=context, info_name=name)
    command.make_context(command.name or "", words, parent=click.Context(cli, obj=Session(), **cli.context_settings))


def test_anchors_are_as_code_hosts_make_them() -> None:
    assert slug("A breaker is stuck open") == "a-breaker-is-stuck-open"
    assert slug("What it is: `a_b`, (c)") == "what-it-is-a_b-c"


@pytest.mark.skipif(importlib.util.find_spec("furo") is None, reason="the `docs` extra is not installed: make docs-site")
def test_the_site_is_built_without_a_doubt(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees"), str(DOCS)]
    done = subprocess.run([*build, str(tmp_path / "site")], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "tutorial" / "first-alert.html").is_file()
