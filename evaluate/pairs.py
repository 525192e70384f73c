"""One picture of a study: a few prompts, the same seeds, one row an arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from unskew.evaluate.generate import Cell
from unskew.evaluate.pictures import PictureError, read_picture
from unskew.runs import atomic_path

PROMPTS = 6
SEEDS = 12
GAP_PX = 6
LABEL_PX = 14
LARGEST_PX = 128
"""Larger pictures are shrunk to this side."""
FILE = "pairs.png"


def write_pairs(
    arms: Mapping[str, Mapping[Cell, Path]], cells: Sequence[Cell], folder: Path
) -> None:
    """Write the grid of neutral prompts, evenly spaced over `cells`; rows of a prompt touch.

    `arms` gives each arm's picture files. What is missing or broken is left blank. At most
    `PROMPTS` prompts and `SEEDS` seeds are shown.
    """
    by_prompt: dict[str, list[Cell]] = {}
    for cell in cells:
        by_prompt.setdefault(cell.prompt.text, []).append(cell)
    texts = list(by_prompt)
    shown = [texts[i * len(texts) // PROMPTS] for i in range(min(PROMPTS, len(texts)))]
    side = _side(arms, [cell for text in shown for cell in by_prompt[text]])
    seeds = max(min(len(by_prompt[text]), SEEDS) for text in shown)
    block = side * len(arms) + LABEL_PX + GAP_PX
    page = Image.new("RGB", (seeds * side, len(shown) * block), "white")
    pen = ImageDraw.Draw(page)
    for row, text in enumerate(shown):
        label = f"{' '.join(text.split())[:120]}   ({' / '.join(arms)}, from above)"[:160]
        pen.text((2, row * block), label, fill="black")
        for line, files in enumerate(arms.values()):
            for column, cell in enumerate(by_prompt[text][:SEEDS]):
                if small := _small(files.get(cell), side):
                    page.paste(small, (column * side, row * block + LABEL_PX + line * side))
    with atomic_path(folder / FILE) as temporary:
        page.save(temporary, format="PNG", optimize=True)


def _side(arms: Mapping[str, Mapping[Cell, Path]], cells: Sequence[Cell]) -> int:
    """The larger side of the first picture that can be opened, LARGEST_PX at most."""
    for cell in cells:
        for files in arms.values():
            if small := _small(files.get(cell), LARGEST_PX):
                return max(small.size)
    return LARGEST_PX


def _small(file: Path | None, side: int) -> Image.Image | None:
    if file is None:
        return None
    try:
        image = Image.fromarray(read_picture(file))
    except PictureError:
        return None
    image.thumbnail((side, side), Image.Resampling.BOX)
    return image
