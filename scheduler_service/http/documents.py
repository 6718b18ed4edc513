"""The documents at /docs/: the Markdown of this version, so that an alert's link works with no network but ours.

A page's address is its file's, so the links between the files hold as they are, behind any proxy. Pages are read once and
rendered when first asked for; HTML inside Markdown is left out, scripts are refused by the policy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from scheduler_service.http.safety_headers import safety_headers

STYLE = "documents.css"
TYPES: Mapping[str, str] = MappingProxyType({".svg": "image/svg+xml", ".png": "image/png"})
HEADERS = {"cache-control": "no-cache", **safety_headers("img", "style")}


def documents_folder() -> Path:
    """Where the documents are: in the package as installed, or beside it in a checkout. Raises FileNotFoundError."""
    package = Path(str(files("scheduler_service")))
    places = (package / "documents", package.parent / "docs")
    found = next((place for place in places if (place / "index.md").is_file()), None)
    if found is None:
        raise FileNotFoundError(f"the documents are missing: index.md is in neither of {', '.join(map(str, places))}")
    return found


@dataclass(slots=True)
class Documents:
    """The files by their path, such as `runbooks/CeceliaDiskLow.md`."""

    pages: Mapping[str, str]
    images: Mapping[str, bytes]
    style: str
    _rendered: dict[str, str] = field(default_factory=dict)

    def routes(self) -> list[BaseRoute]:
        """The paths."""
        return [Route("/docs/{path:path}", self._serve, methods=["GET"])]

    async def _serve(self, request: Request) -> Response:
        path = request.path_params["path"] or "index.md"
        if path == STYLE:
            return Response(self.style, headers=HEADERS, media_type="text/css")
        if path in self.images:
            return Response(self.images[path], headers=HEADERS, media_type=TYPES[Path(path).suffix])
        name = path if path in self.pages else f"{path}.md"
        if name not in self.pages:
            raise HTTPException(404)
        if name not in self._rendered:
            self._rendered[name] = render(self.pages[name], depth=path.count("/"))
        return HTMLResponse(self._rendered[name], headers=HEADERS)


def load_documents(folder: Path) -> Documents:
    """The documents of a folder, all of them: a path that is asked for never reaches the disk."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return Documents(
        {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in found if path.suffix == ".md"},
        {str(path.relative_to(folder)): path.read_bytes() for path in found if path.suffix in TYPES},
        (files("scheduler_service.http") / STYLE).read_text(encoding="utf-8"),
    )


def render(text: str, *, depth: int) -> str:
    """A page as HTML; `depth`: how many folders below /docs/ it is."""
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for kind in ("html_block", "html_inline"):
        markdown.add_render_rule(kind, _nothing)
    tokens = markdown.parse(text)
    _name_headings(tokens)
    title = next((after.content for token, after in pairwise(tokens) if token.tag == "h1"), "Documents")
    up = "../" * depth
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} - cecelia-dispatch</title>
<link rel="stylesheet" href="{up}{STYLE}">
</head>
<body>
<nav><a href="{up or "./"}">Documents</a> · <a href="{up}../">Status</a></nav>
<main>
{markdown.renderer.render(tokens, markdown.options, {})}</main>
</body>
</html>
"""


def slug(heading: str) -> str:
    """A heading as an anchor: small letters, digits and hyphens, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def _name_headings(tokens: Sequence[Token]) -> None:
    for token, inside in pairwise(tokens):
        if token.type == "heading_open":
            words = "".join(part.content for part in inside.children or () if part.type in ("text", "code_inline"))
            token.attrSet("id", slug(words))


def _nothing(_self: RendererProtocol, _tokens: Sequence[Token], _index: int, _options: OptionsDict, _env: EnvType) -> str:
    return ""
