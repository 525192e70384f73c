"""Gathering: one stream of pictures from all sources, each with its metadata as its owner wrote it.

Nothing is judged here but where a file lies: that it is missing, or leads out of its folder, is the
picture's problem, and screening says so.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Field = str | int | float | bool


@dataclass(frozen=True)
class Gathered:
    """One picture as it was found."""

    name: str
    """Inside its source: its file's name, or its number."""
    file: Path | None
    """Where its bytes lie; None where they cannot be read."""
    fields: Mapping[str, Field] = field(default_factory=dict)
    """Column -> what stands there; empty ones are left out."""
    problem: str | None = None
    """Why it cannot be read."""


def said(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Field]:
    """What stands in these columns; missing, empty and NaN are left out, other kinds are text."""
    found: dict[str, Field] = {}
    for column in columns:
        value = _plain(row.get(column))
        if value is not None and value != "" and value == value:  # NaN is not
            found[column] = value
    return found


def _plain(value: object) -> Field | None:
    """Numpy's and others' numbers as Python's; whatever is no number is text."""
    match value:
        case None | bool():
            return value
        case numbers.Integral():
            return int(value)
        case numbers.Real():
            return float(value)
    return str(value).strip()


def distinct(pictures: Iterator[Gathered]) -> Iterator[Gathered]:
    """The same, where a name that stands twice gets its number: names are a picture's identity."""
    times: dict[str, int] = {}
    for picture in pictures:
        seen = times.get(picture.name, 0)
        times[picture.name] = seen + 1
        if not seen:
            yield picture
        else:
            name = f"{picture.name} ({seen + 1})"
            yield Gathered(name, picture.file, picture.fields, picture.problem)
