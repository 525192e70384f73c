"""The cells that a bundle keeps, so that whoever has it can draw them again and compare.

A picture depends a little on the batch it was drawn in, so whole batches are kept: each cell with
its words, the hash of the study's picture in both arms, and a small reference picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unskew.adapters import load_adapter
from unskew.errors import UserError
from unskew.evaluate.generate import Cell, Sampler, TextStates, draw_batch, plan_batches
from unskew.evaluate.inputs import DTYPES, planned_cells
from unskew.evaluate.options import StudySettings
from unskew.evaluate.pictures import (
    PictureError,
    PictureFiles,
    picture_files,
    png_of,
    read_picture,
    save_picture,
)
from unskew.evaluate.samplers import use_sampler
from unskew.evaluate.schema import Results
from unskew.pipelines import choose_device, load_base
from unskew.prompts import Prompt
from unskew.runs import sha256_file, write_json_atomic
from unskew.scripts.belonging import StudyRun, settings_of
from unskew.scripts.bundle_schema import CELLS, Cells, DrawnCell, dumped

KEPT = 16
"""Cells at least, or all of a smaller study; rounded up to whole batches."""
REFERENCE_PX = 128
"""Larger pictures are shrunk to this side for the bundle."""


@dataclass(frozen=True)
class Pictures:
    """A study's cells and where their pictures lie."""

    settings: StudySettings
    cells: tuple[Cell, ...]
    files: PictureFiles

    def file(self, arm: str, cell: Cell) -> Path:
        """A cell's picture. Raises UserError where it is not there."""
        file = self.files.file(arm, cell.prompt.id, cell.seed)
        if file is None or not file.is_file():
            raise UserError(
                f"the study has no picture of {cell.prompt.text!r}, seed {cell.seed}, in arm "
                f"{arm}: give the study's command again, it draws what is missing"
            )
        return file


def pictures_of(study: StudyRun) -> Pictures:
    """The study's cells as its prompt files have them now.

    Raises UserError where these are no longer what the study drew.
    """
    settings = settings_of(StudySettings, study.manifest["settings"], study.folder)
    cells = planned_cells(settings)
    _check_prompts(study.results, [cell.prompt for cell in cells])
    return Pictures(settings, cells, picture_files(study.folder))


def _check_prompts(results: Results, prompts: Sequence[Prompt]) -> None:
    now = {(prompt.suite, prompt.id): prompt.text for prompt in prompts}
    for row in results.representation:
        for prompt in row.per_prompt:
            if now.get((row.suite, prompt.prompt_id)) != prompt.text:
                raise UserError(
                    f"the study drew {prompt.text!r} in suite {row.suite}, which its prompt files "
                    "no longer have: put them back as they were, or study again"
                )


def keep_cells(study: StudyRun, pictures: Pictures, bundle: Path) -> None:
    """Write some batches of the study, with reference pictures, into the bundle."""
    settings, arms = pictures.settings, (study.results.baseline, study.arm)
    batches = plan_batches(pictures.cells, settings.batch)
    wanted = min(len(batches), -(-KEPT // settings.batch))
    chosen = [batches[i * len(batches) // wanted] for i in range(wanted)]
    number = {cell: n for n, cell in enumerate(dict.fromkeys(c for part in chosen for c in part))}
    side = min(settings.resolution_px, REFERENCE_PX)
    for arm, label in zip(arms, ("base", "adapter"), strict=True):
        for cell, n in number.items():
            save_picture(
                shrunk(_whole(pictures.file(arm, cell)), side),
                bundle / f"cells/{label}/{n:03}.png",
            )

    def kept(cell: Cell) -> DrawnCell:
        names = [f"cells/{label}/{number[cell]:03}.png" for label in ("base", "adapter")]
        return DrawnCell(
            prompt_id=cell.prompt.id,
            text=cell.prompt.text,
            seed=cell.seed,
            drawn={a: settings.arms[a].rewritten(cell.prompt.id, cell.prompt.text) for a in arms},
            sha256={arm: sha256_file(pictures.file(arm, cell)) for arm in arms},
            reference=dict(zip(arms, names, strict=True)),
        )

    facts = study.manifest["facts"]
    cells = Cells(
        arms={study.results.baseline: None, study.arm: study.weight},
        sampler=settings.sampler,
        steps=settings.steps,
        guidance=settings.guidance,
        negative_prompt=settings.negative_prompt,
        resolution_px=settings.resolution_px,
        dtype=str(facts["dtype"]).split()[0],  # type: ignore[arg-type]
        device=str(facts["device"]).split()[0],
        reference_px=side,
        batches=tuple(tuple(kept(cell) for cell in part) for part in chosen),
    )
    write_json_atomic(bundle / CELLS, dumped(cells))


@dataclass(frozen=True)
class Redrawn:
    """A cell that was drawn again, compared with what the bundle has of it."""

    cell: DrawnCell
    arm: str
    same: bool
    """The very bytes of the study's picture file."""
    difference: float
    """Mean absolute difference from the reference picture, grey levels of 255."""


def redraw(cells: Cells, adapter: Path, base: Path, bundle: Path, wanted: int) -> Iterator[Redrawn]:
    """Draw kept cells again, at least `wanted` of them an arm (whole batches), and compare each."""
    device, _ = choose_device()
    pipe = load_base(base, device, DTYPES[cells.dtype])
    use_sampler(pipe, cells.sampler)  # type: ignore[arg-type]
    count = len(cells.batches[0]) if cells.batches else 1
    batches = cells.batches[: -(-wanted // count)]
    for arm, weight in cells.arms.items():
        if weight is not None:
            load_adapter(pipe, adapter, "bundle", weight)
        for batch in batches:
            yield from _compared(batch, arm, _draw(pipe, batch, arm, cells), bundle, cells)


def _draw(pipe: Any, batch: Sequence[DrawnCell], arm: str, cells: Cells) -> NDArray[np.uint8]:
    sampler = Sampler(cells.steps, cells.guidance, cells.resolution_px, len(batch))
    states = TextStates(pipe, cells.guidance > 1, cells.negative_prompt)
    asked = [
        Cell(Prompt(c.prompt_id, c.text, "kept", "kept", attributes=(), asked={}), c.seed)
        for c in batch
    ]
    with torch.inference_mode():
        return draw_batch(pipe, asked, sampler, states([cell.drawn[arm] for cell in batch]))


def _compared(
    batch: Sequence[DrawnCell],
    arm: str,
    images_nhwc: NDArray[np.uint8],
    bundle: Path,
    cells: Cells,
) -> Iterator[Redrawn]:
    seen = set()
    for cell, image in zip(batch, images_nhwc, strict=True):
        if (cell.prompt_id, cell.seed) in seen:  # a padded batch repeats its first cells
            continue
        seen.add((cell.prompt_id, cell.seed))
        same = hashlib.sha256(png_of(image)).hexdigest() == cell.sha256[arm]
        small, kept = shrunk(image, cells.reference_px), _whole(bundle / cell.reference[arm])
        difference = (
            float(np.abs(small.astype(float) - kept.astype(float)).mean())
            if small.shape == kept.shape
            else 255.0
        )
        yield Redrawn(cell, arm, same, difference)


def shrunk(image_hwc: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The picture with no side over `side`, by means of boxes; itself where it is small."""
    image = Image.fromarray(image_hwc)
    image.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(image)


def _whole(file: Path) -> NDArray[np.uint8]:
    try:
        return read_picture(file)
    except PictureError as error:
        raise UserError(f"{file} cannot be read: {error}") from None
