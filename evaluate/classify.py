"""Reading attributes off a study's pictures, into one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from unskew.attributes import SUBJECT, attributes_to_read
from unskew.evaluate.classifiers.exemplar import ExemplarClassifier
from unskew.evaluate.generate import Cell
from unskew.runs import atomic_path, sha256_file

BATCH = 256
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
    ]
)


def read_arm(
    arm: str, cells: Sequence[Cell], arm_folder: Path, classifier: ExemplarClassifier
) -> list[dict[str, object]]:
    """One row a picture and attribute: the attributes of its prompt, and its subject."""
    rows: list[dict[str, object]] = []
    for part in _parts(cells):
        images = load_images(part, arm_folder)
        wanted = attributes_to_read(a for cell in part for a in cell.prompt.attributes)
        readings = classifier.read(images, [SUBJECT, *wanted])
        for n, cell in enumerate(part):
            sha256 = sha256_file(cell.file(arm_folder))
            for attribute in (SUBJECT, *attributes_to_read(cell.prompt.attributes)):
                reading = readings[attribute]
                k = int(reading.value_n[n])
                rows.append(
                    {
                        "arm": arm,
                        "prompt_id": cell.prompt.id,
                        "suite": cell.prompt.suite,
                        "seed": cell.seed,
                        "attribute": attribute,
                        "value": reading.values[k] if k >= 0 else None,
                        "readable": k >= 0,
                        "probabilities": reading.probability_nk[n].tolist() if k >= 0 else None,
                        "classifier": classifier.name,
                        "image_sha256": sha256,
                    }
                )
    return rows


def load_images(cells: Sequence[Cell], arm_folder: Path) -> NDArray[np.uint8]:
    """(n, h, w, 3) RGB of cells that were drawn."""
    images = []
    for cell in cells:
        with Image.open(cell.file(arm_folder)) as image:
            images.append(np.asarray(image.convert("RGB")))
    return np.stack(images)


def pooled_pixels(
    cells: Sequence[Cell], arm_folder: Path, grid: int = 8
) -> Mapping[str, NDArray[np.float64]]:
    """Prompt id -> (seeds, grid * grid * 3) mean colours in [0, 1] of a grid laid on the picture.

    The feature space in which drift is measured where no image model is at hand.
    """
    features: dict[str, list[NDArray[np.float64]]] = {}
    for part in _parts(cells):
        images = load_images(part, arm_folder)
        n, h, w, _ = images.shape
        blocks = images[:, : h // grid * grid, : w // grid * grid].reshape(
            n, grid, h // grid, grid, w // grid, 3
        )
        for cell, row in zip(part, blocks.mean(axis=(2, 4)).reshape(n, -1) / 255, strict=True):
            features.setdefault(cell.prompt.id, []).append(row)
    return {prompt: np.stack(rows) for prompt, rows in features.items()}


def write_readings(rows: Sequence[Mapping[str, object]], file: Path) -> pd.DataFrame:
    """Write readings.parquet whole or not at all; the table as it was written."""
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    with atomic_path(file) as temporary:
        pq.write_table(table, temporary)
    return table.to_pandas()


def _parts(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    remaining = iter(cells)
    while part := list(islice(remaining, BATCH)):
        yield part
