"""How pictures made elsewhere may be named, so that each belongs to one cell."""

from __future__ import annotations

import string
from pathlib import PurePosixPath

FIELDS = ("prompt_id", "subject", "suite", "seed")


def check_names(names: str) -> str:
    """The template as it was. Raises ValueError for one that cannot name a cell's picture."""
    parsed = list(string.Formatter().parse(names))
    for _, name, form, conversion in parsed:
        if name is not None and (name not in FIELDS or conversion):
            raise ValueError(f"may hold {{{'}, {'.join(FIELDS)}}}, not {{{name}}}")
        if form and (name != "seed" or not form.strip("d").isdigit()):
            raise ValueError("only {seed} may have a width, as in {seed:04}")
    if "seed" not in [name for _, name, _, _ in parsed]:
        raise ValueError("must hold {seed}, else all seeds share a picture")
    if PurePosixPath(names).is_absolute() or ".." in PurePosixPath(names).parts:
        raise ValueError("must stay inside of the folder")
    return names
