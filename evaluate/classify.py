"""Reading attributes off a study's pictures, into one table; nothing is read twice.

Pictures are read in parts that follow from the plan alone. What a classifier said of a part is kept
in the study's folder under the pictures' own sha256, so that a study that goes on, or is read by
another classifier and then by this one again, takes it from there.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unskew.attributes import SUBJECT
from unskew.errors import UserError
from unskew.evaluate.classifiers.exemplar import Readings
from unskew.evaluate.generate import Cell
from unskew.evaluate.pictures import PictureError, read_picture
from unskew.runs import atomic_path, sha256_file

PART = 64
"""Pictures read together, and lost together where the program is killed while it reads."""
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
KEPT = pa.schema([("picture", pa.int64()), *[SCHEMA.field(n) for n in ("attribute", "value")]])
KEPT = KEPT.append(SCHEMA.field("probabilities")).append(SCHEMA.field("warning"))


class Classifier(Protocol):
    """Reads attributes off pictures."""

    @property
    def name(self) -> str:
        """What readings.parquet says read them."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that it reads."""

    def read(
        self, images: Sequence[NDArray[np.uint8]], attributes: Sequence[str]
    ) -> Mapping[str, Readings]:
        """Attribute -> readings of (h, w, 3) uint8 RGB pictures, whose sizes may differ."""


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


def read_arm(
    pictures: ArmPictures, cells: Sequence[Cell], readers: Sequence[Reader], kept: Path
) -> pa.Table:
    """A row a picture and attribute: its prompt's attributes, and its subject.

    `kept` is the folder of what was read before. A picture that cannot be opened is unreadable. One
    of which nothing is read has one row without an attribute: it is there, no more.
    """
    tables = [_read_part(pictures, part, readers, kept) for part in parts_of(cells)]
    return pa.concat_tables([SCHEMA.empty_table(), *tables])


def parts_of(cells: Sequence[Cell]) -> Iterator[Sequence[Cell]]:
    """The cells in the parts that are read together."""
    return (cells[start : start + PART] for start in range(0, len(cells), PART))


def _read_part(
    pictures: ArmPictures, part: Sequence[Cell], readers: Sequence[Reader], kept: Path
) -> pa.Table:
    there = [cell for cell in part if cell in pictures.files]
    sha = {c: pictures.sha256.get(c) or sha256_file(pictures.files[c]) for c in there}
    places = {cell: _place(pictures.arm, cell, sha[cell]) for cell in there}
    whole = [cell for cell in there if cell not in pictures.broken]
    rows: list[Row] = []
    for reader in readers:
        asked = [tuple(a for a in reader.attributes if _asks(cell, a)) for cell in whole]
        said = _said(pictures, whole, [sha[c] for c in whole], asked, reader, kept)
        blank = (
            {"attribute": attribute, "value": None, "probabilities": None, "cell": cell}
            for cell in there
            if cell in pictures.broken
            for attribute in reader.attributes
            if _asks(cell, attribute)
        )
        answers = ({**row, "cell": whole[row.pop("picture")]} for row in said)
        for row in (*answers, *blank):
            cell = row.pop("cell")
            told = {**row, "readable": row["value"] is not None}
            rows.append({**places[cell], **told, "classifier": reader.classifier.name})
    silent = [c for c in there if not any(_asks(c, a) for r in readers for a in r.attributes)]
    rows += [{**places[cell], "readable": False} for cell in silent]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _place(arm: str, cell: Cell, sha256: str) -> Row:
    return {
        "arm": arm,
        "prompt_id": cell.prompt.id,
        "suite": cell.prompt.suite,
        "seed": cell.seed,
        "image_sha256": sha256,
    }


def _asks(cell: Cell, attribute: str) -> bool:
    return attribute == SUBJECT or attribute in cell.prompt.attributes


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
        images = [_opened(pictures.files[cell]) for cell in cells]
        rows = _read_now(images, asked, reader)
        with atomic_path(file) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=KEPT), temporary)
    said: list[Row] = pq.read_table(file).to_pylist()
    return said


def _opened(file: Path) -> NDArray[np.uint8]:
    try:
        return read_picture(file)
    except PictureError as error:
        raise UserError(
            f"{file} cannot be read ({error}): delete it, and the same command draws it again"
        ) from None


def _read_now(
    images: Sequence[NDArray[np.uint8]], asked: Sequence[tuple[str, ...]], reader: Reader
) -> list[Row]:
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
                    "picture": n,
                    "attribute": attribute,
                    "value": value,
                    "probabilities": probabilities,
                    "warning": getattr(reading, "warnings", {}).get(n),
                }
            )
    return rows


def pooled_pixels(
    pictures: ArmPictures, cells: Sequence[Cell], grid: int = 8
) -> Mapping[str, NDArray[np.float64]]:
    """Prompt id -> (seeds, grid * grid * 3) mean colours in [0, 1] of a grid laid on the picture.

    The feature space in which drift is measured where no image model is at hand.
    """
    features: dict[str, list[NDArray[np.float64]]] = {}
    for cell in cells:
        image = _opened(pictures.files[cell])
        h, w, _ = image.shape
        if min(h, w) < grid:
            image = np.repeat(np.repeat(image, grid, axis=0), grid, axis=1)
            h, w, _ = image.shape
        blocks = image[: h // grid * grid, : w // grid * grid]
        blocks = blocks.reshape(grid, h // grid, grid, w // grid, 3)
        row = blocks.mean(axis=(1, 3)).reshape(-1) / 255
        features.setdefault(cell.prompt.id, []).append(row)
    return {prompt: np.stack(rows) for prompt, rows in features.items()}


def write_readings(tables: Sequence[pa.Table], file: Path) -> pd.DataFrame:
    """Write readings.parquet whole or not at all; the table as it was written."""
    table = pa.concat_tables(tables)
    with atomic_path(file) as temporary:
        pq.write_table(table, temporary)
    return table.to_pandas()


class ReadingAhead:
    """Reads the pictures of drawn arms in a thread, as they come onto the disk.

    Only where something else than these cores draws: on a CPU it would take them from drawing.
    What it read is found in the folder by `read_arm`.
    """

    def __init__(
        self,
        arms: Mapping[str, Path],
        cells: Sequence[Cell],
        readers: Sequence[Reader],
        kept: Path,
    ) -> None:
        self.arms, self.cells, self.readers, self.kept = arms, cells, readers, kept
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
                _read_part(ArmPictures(arm, files, {}, {}), part, self.readers, self.kept)
                if self.end.is_set():
                    return
