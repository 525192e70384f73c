"""Arms from folders: pictures that another program made, paired with the study's cells.

By name, `<prompt_id>/<seed>.png` or as the arm's `names` has it, or by a metadata.jsonl or .csv
with a row a picture. They are read in place, never copied or changed; what is missing is counted.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unskew.errors import UserError
from unskew.evaluate.generate import Cell
from unskew.evaluate.pictures import PictureError, read_picture
from unskew.runs import sha256_file

METADATA = ("metadata.jsonl", "metadata.csv")
SHOWN = 10
"""Bad files that a message names."""
THREADS = 4


@dataclass(frozen=True)
class Found:
    """What an arm's folder holds for the cells of a study."""

    folder: Path
    paired_by: str
    files: Mapping[Cell, Path]
    sha256: Mapping[Cell, str]
    broken: Mapping[Cell, str] = field(default_factory=dict)
    """Of `files`, those that cannot be read, and why."""
    strangers: int = 0
    """Pictures, or rows of the metadata, that belong to no cell of the study."""

    def names(self) -> dict[str, str]:
        """By "prompt_id/seed", the file's name in the folder."""
        return {
            f"{cell.prompt.id}/{cell.seed}": file.relative_to(self.folder).as_posix()
            for cell, file in self.files.items()
        }

    def facts(self, planned: int) -> dict[str, Any]:
        """What the results say of this arm."""
        names = self.names()
        broken = {names[f"{c.prompt.id}/{c.seed}"]: why for c, why in self.broken.items()}
        return {
            "folder": str(self.folder),
            "paired_by": self.paired_by,
            "pictures": len(self.files),
            "missing": planned - len(self.files),
            "broken": broken,
            "strangers": self.strangers,
        }


def find_pictures(
    arm: str, folder: Path, names: str, metadata: Path | None, cells: Sequence[Cell]
) -> Found:
    """Pair a folder's pictures with the cells, and open each of them once.

    Raises UserError where the folder or its metadata is missing or unclear, or not one picture is
    of the study's.
    """
    where = f"arms.{arm}.folder {folder}"
    if not folder.is_dir():
        raise UserError(f"{where} is no folder: give the folder that holds the arm's pictures")
    file = _metadata_file(where, folder, metadata)
    if file is None:
        files, strangers = _by_names(where, folder, names, cells)
    else:
        files, strangers = _by_rows(folder, file, cells)
    if not files:
        how = f"by names {names}" if file is None else f"by {file}"
        example = names_of(names, cells[0]) + ".png" if file is None else cells[0].prompt.text
        raise UserError(
            f"{where} has no picture of any of the study's {len(cells)} cells, paired {how} "
            f"(looked for, first: {example!r}; found are {strangers} others): set names, or give "
            "a metadata.jsonl with file_name, prompt and seed"
        )
    with ThreadPoolExecutor(THREADS) as threads:
        looked = list(threads.map(_look, files.values()))
    return Found(
        folder=folder,
        paired_by=f"names {names}" if file is None else file.name,
        files=files,
        sha256={cell: sha for cell, (sha, _) in zip(files, looked, strict=True)},
        broken={cell: why for cell, (_, why) in zip(files, looked, strict=True) if why},
        strangers=strangers,
    )


def check_whole(arm: str, found: Found) -> None:
    """Raise UserError, naming them, where pictures are broken or giant."""
    if found.broken:
        some = [f"{found.files[cell]}: {why}" for cell, why in found.broken.items()]
        more = len(some) - SHOWN
        listed = "".join(f"\n  {line}" for line in some[:SHOWN])
        raise UserError(
            f"arms.{arm}: {len(some)} of {len(found.files)} pictures cannot be read:{listed}"
            + (f"\n  and {more} more" if more > 0 else "")
            + "\nMend or remove them, or count them as unreadable: broken: unreadable"
        )


def names_of(names: str, cell: Cell) -> str:
    """The name that a cell's picture has by a template."""
    prompt = cell.prompt
    return names.format(
        prompt_id=prompt.id, subject=prompt.subject, suite=prompt.suite, seed=cell.seed
    )


def _look(file: Path) -> tuple[str, str]:
    """sha256 of a picture file, and what is wrong with it, if anything."""
    try:
        read_picture(file)
    except PictureError as error:
        return sha256_file(file), str(error)
    return sha256_file(file), ""


def _metadata_file(where: str, folder: Path, given: Path | None) -> Path | None:
    if given is None:
        return next((folder / name for name in METADATA if (folder / name).is_file()), None)
    file = folder / given
    if not file.is_file() or file.suffix not in (".jsonl", ".csv"):
        raise UserError(f"{where}: metadata {given} is no .jsonl or .csv file inside of it")
    return file


def _by_names(
    where: str, folder: Path, names: str, cells: Sequence[Cell]
) -> tuple[dict[Cell, Path], int]:
    there: dict[str, list[Path]] = {}
    count = 0
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        inside = file.relative_to(folder)
        if not any(part.startswith(".") for part in inside.parts):
            count += 1
            for known in {inside.as_posix(), inside.with_suffix("").as_posix()}:
                there.setdefault(known, []).append(file)
    files: dict[Cell, Path] = {}
    used: dict[str, Cell] = {}
    for cell in cells:
        name = names_of(names, cell)
        other = used.setdefault(name, cell)
        if other != cell:
            raise UserError(
                f"{where}: names {names} gives {name!r} for two cells, {other.prompt.id} and "
                f"{cell.prompt.id}: put {{prompt_id}} into it"
            )
        found = there.get(name, [])
        if len(found) > 1:
            raise UserError(f"{where}: {found[0].name} and {found[1].name} are both {name!r}")
        if found:
            files[cell] = _inside(folder, found[0], where)
    return files, count - len(files)


def _by_rows(folder: Path, file: Path, cells: Sequence[Cell]) -> tuple[dict[Cell, Path], int]:
    known = {key: c for c in cells for key in ((c.prompt.id, c.seed), (c.prompt.text, c.seed))}
    files: dict[Cell, Path] = {}
    strangers = 0
    for where, row in _rows(file):
        cell = known.get((_prompt(row, where), _seed(row, where)))
        if cell is None:
            strangers += 1
            continue
        if cell in files:
            raise UserError(f"{where}: a second picture of {cell.prompt.id}, seed {cell.seed}")
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise UserError(f"{where}: needs file_name, the picture's name in {folder}")
        picture = folder / name
        if picture.is_file():  # else it is missing, and counted as such
            files[cell] = _inside(folder, picture, where)
    return files, strangers


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where it stands, row) of a metadata file."""
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error})") from None
    if file.suffix == ".csv":
        try:
            for number, row in enumerate(csv.DictReader(text.splitlines(keepends=True)), 2):
                yield f"{file} row {number}", row
        except csv.Error as error:
            raise UserError(f"{file} is no CSV ({error})") from None
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{file} line {number}"
            yield where, _json(line, where)


def _json(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is no JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(f"{where} must be an object with file_name, seed and prompt or prompt_id")
    return row


def _prompt(row: Mapping[str, Any], where: str) -> str:
    given = row.get("prompt_id") or row.get("prompt")
    if not isinstance(given, str):
        raise UserError(f"{where}: needs prompt_id or prompt, the study's own words")
    return given


def _seed(row: Mapping[str, Any], where: str) -> int:
    given = row.get("seed")
    if isinstance(given, str) and given.strip().isdigit():
        return int(given)
    if not isinstance(given, int) or isinstance(given, bool):
        raise UserError(f"{where}: seed must be an integer, got {str(given)[:80]!r}")
    return given


def _inside(folder: Path, file: Path, where: str) -> Path:
    if not file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{where}: {file} leads out of the folder")
    return file
