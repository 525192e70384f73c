"""One picture of a study: a few prompts, the same seeds, one row an arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from unskew.evaluate.classify import load_images
from unskew.evaluate.generate import Cell
from unskew.runs import atomic_path

PROMPTS = 6
SEEDS = 12
GAP_PX = 6
LABEL_PX = 14


def write_pairs(arms: Sequence[str], cells: Sequence[Cell], images: Path, file: Path) -> None:
    """Write the grid of neutral prompts, evenly spaced over `cells`; rows of a prompt touch.

    `images` holds a folder for each arm. At most `PROMPTS` prompts and `SEEDS` seeds are shown.
    """
    by_prompt: dict[str, list[Cell]] = {}
    for cell in cells:
        by_prompt.setdefault(cell.prompt.text, []).append(cell)
    texts = list(by_prompt)
    shown = [texts[i * len(texts) // PROMPTS] for i in range(min(PROMPTS, len(texts)))]
    blocks = [
        np.concatenate(
            [np.concatenate(load_images(by_prompt[t][:SEEDS], images / arm), 1) for arm in arms]
        )
        for t in shown
    ]
    width = max(block.shape[1] for block in blocks)
    height = sum(block.shape[0] + LABEL_PX + GAP_PX for block in blocks)
    page = Image.new("RGB", (width, height), "white")
    pen, top = ImageDraw.Draw(page), 0
    for text, block in zip(shown, blocks, strict=True):
        pen.text((2, top), f"{text}   ({' / '.join(arms)}, from above)"[:160], fill="black")
        page.paste(Image.fromarray(block), (0, top + LABEL_PX))
        top += block.shape[0] + LABEL_PX + GAP_PX
    with atomic_path(file) as temporary:
        page.save(temporary, format="PNG", optimize=True)
