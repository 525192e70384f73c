"""Drawing a study's pictures: the same cells from the same noise in every arm.

A picture depends a little on the batch it is drawn in, so the cells are cut once into fixed,
padded batches; a resumed or sharded study takes whole batches and gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unskew.families import Text, family_of, stack_texts
from unskew.noise import cell_generator, cell_noise
from unskew.prompts import Prompt
from unskew.runs import atomic_path


@dataclass(frozen=True)
class Cell:
    """One (prompt, seed): what pairs a picture of one arm with a picture of another."""

    prompt: Prompt
    seed: int

    def file(self, arm_folder: Path) -> Path:
        """Where this cell's picture lies in an arm's folder."""
        return arm_folder / self.prompt.id / f"{self.seed}.png"


@dataclass(frozen=True)
class Sampler:
    """How a picture is drawn; the scheduler is the base's own."""

    steps: int
    guidance: float
    """Classifier-free guidance scale; 1 switches it off."""
    resolution_px: int
    batch: int
    """Cells drawn together. Part of what makes a picture: change it and bits change."""


def plan_batches(cells: Sequence[Cell], batch: int) -> tuple[tuple[Cell, ...], ...]:
    """Fixed batches of exactly `batch` cells; the last is padded with its own first cells."""
    cut = [tuple(cells[start : start + batch]) for start in range(0, len(cells), batch)]
    return tuple((part * batch)[:batch] for part in cut)


def missing_batches(
    batches: Sequence[tuple[Cell, ...]], arm_folder: Path
) -> list[tuple[Cell, ...]]:
    """The batches of which at least one picture is not there yet."""
    return [part for part in batches if not all(cell.file(arm_folder).exists() for cell in part)]


def draw(
    pipe: Any,
    batches: Sequence[tuple[Cell, ...]],
    sampler: Sampler,
    arm_folder: Path,
    rewrite: Callable[[str], str] = lambda text: text,
) -> Iterator[int]:
    """Draw every batch into the arm's folder; yields the number of pictures after each batch.

    `rewrite` changes a prompt's words; its noise stays that of the words as they were.
    """
    states = TextStates(pipe, sampler.guidance > 1)
    for part in batches:
        images_nhwc = draw_batch(
            pipe, part, sampler, states([rewrite(c.prompt.text) for c in part])
        )
        for cell, image in zip(part, images_nhwc, strict=True):
            file = cell.file(arm_folder)
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(file) as temporary:
                Image.fromarray(image).save(temporary, format="PNG", compress_level=1)
        yield len(set(part))


def draw_batch(
    pipe: Any,
    cells: Sequence[Cell],
    sampler: Sampler,
    states: dict[str, Any],
) -> NDArray[np.uint8]:
    """(n, h, w, 3) uint8 pictures of n cells."""
    size = sampler.resolution_px // pipe.vae_scale_factor
    keys = [(cell.prompt.text, cell.seed) for cell in cells]
    noise = cell_noise(keys, (pipe.unet.config.in_channels, size, size))
    with torch.inference_mode():
        pictures = pipe(
            **states,
            latents=noise.to(pipe.device, pipe.unet.dtype),
            generator=[cell_generator(*key) for key in keys],
            num_inference_steps=sampler.steps,
            guidance_scale=sampler.guidance,
            height=sampler.resolution_px,
            width=sampler.resolution_px,
            output_type="np",
        ).images
    return np.asarray((pictures * 255).round().clip(0, 255).astype(np.uint8))


class TextStates:
    """Text encoder outputs, each prompt encoded once: suites repeat a prompt for every seed."""

    def __init__(self, pipe: Any, guided: bool) -> None:
        self.pipe, self.guided, self.family = pipe, guided, family_of(pipe)
        self.known: dict[str, Text] = {}

    def __call__(self, texts: Sequence[str]) -> dict[str, Any]:
        """The pipeline's arguments for these prompts, with the empty prompt's if guided."""
        asked = stack_texts([self._text(text) for text in texts])
        empty = stack_texts([self._text("")] * len(texts)) if self.guided else None
        return self.family.asked(asked, empty)

    def _text(self, text: str) -> Text:
        if text not in self.known:
            with torch.inference_mode():
                [self.known[text]] = self.family.encode(self.pipe, [text])
        return self.known[text]
