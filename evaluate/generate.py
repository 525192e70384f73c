"""Drawing a study's pictures: the same cells from the same noise in every arm.

A picture depends a little on the batch it is drawn in, so the cells are cut once into fixed,
padded batches; a resumed or sharded study takes whole batches and gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unskew.evaluate.pictures import save_picture
from unskew.families import Text, family_of, stack_texts
from unskew.noise import cell_generator, noise_of
from unskew.prompts import Prompt

DECODED_TOGETHER = 16
"""Latents that the VAE decodes at once: on a CPU more of them outgrow its caches and take longer
a picture, on a GPU they take memory that denoising could have had."""
SAVERS = 4
"""Threads that compress and write; waiting for the disk costs drawing nothing."""


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
    words: Callable[[Prompt], str] = lambda prompt: prompt.text,
    negative: str = "",
    heard: dict[str, Text] | None = None,
) -> Iterator[int]:
    """Draw every batch into the arm's folder; yields each batch's number of pictures, once saved.

    `words` are what is drawn for a prompt; its noise stays that of the prompt as it was. A batch is
    saved while the next is drawn, and what was drawn is saved even where drawing ends early.
    `heard` is what captions became before, by the same text encoders; new ones are added.
    """
    states = TextStates(pipe, sampler.guidance > 1, negative, heard)
    pending: list[Future[None]] = []
    with ThreadPoolExecutor(SAVERS) as savers:
        for part in batches:
            images_nhwc = draw_batch(pipe, part, sampler, states([words(c.prompt) for c in part]))
            if pending:
                yield _saved(pending)
            once = dict(zip(part, images_nhwc, strict=True))
            pending = [
                savers.submit(save_picture, image, cell.file(arm_folder))
                for cell, image in once.items()
            ]
        if pending:
            yield _saved(pending)


def _saved(pending: Sequence[Future[None]]) -> int:
    """Wait for pictures to be on disk; their number. Raises what kept one from it."""
    for saving in pending:
        saving.result()
    return len(pending)


def draw_batch(
    pipe: Any,
    cells: Sequence[Cell],
    sampler: Sampler,
    states: dict[str, Any],
) -> NDArray[np.uint8]:
    """(n, h, w, 3) uint8 pictures of n cells.

    A cell's generator makes its noise and then whatever a stochastic sampler adds on the way.
    """
    size = sampler.resolution_px // pipe.vae_scale_factor
    generators = [cell_generator(cell.prompt.text, cell.seed) for cell in cells]
    noise = noise_of(generators, (pipe.unet.config.in_channels, size, size))
    with torch.inference_mode(), _decoding_in_slices(pipe.vae):
        pictures = pipe(
            **states,
            latents=noise.to(pipe.device, pipe.unet.dtype),
            generator=generators,
            num_inference_steps=sampler.steps,
            guidance_scale=sampler.guidance,
            height=sampler.resolution_px,
            width=sampler.resolution_px,
            output_type="np",
        ).images
    return np.asarray((pictures * 255).round().clip(0, 255).astype(np.uint8))


@contextmanager
def _decoding_in_slices(vae: Any) -> Iterator[None]:
    """Inside, the pipeline decodes as ever, but DECODED_TOGETHER at a time."""
    whole, own = vae.decode, vars(vae).get("decode")

    def decode(latents_bchw: Tensor, *, return_dict: bool = False, **more: Any) -> tuple[Tensor]:
        parts = latents_bchw.split(DECODED_TOGETHER)
        return (torch.cat([whole(part, return_dict=False)[0] for part in parts]),)

    vae.decode = decode
    try:
        yield
    finally:
        if own is None:
            del vae.decode
        else:  # somebody's own, which is to stay
            vae.decode = own


class TextStates:
    """Text encoder outputs, each prompt encoded once: suites repeat a prompt for every seed."""

    def __init__(
        self, pipe: Any, guided: bool, negative: str = "", heard: dict[str, Text] | None = None
    ) -> None:
        self.pipe, self.guided, self.negative = pipe, guided, negative
        self.family = family_of(pipe)
        self.known: dict[str, Text] = {} if heard is None else heard

    def __call__(self, texts: Sequence[str]) -> dict[str, Any]:
        """The pipeline's arguments for these prompts, with the negative one's if guided."""
        asked = stack_texts([self._text(text) for text in texts])
        away = stack_texts([self._text(self.negative)] * len(texts)) if self.guided else None
        return self.family.asked(asked, away)

    def _text(self, text: str) -> Text:
        if text not in self.known:
            with torch.inference_mode():
                [self.known[text]] = self.family.encode(self.pipe, [text])
        return self.known[text]
