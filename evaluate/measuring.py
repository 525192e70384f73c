"""Measuring a study's pictures as pictures: what was measured is kept, and not measured again.

meter = Meter(features, agreement, run_folder / "measured", frozenset({"control"}))
measured = meter.measure(cells, pictures, control_cells)

Pictures are opened in parts (`classify.parts_of`), each once a part. Only figures, and a grey copy
of 32 pixels a side, stay in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unskew.evaluate.agreement import AgreementModel
from unskew.evaluate.classifiers.reading import Images
from unskew.evaluate.classify import (
    MOST_PX,
    PART,
    ArmPictures,
    opened,
    opened_together,
    parts_of,
)
from unskew.evaluate.features import Features
from unskew.evaluate.generate import Cell
from unskew.evaluate.looks import LOOKS, SMALL_PX, TONES, looks_of
from unskew.evaluate.stats import Floats, Ints
from unskew.runs import atomic_path

Vectors = NDArray[np.float32]
Embed = Callable[[Images], Vectors]
LOOKED = "looks 2"
"""What kept figures are known by: what measures otherwise must not find these."""


@dataclass(frozen=True)
class Measured:
    """What was measured in a study's pictures. Axes: a arms, n cells, in the study's order."""

    at: Mapping[str, Ints]
    """Suite -> (p, s) number of the cell of each prompt and seed."""
    tones_an: Mapping[str, Floats]
    """Sharpness, contrast and colourfulness; NaN where no picture is whole."""
    blank_an: NDArray[np.bool_]
    pixels_an: Ints
    """A number that only equal pictures share, -1 where no picture is whole."""
    sizes_an: Ints
    """A number that only pictures of one width and height share; any where none is whole."""
    small_anhw: NDArray[np.uint8]
    """Grey copies."""
    agreement_an: Floats
    """Cosine between picture and prompt; NaN where no picture is whole, or without a model."""
    agreement: AgreementModel | None
    features: Mapping[str, Mapping[str, Floats]]
    """Arm -> control prompt id -> (seeds, d)."""


@dataclass(frozen=True)
class Looked:
    """What was measured in a part of an arm's pictures."""

    whole: Sequence[Cell]
    """Those that are there and can be read."""
    looks: pa.Table
    """A row for each of them."""
    embedded_nd: Vectors
    """A row for each of them; none without a model for agreement."""
    featured: Sequence[Cell]
    """The control cells among them."""
    feature_nd: Vectors


@dataclass(frozen=True)
class Meter:
    """Measures pictures, and keeps what it measured."""

    features: Features
    agreement: AgreementModel | None
    kept: Path
    """Folder for it."""
    controls: frozenset[str]
    """The suites whose features are wanted."""

    def see(self, images: Images) -> None:
        """Measure pictures and keep nothing, to learn how long it takes."""
        looks_of(images)
        self.features.of(images)
        if self.agreement:
            self.agreement.pictures(images)

    def look(self, pictures: ArmPictures, part: Sequence[Cell]) -> Looked:
        """What a part of an arm's pictures shows: from the folder, or measured and put there.

        Missing and broken pictures are left out.
        """
        whole = [c for c in part if c in pictures.files and c not in pictures.broken]
        featured = [cell for cell in whole if cell.prompt.suite in self.controls]
        sha = {cell: pictures.hash_of(cell) for cell in whole}
        small: dict[Cell, NDArray[np.uint8]] = {}

        def image_of(cell: Cell) -> NDArray[np.uint8]:
            image = small[cell] if cell in small else opened(pictures.files[cell])
            if image.size * PART <= 3 * MOST_PX:  # else it is opened again rather than held
                small[cell] = image
            return image

        def known(name: str, cells: Sequence[Cell], see: Callable[[Images], pa.Table]) -> pa.Table:
            file = self._file(name, [sha[cell] for cell in cells])
            if not file.is_file():
                tables = [see(images) for images in opened_together(map(image_of, cells))]
                with atomic_path(file) as temporary:
                    pq.write_table(pa.concat_tables(tables), temporary)
            return pq.read_table(file)

        def vectors(name: str, cells: Sequence[Cell], embed: Embed) -> Vectors:
            if not cells:
                return np.zeros((0, 0), dtype=np.float32)
            table = known(name, cells, lambda images: pa.table({"vector": list(embed(images))}))
            flat = table["vector"].combine_chunks().values.to_numpy()
            return np.asarray(flat, dtype=np.float32).reshape(len(cells), -1)

        looks = known(LOOKED, whole, looks_of) if whole else LOOKS.empty_table()
        agreement = self.agreement
        return Looked(
            whole,
            looks,
            vectors(f"agreement {agreement.name}", whole, agreement.pictures)
            if agreement
            else np.zeros((0, 0), dtype=np.float32),
            featured,
            vectors(self.features.name, featured, self.features.of),
        )

    def _file(self, name: str, sha256: Sequence[str]) -> Path:
        folder = hashlib.sha256(name.encode()).hexdigest()[:16]
        key = hashlib.sha256(json.dumps(sha256).encode()).hexdigest()[:32]
        return self.kept / folder / f"{key}.parquet"

    def measure(
        self,
        cells: Sequence[Cell],
        pictures: Mapping[str, ArmPictures],
        control_cells: Collection[Cell],
    ) -> Measured:
        """All that is measured in the pictures of all arms; features of the control cells given.

        `cells` go suite by suite, prompt by prompt, with as many seeds for each of a suite.
        """
        shape = (len(pictures), len(cells))
        tones_an = {tone: np.full(shape, np.nan) for tone in TONES}
        blank_an, pixels_an = np.zeros(shape, np.bool_), np.full(shape, -1, np.int64)
        sizes_an, sizes = np.full(shape, -1, np.int64), dict[str, int]()
        small_anhw = np.zeros((*shape, SMALL_PX, SMALL_PX), np.uint8)
        agreement_an = np.full(shape, np.nan)
        texts = self._texts(cells)
        number_of, numbers = {cell: n for n, cell in enumerate(cells)}, dict[str, int]()
        wanted = set(control_cells)
        features: dict[str, dict[str, list[Vectors]]] = {arm: {} for arm in pictures}
        for a, (arm, found) in enumerate(pictures.items()):
            for part in parts_of(cells):
                looked = self.look(found, part)
                at = np.array([number_of[cell] for cell in looked.whole], dtype=np.int64)
                for tone in TONES:
                    tones_an[tone][a, at] = looked.looks[tone].to_numpy()
                blank_an[a, at] = looked.looks["blank"].to_numpy()
                hashes = looked.looks["pixels"].to_pylist()
                pixels_an[a, at] = [numbers.setdefault(sha, len(numbers)) for sha in hashes]
                said = looked.looks["size"].to_pylist()
                sizes_an[a, at] = [sizes.setdefault(size, len(sizes)) for size in said]
                small = b"".join(looked.looks["small"].to_pylist())
                small_anhw[a, at] = np.frombuffer(small, np.uint8).reshape(-1, SMALL_PX, SMALL_PX)
                if texts and len(at):
                    said_nd = np.stack([texts[cell.prompt.id] for cell in looked.whole])
                    agreement_an[a, at] = (said_nd * looked.embedded_nd).sum(axis=1)
                for cell, feature_d in zip(looked.featured, looked.feature_nd, strict=True):
                    if cell in wanted:
                        features[arm].setdefault(cell.prompt.id, []).append(feature_d)
        return Measured(
            _places(cells),
            tones_an,
            blank_an,
            pixels_an,
            sizes_an,
            small_anhw,
            agreement_an,
            self.agreement,
            {
                arm: {id: np.stack(rows).astype(np.float64) for id, rows in mine.items()}
                for arm, mine in features.items()
            },
        )

    def _texts(self, cells: Sequence[Cell]) -> dict[str, Vectors]:
        """Prompt id -> the embedding of its words; empty without a model for agreement."""
        if self.agreement is None:
            return {}
        prompts = {cell.prompt.id: cell.prompt.text for cell in cells}
        return dict(zip(prompts, self.agreement.texts(list(prompts.values())), strict=True))


def _places(cells: Sequence[Cell]) -> dict[str, Ints]:
    """Suite -> (p, s) numbers of its cells."""
    numbers: dict[str, dict[str, list[int]]] = {}
    for n, cell in enumerate(cells):
        numbers.setdefault(cell.prompt.suite, {}).setdefault(cell.prompt.id, []).append(n)
    return {suite: np.array(list(rows.values())) for suite, rows in numbers.items()}
