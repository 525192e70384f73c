"""How the pages of this folder become a site: `scripts/docs`."""

import re
from importlib import metadata
from typing import Any

project = "Unskew"
copyright = "2026 the Unskew authors"  # the name that Sphinx knows
release = metadata.version("unskew")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"Unskew {release}"
html_show_sphinx = False
myst_heading_anchors = 3
"""So that links to #headings, as GitHub makes them, are checked."""
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
suppress_warnings = [
    "misc.highlighting_failure",  # a block that names no language is shown as it is
    "myst.header",  # pages may begin lower headings than they end
]
linkcheck_timeout = 20
linkcheck_retries = 2


def setup(app: Any) -> None:
    """Offer files of the repository that are no pages, such as ../CONTRIBUTING.md, as downloads."""

    def as_downloads(app: Any, page: str, source: list[str]) -> None:
        source[0] = re.sub(r"\[([^]]+)\]\((\.\./[^)#]+\.md)\)", r"{download}`\1 <\2>`", source[0])

    app.connect("source-read", as_downloads)
