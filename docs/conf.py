"""How the pages of this folder become a site: `scripts/docs`. With the tag `short`, no modules."""

import re
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("unskew", "evaluate", "data", "train", "scripts")

project = "Unskew"
copyright = "2026 the Unskew authors"  # the name that Sphinx knows
release = metadata.version("unskew")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
default_role = "code"
html_theme = "furo"
html_title = f"Unskew {release}"
html_show_sphinx = False
myst_heading_anchors = 3
"""So that links to #headings, as GitHub makes them, are checked."""
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
exclude_patterns = ["modules.md"] if tags.has("short") else []  # noqa: F821  # Sphinx gives it
suppress_warnings = [
    "misc.highlighting_failure",  # a block that names no language is shown as it is
    "myst.header",  # pages may begin lower headings than they end
    "ref.python",  # names such as `values` that several classes have
]
linkcheck_timeout = 20
linkcheck_retries = 2


def setup(app: Any) -> None:
    """Read pages and docstrings as they are written here."""
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", read_docstring)


def read_page(app: Any, page: str, source: list[str]) -> None:
    """Files that are no pages, such as ../CONTRIBUTING.md, are downloads; modules are listed."""
    source[0] = re.sub(r"\[([^]]+)\]\((\.\./[^)#]+\.md)\)", r"{download}`\1 <\2>`", source[0])
    if page == "modules":
        source[0] += "\n".join(f"\n## {name}\n{directive(name)}" for name in modules())


def modules() -> list[str]:
    """Every module, floor by floor."""
    files = [file for floor in FLOORS for file in sorted((ROOT / floor).rglob("*.py"))]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    named = [name if name.startswith("unskew.") else f"unskew.{name}" for name in names]
    return [name for name in named if not name.endswith("__init__")]


def directive(name: str) -> str:
    """All that is public in a module; what stands in the Python reference keeps its place there."""
    return f"```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n   :no-index:\n```\n"


def read_docstring(app: Any, what: str, name: str, thing: object, _: Any, lines: list[str]) -> None:
    """|x| is a size in a docstring, not something to be put in."""
    lines[:] = [line if line.startswith(" ") else line.replace("|", r"\|") for line in lines]
