"""How Sphinx builds the site: `make docs-site`. Whatever it would have to guess is an error."""

project = "cecelia-dispatch"
author = "cecelia-dispatch"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = project
html_copy_source = False
source_suffix = {".md": "markdown"}
root_doc = "index"
# The index lists the pages in its own words; Sphinx wants a tree besides.
suppress_warnings = ["toc.not_included"]
myst_heading_anchors = 4
nitpicky = True
# Nothing is asked of another host: neither by the build nor by a reader's browser.
html_show_sphinx = False
