"""Reading attributes off a study's pictures, into one table; nothing is read twice.

Pictures are read in parts that follow from the plan alone. What a classifier said of a part is kept
in the study's folder under the pictures' own sha256, so that a study that goes on, or is read by
another classifier and then by this one again, takes it from there.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unskew.attributes import SUBJECT, attributes_to_read
from unskew.errors import UserError
from unskew.evaluate.classifiers.reading import Classifier
from unskew.evaluate.generate import Cell
from unskew.evaluate.pictures import PictureError, read_picture
from unskew.runs import atomic_path, sha256_file

PART = 64
"""Pictures read together, and lost together where the program is killed while it reads."""
MOST_PX = 64 * 1024 * 1024
"""Pixels of pictures that are open together, 200 MB: a part of SDXL's, three of a camera's."""
SCHEMA = pa.schema(
    [
        ("arm", pa.string()),
        ("prompt_id", pa.string()),
        ("suite", pa.string()),
        ("seed", pa.int64()),
        ("attribute", pa.string()),
        ("value", pa.string()),
        ("readable", pa.bool_()),
        ("probabilities", pa.list_(pa.float32())),
        ("classifier", pa.string()),
        ("image_sha256", pa.string()),
        ("warning", pa.string()),
    ]
)
Row = dict[str, Any]
SAID = ("attribute", "value", "probabilities", "warning")
KEPT = pa.schema([("picture", pa.int64()), *[SCHEMA.field(name) for name in SAID]])


@dataclass(frozen=True)
class Reader:
    """A classifier, and what this study asks it."""

    classifier: Classifier
    attributes: Mapping[str, tuple[str, ...] | None]
    """Attribute -> the values that it may say; None where they are the classifier's own."""
    identity: str
    """sha256 of all that its answers depend on beside the picture."""


@dataclass(frozen=True)
class ArmPictures:
    """The pictures of an arm that are there."""

    arm: str
    files: Mapping[Cell, Path]
    sha256: Mapping[Cell, str]
    """Of those whose hash is known already."""
    broken: Mapping[Cell, str]
    """Cells whose picture cannot be read."""

    def hash_of(self, cell: Cell) -> str:
        """sha256 of a picture that is there."""
        return self.sha256.get(cell) or sha256_file(self.files[cell])


def read_arm(
    pictures: ArmPictures, cells: Sequence[Cell], readers: Sequence[Reader], kept: Path
) -> pa.Table:
    """A row a picture and attribute that has a reader: its prompt's attributes, and its subject.

    `kept` is the folder of what was read before. A picture that cannot be opened is unreadable. One
    of which nothing is read has a row without an attribute: it is there, no more.
    """
    tables = [read_part(pictures, part, readers, kept) for part in parts_of(cells)]
    return pa.concat_tables([SCHEMA.empty_table(), *tables])


def parts_of(cells: Sequence[Cell]) -> Iterator[Sequence[Cell]]:
    """The cells in the parts that are read together."""
    return (cells[start : start + PART] for start in range(0, len(cells), PART))


def read_part(
    pictures: ArmPictures, part: Sequence[Cell], readers: Sequence[Reader], kept: Path
) -> pa.Table:
    """`read_arm` of one part."""
    there = [cell for cell in part if cell in pictures.files]
    sha = {cell: pictures.hash_of(cell) for cell in there}
    whole = [cell for cell in there if cell not in pictures.broken]
    rows: list[Row] = []
    for reader in readers:
        asked = [tuple(a for a in reader.attributes if _asks(cell, a)) for cell in whole]
        said = _said(pictures, whole, [sha[c] for c in whole], asked, reader, kept)
        rows += [
            {**row, "cell": whole[row.pop("picture")], "classifier": reader.classifier.name}
            for row in said
        ]
        rows += [
            {"attribute": attribute, "cell": cell, "classifier": reader.classifier.name}
            for cell in there
            if cell in pictures.broken
            for attribute in reader.attributes
            if _asks(cell, attribute)
        ]
    read = {row["cell"] for row in rows}
    rows += [{"cell": cell} for cell in there if cell not in read]
    return pa.Table.from_pylist([_placed(row, pictures.arm, sha) for row in rows], schema=SCHEMA)


def _placed(row: Row, arm: str, sha256: Mapping[Cell, str]) -> Row:
    """The row with what says which picture it is about, in place of its cell."""
    cell = row.pop("cell")
    return {
        **row,
        "arm": arm,
        "prompt_id": cell.prompt.id,
        "suite": cell.prompt.suite,
        "seed": cell.seed,
        "readable": row.get("value") is not None,
        "image_sha256": sha256[cell],
    }


def _asks(cell: Cell, attribute: str) -> bool:
    return attribute == SUBJECT or attribute in attributes_to_read(cell.prompt.attributes)


def _said(
    pictures: ArmPictures,
    cells: Sequence[Cell],
    sha256: Sequence[str],
    asked: Sequence[tuple[str, ...]],
    reader: Reader,
    kept: Path,
) -> list[Row]:
    """What a reader says of these pictures: from the folder, or read now and put there."""
    key = hashlib.sha256(json.dumps([sha256, asked]).encode()).hexdigest()
    file = kept / reader.identity[:16] / f"{key[:32]}.parquet"
    if not file.is_file():
        rows: list[Row] = []
        done = 0
        for images in opened_together(opened(pictures.files[cell]) for cell in cells):
            rows += _read_now(images, asked[done : done + len(images)], reader, done)
            done += len(images)
        with atomic_path(file) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=KEPT), temporary)
    said: list[Row] = pq.read_table(file).to_pylist()
    return said


def opened(file: Path) -> NDArray[np.uint8]:
    """(h, w, 3) RGB of a picture of the study. Raises UserError, which says what to do."""
    try:
        return read_picture(file)
    except PictureError as error:
        raise UserError(
            f"{file} cannot be read ({error}): delete it, and the same command draws it again"
        ) from None


def opened_together(
    images: Iterable[NDArray[np.uint8]],
) -> Iterator[list[NDArray[np.uint8]]]:
    """Pictures in their order, as many at once as have MOST_PX pixels, one at least."""
    some: list[NDArray[np.uint8]] = []
    pixels = 0
    for image in images:
        own = image.shape[0] * image.shape[1]
        if some and pixels + own > MOST_PX:
            yield some
            some, pixels = [], 0
        some.append(image)
        pixels += own
    if some:
        yield some


def _read_now(
    images: Sequence[NDArray[np.uint8]],
    asked: Sequence[tuple[str, ...]],
    reader: Reader,
    first: int,
) -> list[Row]:
    """Rows of these pictures; `first` is the number of the first of them in its part."""
    wanted = list(dict.fromkeys(attribute for some in asked for attribute in some))
    if not wanted:
        return []
    readings = reader.classifier.read(images, wanted)
    for attribute in wanted:
        values = reader.attributes[attribute]
        if values is not None and tuple(readings[attribute].values) != values:
            raise UserError(
                f"classifier {reader.classifier.name} says {attribute} is one of "
                f"{list(readings[attribute].values)[:12]}, but its values are {list(values)}: "
                "give it labels of this list"
            )
    rows: list[Row] = []
    for n, some in enumerate(asked):
        for attribute in some:
            reading = readings[attribute]
            k = int(reading.value_n[n])
            probabilities = reading.probability_nk[n].tolist() if k >= 0 else None
            value = reading.values[k] if k >= 0 else None
            rows.append(
                {
                    "picture": first + n,
                    "attribute": attribute,
                    "value": value,
                    "probabilities": probabilities,
                    "warning": reading.warnings.get(n),
                }
            )
    return rows


def write_readings(tables: Sequence[pa.Table], file: Path) -> pd.DataFrame:
    """Write readings.parquet whole or not at all; the table as it was written."""
    table = pa.concat_tables(tables)
    with atomic_path(file) as temporary:
        pq.write_table(table, temporary)
    return table.to_pandas()


class ReadingAhead:
    """Reads the pictures of drawn arms in a thread, as they come onto the disk.

    Only where something else than these cores draws: on a CPU it would take them from drawing.
    `look` reads a part of an arm's pictures and keeps what it read, for `read_arm` to find.
    """

    def __init__(
        self,
        arms: Mapping[str, Path],
        cells: Sequence[Cell],
        look: Callable[[ArmPictures, Sequence[Cell]], object],
    ) -> None:
        self.arms, self.cells, self.look = arms, cells, look
        self.end = threading.Event()
        self.threads = ThreadPoolExecutor(1)
        self.work: Future[None] | None = None

    def __enter__(self) -> Self:
        self.work = self.threads.submit(self._read)
        return self

    def __exit__(self, *error: object) -> None:
        self.end.set()
        self.threads.shutdown()
        if self.work is not None and error[0] is None:
            self.work.result()

    def _read(self) -> None:
        for arm, folder in self.arms.items():
            for part in parts_of(self.cells):
                files = {cell: cell.file(folder) for cell in part}
                while not all(file.exists() for file in files.values()):
                    if self.end.wait(0.2):
                        return
                self.look(ArmPictures(arm, files, {}, {}), part)
                if self.end.is_set():
                    return
