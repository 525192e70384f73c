"""Pictures of a folder: named by a table, captioned by .txt files, or sorted into classes."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from unskew.data.gather import Field, Gathered, distinct, said
from unskew.data.sources import FolderSettings, columns_read
from unskew.errors import UserError

TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
NO_PICTURES = set(".txt .csv .tsv .json .jsonl .parquet .md .yaml .yml .html .py .zip".split())
"""Endings of files that lie beside pictures; files with other ones are looked at."""
LONGEST_CAPTION = 10_000
"""Bytes of a .txt file that are read."""
CLASS = "class"


def gather_folder(source: FolderSettings, attributes: tuple[str, ...]) -> Iterator[Gathered]:
    """The folder's pictures: in the table's order, else by name.

    Raises UserError where folder or table is missing or cannot be read.
    """
    layout, table = layout_of(source)
    columns = columns_read(source, attributes)
    if table is not None:
        return distinct(_of_table(source, table, columns))
    return _of_files(source.folder, source.columns.caption, with_class=layout == "classes")


def layout_of(source: FolderSettings) -> tuple[str, Path | None]:
    """The layout that it has, and its table. Raises UserError as `gather_folder`."""
    folder = source.folder
    if not folder.is_dir():
        raise UserError(f"folder {folder} is no folder: give the one that holds the pictures")
    table = _table(source)
    if source.layout == "metadata" and table is None:
        raise UserError(f"{folder} has none of {', '.join(TABLES)}: name its table as metadata")
    if source.layout in ("auto", "metadata") and table is not None:
        return "metadata", table
    if source.layout != "auto":
        return source.layout, None
    captions = any(file.with_suffix(".txt").is_file() for file in _files(folder))
    return ("captions" if captions else "classes"), None


def _table(source: FolderSettings) -> Path | None:
    if source.metadata is None:
        tables = (source.folder / name for name in TABLES)
        return next((file for file in tables if file.is_file()), None)
    file = source.folder / source.metadata
    if not file.is_file() or file.suffix.lower() not in (".csv", ".jsonl", ".parquet"):
        raise UserError(f"metadata {file} must be a .csv, .jsonl or .parquet file that is there")
    return file


def _of_table(source: FolderSettings, table: Path, columns: Sequence[str]) -> Iterator[Gathered]:
    """The pictures that the table names, then those of the folder that it does not."""
    folder, column = source.folder, source.picture
    rows = _rows(table)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{table} has no rows: it needs one a picture")
    if column not in first[1]:
        raise UserError(
            f"{where_is(table, first[0])} has no {column} (it has: {', '.join(first[1])}): set "
            "picture to the column that names the pictures' files"
        )
    named: set[str] = set()
    for number, row in chain([first], rows):
        given = row.get(column)
        if not isinstance(given, str) or not given.strip():
            problem = f"no picture: {where_is(table, number)} has an empty {column}"
            yield Gathered(f"row {number}", None, {}, problem)
            continue
        name = given.strip()
        named.add(os.path.normpath(name))
        fields = _with_caption(said(row, columns), folder / name, source.columns.caption, folder)
        yield _placed(folder, name, fields)
    for file in _files(folder):
        name = file.relative_to(folder).as_posix()
        if name not in named and file != table:
            yield Gathered(
                clean(name), None, {}, f"not in the table: {table.name} does not name it"
            )


def _of_files(folder: Path, caption: str, *, with_class: bool) -> Iterator[Gathered]:
    for file in _files(folder):
        name = file.relative_to(folder).as_posix()
        fields: dict[str, Field] = {}
        if with_class and "/" in name:
            fields[CLASS] = clean(name.partition("/")[0])
        yield _placed(folder, name, _with_caption(fields, file, caption, folder))


def _placed(folder: Path, name: str, fields: Mapping[str, Field]) -> Gathered:
    """The picture, if it lies where it may."""
    file = folder / name
    try:
        inside = file.resolve().is_relative_to(folder.resolve())
        there = inside and file.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # names too long, with NUL, or in a circle
        return Gathered(clean(name), None, fields, f"cannot be read ({error})")
    if not inside:
        return Gathered(clean(name), None, fields, "leads out of its folder: not read")
    if not there:
        return Gathered(clean(name), None, fields, "missing: there is no such file")
    return Gathered(clean(name), file, fields)


def _with_caption(
    fields: dict[str, Field], file: Path, caption: str, folder: Path
) -> dict[str, Field]:
    """The fields, with the text of the .txt beside the picture where they hold no caption."""
    text = file.with_suffix(".txt") if file.name else file
    if caption in fields or text == file:
        return fields
    try:
        if not text.resolve().is_relative_to(folder.resolve()) or not text.is_file():
            return fields
        with text.open("rb") as open_file:
            words = open_file.read(LONGEST_CAPTION).decode("utf-8-sig", "replace").split()
    except (OSError, ValueError, RuntimeError):
        return fields
    return {**fields, caption: " ".join(words)} if words else fields


def _files(folder: Path) -> Iterator[Path]:
    """Files that may be pictures, by name; hidden ones and linked folders are passed by."""
    for where, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            hidden = name.startswith(".")
            if not hidden and Path(name).suffix.lower() not in NO_PICTURES:
                yield Path(where) / name


def _rows(table: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(number, row) of a table; the number is the line as an editor shows it, else the row's."""
    try:
        match table.suffix.lower():
            case ".parquet":
                number = 0
                for batch in pq.ParquetFile(table).iter_batches(1000):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, row
            case ".csv":
                with table.open(encoding="utf-8-sig", newline="") as file:
                    reader = csv.DictReader(file)
                    for row in reader:
                        yield reader.line_num, {k: v for k, v in row.items() if k is not None}
            case _:
                with table.open(encoding="utf-8-sig") as file:
                    for number, line in enumerate(file, 1):
                        if line.strip():
                            yield number, _json(line, where_is(table, number))
    except (
        OSError,
        ValueError,
        csv.Error,
    ) as error:  # of pyarrow too, whose errors are ValueErrors
        raise UserError(f"{table} cannot be read ({error}): mend or replace it") from None


def _json(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is no JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(f"{where} must be a mapping of columns, got {line.strip()[:80]}")
    return row


def where_is(table: Path, number: int) -> str:
    """How a message names a row of a table."""
    return f"{table.name} {'row' if table.suffix.lower() == '.parquet' else 'line'} {number}"


def clean(name: str) -> str:
    """A file's name as text that any page can hold; bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")
