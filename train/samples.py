"""Sample grids: what the adapter draws so far, from the same noise every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from unskew.families import Text, family_of, stack_texts
from unskew.noise import cell_generator, cell_noise
from unskew.runs import atomic_path
from unskew.train.options import SampleSettings

CAPTION_PX = 16


def draw_grid(
    pipe: Any,
    texts: Mapping[str, Text],
    settings: SampleSettings,
    resolution_px: int,
    file: Path,
) -> None:
    """Draw prompts x seeds 0, 1, ... with the pipeline as it stands, one captioned row a prompt.

    `texts` are every prompt and "" as the UNet is told them; no text encoder is asked. A prompt's
    noise is that of its cells in a study: the same pictures, as far as batches leave bits alone.
    """
    rows = [_draw_row(pipe, texts, settings, resolution_px, prompt) for prompt in settings.prompts]
    with atomic_path(file) as temporary:
        _grid(settings.prompts, rows).save(temporary, format="PNG")


@torch.inference_mode()
def _draw_row(
    pipe: Any,
    texts: Mapping[str, Text],
    settings: SampleSettings,
    resolution_px: int,
    prompt: str,
) -> NDArray[np.uint8]:
    """(seeds, h, w, 3) pictures of one prompt."""
    cells = [(prompt, seed) for seed in range(settings.seeds)]
    size_px = resolution_px // pipe.vae_scale_factor
    noise = cell_noise(cells, (pipe.unet.config.in_channels, size_px, size_px))
    told = stack_texts([texts[prompt]] * len(cells), pipe.device)
    none = stack_texts([texts[""]] * len(cells), pipe.device)
    empty = none if settings.guidance > 1 else None
    pictures = pipe(
        **family_of(pipe).asked(told, empty),
        latents=noise.to(pipe.device),
        generator=[cell_generator(*cell) for cell in cells],
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        height=resolution_px,
        width=resolution_px,
        output_type="np",
    ).images
    return np.asarray((pictures * 255).round().clip(0, 255).astype(np.uint8))


def _grid(prompts: Sequence[str], rows: Sequence[NDArray[np.uint8]]) -> Image.Image:
    seeds, height, width, _ = rows[0].shape
    page = Image.new("RGB", (seeds * width, len(rows) * (height + CAPTION_PX)), "white")
    pen = ImageDraw.Draw(page)
    for number, (prompt, pictures) in enumerate(zip(prompts, rows, strict=True)):
        top = number * (height + CAPTION_PX)
        pen.text((2, top + 2), prompt, fill="black", font=ImageFont.load_default(11))
        for column, picture in enumerate(pictures):
            page.paste(Image.fromarray(picture), (column * width, top + CAPTION_PX))
    return page
