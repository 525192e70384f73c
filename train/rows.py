"""Reading a training imagefolder, and finding everything wrong with it before anything is spent."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image, ImageOps

from unskew.ahead import ahead
from unskew.attributes import Attribute
from unskew.errors import UserError

Size = tuple[int, int]
"""Width and height in px, as Pillow has them."""
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
    picture_px: Size = (0, 0)
    """Size of its picture, upright; (0, 0) until `load_rows` has looked at it."""


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
    sizes, broken = _look_at_pictures(rows)
    problems += broken
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:SHOWN])
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"{metadata} cannot be trained on:{listed}{more}")
    return tuple(replace(row, picture_px=sizes[row.file]) for row in rows)


def load_picture(file: Path, target_px: Size, mirrored: bool = False) -> Image.Image:
    """The picture upright, RGB, resized to cover target_px and cut to it around its middle.

    `buckets.Framing` says where that cut lies. Mirrored is that picture, left for right.
    """
    framed = ImageOps.fit(_upright(file), target_px, Image.Resampling.LANCZOS)
    return ImageOps.mirror(framed) if mirrored else framed


def _upright(file: Path) -> Image.Image:
    """The whole picture as it is looked at, RGB. Raises what Pillow does when it cannot be read."""
    with Image.open(file) as raw:
        # Pillow only warns here, and whether a warning is an error cannot be set for one thread
        if Image.MAX_IMAGE_PIXELS and raw.width * raw.height > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError(
                f"Image size ({raw.width * raw.height} pixels) exceeds limit of "
                f"{Image.MAX_IMAGE_PIXELS} pixels, could be decompression bomb DOS attack."
            )
        return ImageOps.exif_transpose(raw).convert("RGB")


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


def _look_at_pictures(rows: Sequence[Row]) -> tuple[dict[Path, Size], list[str]]:
    """Every picture's size, and what is wrong with those that are missing or cannot be decoded.

    Each is told of once, at the first row that names it, in the rows' order.
    """
    first_row = {row.file: row for row in reversed(rows)}
    files = sorted(first_row, key=lambda file: first_row[file].line)
    sizes: dict[Path, Size] = {}
    problems: list[str] = []
    for file, seen in zip(files, ahead(_size_or_problem, files), strict=True):
        if isinstance(seen, str):
            problems.append(f"row {first_row[file].line}: picture {file} {seen}")
        else:
            sizes[file] = seen
    return sizes, problems


def _size_or_problem(file: Path) -> Size | str:
    if not file.is_file():
        return "does not exist"
    try:
        return _upright(file).size
    except Exception as error:  # decoders raise many kinds; each means that it cannot be read
        return f"cannot be read ({error})"
