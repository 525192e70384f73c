"""Figures corrected for the classifier's error, laid beside those that were read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unskew.evaluate.report_words import number, plain
from unskew.evaluate.schema import RepresentationRow

DASH = "–"


def corrected_lines(row: RepresentationRow) -> list[tuple[str, str, str]]:
    """(name, as read, corrected) of every figure of `row.corrected`; none where it is null.

    A corrected figure and the one as read have the same place in the row.
    """
    given: Any = row.corrected
    if given is None:
        return []
    corrected = given if isinstance(given, Mapping) else given.model_dump()
    read = dict(_figures(row.model_dump(exclude={"corrected", "per_prompt"})))
    return [
        (_title(name), _shown(read.get(name)), _shown(value)) for name, value in _figures(corrected)
    ]


def _title(name: str) -> str:
    return plain(name.replace(".", ", ")).replace("ci95", "95 % interval")


def _figures(part: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of everything inside; an interval is one value."""
    for key, value in part.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool | int | str):
        return str(value)
    if isinstance(value, float):
        return number(value)
    if len(value) == 2 and all(isinstance(end, int | float) for end in value):
        return f"{number(value[0])} to {number(value[1])}"
    return ", ".join(map(_shown, value)) or DASH
