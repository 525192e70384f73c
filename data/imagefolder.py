"""Writing a dataset folder: pictures first, metadata last; a killed run goes on where it was.

What is written is the picture as it is meant: a plain file keeps its pixels' bytes and loses what
the camera wrote beside them (place, time, owner); any other is decoded and becomes a PNG.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unskew.data.croissant import CROISSANT, Description, croissant
from unskew.data.picture_bytes import without_metadata
from unskew.data.picture_sheet import SHEET, picture_sheet
from unskew.errors import UserError
from unskew.evaluate.pictures import PictureError, png_of, read_picture
from unskew.runs import atomic_path, open_run, sha256_folder, write_json_atomic, write_text_atomic

METADATA = "metadata.jsonl"
CARD = "README.md"


@dataclass(frozen=True)
class PictureFile:
    """One picture of a folder, and where it comes from."""

    file_name: str
    """Where it goes: "images/mechanic-0123.jpg"."""
    file: Path
    """Where its bytes lie now."""
    sha256: str
    """Of those bytes."""
    plain: bool
    """Whether they are the picture as it is meant."""


@dataclass(frozen=True)
class Folder:
    """A dataset folder to write."""

    path: Path
    settings: Mapping[str, Any]
    """The settings that decide its content."""
    inputs: Mapping[str, str]
    """Name -> sha256 of what its content is made from."""
    pictures: Sequence[PictureFile]
    rows: Sequence[Mapping[str, Any]]
    """The lines of metadata.jsonl; `sha256` is filled in when the pictures are written."""
    card: str
    description: Description
    """For the Croissant file."""
    extras: Mapping[str, bytes] = field(default_factory=dict)
    """Name -> content of further files: pictures of the card, logs."""
    sheet_values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Attribute -> values, by which the contact sheet is laid out."""


def write_imagefolder(folder: Folder, passed: Sequence[str]) -> bool:
    """Write a folder, metadata last; False when it was complete already.

    Pictures that an earlier attempt wrote are kept. Raises UserError when the folder holds
    something else, and when a picture is no longer what it was when it was looked at.
    """
    with open_run(
        folder.path,
        program="unskew data",
        settings=folder.settings,
        passed=passed,
        inputs=folder.inputs,
    ) as run:
        if run.was_complete:
            return False
        written = _write_pictures(folder)
        sheet = picture_sheet(folder.rows, folder.sheet_values, folder.path)
        for name, content in {**folder.extras, **({SHEET: sheet} if sheet else {})}.items():
            with atomic_path(folder.path / name) as file:
                file.write_bytes(content)
        rows = [{**row, "sha256": written[row["file_name"]]} for row in folder.rows]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text_atomic(folder.path / CARD, folder.card)
        described = croissant(folder.description, METADATA, lines.encode(), rows)
        write_json_atomic(folder.path / CROISSANT, described)
        write_text_atomic(folder.path / METADATA, lines)
        counts = {"pictures": len(folder.pictures), "rows": len(rows)}
        run.finish("complete", {**counts, "sha256": sha256_folder(folder.path)})
    return True


def _write_pictures(folder: Folder) -> dict[str, str]:
    """file_name -> sha256 of the file that now lies there."""
    (folder.path / "images").mkdir(exist_ok=True)

    def write(picture: PictureFile) -> str:
        target = folder.path / picture.file_name
        if not target.is_file():  # else an earlier attempt wrote it whole
            content = picture_bytes(picture)
            with atomic_path(target) as temporary:
                temporary.write_bytes(content)
        else:
            content = target.read_bytes()
        return hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        found = threads.map(write, folder.pictures)
        return {p.file_name: sha for p, sha in zip(folder.pictures, found, strict=True)}


def picture_bytes(picture: PictureFile) -> bytes:
    """What is written of a picture. Raises UserError when its file changed or cannot be read."""
    try:
        content = picture.file.read_bytes()
    except OSError as error:
        raise UserError(f"{picture.file} cannot be read ({error.strerror})") from None
    if hashlib.sha256(content).hexdigest() != picture.sha256:
        raise UserError(f"{picture.file} changed while the dataset was made: build it again")
    stripped = without_metadata(content) if picture.plain else None
    if stripped is not None:
        return stripped
    try:
        return png_of(read_picture(picture.file))
    except PictureError as error:
        raise UserError(f"{picture.file} cannot be read ({error})") from None
