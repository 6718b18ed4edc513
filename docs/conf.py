"""How Sphinx builds the site: `make docs-site`. Whatever it would have to guess is an error."""

import re
from typing import Any

project = "cecelia-dispatch"
author = "cecelia-dispatch"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = project
html_copy_source = False
source_suffix = {".md": "markdown"}
root_doc = "index"
# The runbooks are listed by a page of their own.
suppress_warnings = ["toc.not_included"]
myst_heading_anchors = 4
nitpicky = True
# Nothing is asked of another host: neither by the build nor by a reader's browser.
html_show_sphinx = False
html_show_copyright = False


def _add_tree(_app: Any, page: str, source: list[str]) -> None:
    """Gives Sphinx the index's links once more as it wants them, kind by kind: for the site's sidebar."""
    if page == root_doc:
        for kind, links in re.findall(r"^\*\*([\w-]+)\*\*:.*\n\n((?:- .*\n)+)", source[0], re.MULTILINE):
            pages = "\n".join(re.findall(r"\]\(([^)#]+)\.md\)", links))
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {kind}\n\n{pages}\n```\n"


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_tree)
