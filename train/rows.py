"""Reading a training imagefolder, and finding everything wrong with it before anything is spent."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image, ImageOps

from unskew.attributes import Attribute
from unskew.errors import UserError

Kind = Literal["neutral", "explicit", "control"]
METADATA = "metadata.jsonl"
SHOWN = 10
"""Problems that a message lists before it only counts."""


@dataclass(frozen=True, eq=False)
class Row:
    """One picture with one caption."""

    line: int
    """Its line in metadata.jsonl, from 1."""
    file: Path
    text: str
    kind: Kind
    subject: str
    values: Mapping[str, str]
    """Attribute -> value, for those that apply to it; empty for a control."""
    explicit_text: str | None
    """The caption that names every value of the picture; None for a control."""
    weight: float
    """Multiplies the row's loss."""


def load_rows(folder: Path, attributes: Mapping[str, Attribute]) -> tuple[Row, ...]:
    """The rows whose split is "train", in file order.

    Raises UserError that names the file and every row at fault: folder or metadata missing, a
    field missing or of a wrong kind, a label outside its attribute's values, a picture that does
    not exist, cannot be decoded or lies outside the folder.
    """
    metadata = folder / METADATA
    if not metadata.is_file():
        raise UserError(
            f"dataset {folder} has no {METADATA}: `unskew data` writes Emoji World's; for your own "
            "give an imagefolder with that file"
        )
    rows: list[Row] = []
    problems: list[str] = []
    for line, text in enumerate(metadata.read_text("utf-8").splitlines(), 1):
        if text.strip():
            try:
                fields = json.loads(text)
                if fields.get("split", "train") == "train":
                    rows.append(_row(line, fields, folder, attributes))
            except json.JSONDecodeError as error:
                problems.append(f"row {line} is no JSON ({error})")
            except _RowError as error:
                problems.append(f"row {line}: {error}")
    problems += _broken_pictures(rows)
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:SHOWN])
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"{metadata} cannot be trained on:{listed}{more}")
    return tuple(rows)


def load_picture(file: Path, resolution_px: int) -> Image.Image:
    """The picture upright, RGB, cropped to the middle square and resized to resolution_px."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file) as raw:
            upright = ImageOps.exif_transpose(raw)
            return ImageOps.fit(
                upright.convert("RGB"), (resolution_px, resolution_px), Image.Resampling.LANCZOS
            )


class _RowError(Exception):
    """What is wrong with one row."""


def _row(
    line: int, fields: Mapping[str, Any], folder: Path, attributes: Mapping[str, Attribute]
) -> Row:
    for name in ("file_name", "text", "kind", "subject"):
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise _RowError(f"{name} must be a text, got {fields.get(name)!r}")
    if fields["kind"] not in get_args(Kind):
        raise _RowError(f"kind must be one of {list(get_args(Kind))}, got {fields['kind']!r}")
    file = folder / fields["file_name"]
    if not file.resolve().is_relative_to(folder.resolve()):
        raise _RowError(f"file_name {fields['file_name']!r} leads out of the dataset's folder")
    values = {} if fields["kind"] == "control" else dict(_values(fields, attributes))
    if fields["kind"] == "neutral" and not values:
        raise _RowError(f"a neutral row needs a value of at least one of {list(attributes)}")
    weight = fields.get("weight", 1.0)
    if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise _RowError(f"weight must be a number >= 0, got {weight!r}")
    return Row(
        line=line,
        file=file,
        text=fields["text"],
        kind=fields["kind"],
        subject=fields["subject"],
        values=values,
        explicit_text=fields.get("explicit_text"),
        weight=float(weight),
    )


def _values(
    fields: Mapping[str, Any], attributes: Mapping[str, Attribute]
) -> Iterator[tuple[str, str]]:
    for attribute in attributes.values():
        value = fields.get(attribute.id)
        if value is not None and value not in attribute.values:
            raise _RowError(
                f"{attribute.id} is {value!r} (allowed: {', '.join(attribute.values)}, or null)"
            )
        if value is not None:
            yield attribute.id, value


def _broken_pictures(rows: Sequence[Row]) -> list[str]:
    """Every picture that is missing or cannot be decoded, once, at the first row that names it."""
    first_row = {row.file: row for row in reversed(rows)}
    problems = []
    for file, row in sorted(first_row.items(), key=lambda item: item[1].line):
        if not file.is_file():
            problems.append(f"row {row.line}: picture {file} does not exist")
            continue
        try:
            load_picture(file, 8)
        except Exception as error:  # decoders raise many kinds; each means that it cannot be read
            problems.append(f"row {row.line}: picture {file} cannot be read ({error})")
    return problems
