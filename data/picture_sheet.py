"""A sheet of a dataset's pictures: one of every combination, and how much its pictures count."""

from __future__ import annotations

import io
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from unskew.evaluate.pictures import read_picture

SHEET = "contact-sheet.png"
SUBJECTS, COMBINATIONS = 6, 15
"""The most that are shown."""
PICTURE_PX, GAP_PX, WORDS_PX, LEFT_PX = 72, 8, 18, 150

Combination = tuple[str | None, ...]


def picture_sheet(
    rows: Sequence[Mapping[str, Any]], values: Mapping[str, Sequence[str]], folder: Path
) -> bytes | None:
    """PNG with a line for each subject and a column for each combination of `values`.

    In each place the first picture that shows it, and under it "pictures x weight". `rows` are
    metadata.jsonl's, whose pictures lie in `folder`; `values` attribute -> its values. Of subjects
    with other attributes than most, none is shown. None where no row has a value.
    """
    shown = _shown(rows, tuple(values))
    if not shown:
        return None
    # Subjects to which other attributes apply would need columns of their own.
    kinds = Counter(tuple(value is None for value in c) for _, c in shown)
    usual = kinds.most_common(1)[0][0]
    shown = {
        at: files for at, files in shown.items() if tuple(value is None for value in at[1]) == usual
    }
    there = {combination for _, combination in shown}
    every = itertools.product(*((*of, None) for of in values.values()))
    combinations = [c for c in every if c in there][:COMBINATIONS]
    subjects = list(dict.fromkeys(s for s, c in shown if c in combinations))[:SUBJECTS]
    head = WORDS_PX * (len(values) + 1)
    step, line = PICTURE_PX + GAP_PX, PICTURE_PX + WORDS_PX + GAP_PX
    size = (LEFT_PX + step * len(combinations), head + line * len(subjects))
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, combination in enumerate(combinations):
        for n, word in enumerate(value for value in combination if value is not None):
            draw.text((LEFT_PX + step * column, 4 + WORDS_PX * n), word, fill="black", font=font)
    for number, subject in enumerate(subjects):
        y = head + line * number
        draw.text((8, y + PICTURE_PX // 2), subject[:20], fill="black", font=font)
        for column, combination in enumerate(combinations):
            files = shown.get((subject, combination), {})
            if not files:
                continue
            x = LEFT_PX + step * column
            first = Image.fromarray(read_picture(folder / next(iter(files))))
            first.thumbnail((PICTURE_PX, PICTURE_PX))
            sheet.paste(first, (x, y))
            words = f"{len(files)} x {math.fsum(files.values()) / len(files):.2g}"
            draw.text((x, y + PICTURE_PX + 1), words, fill="#555555", font=font)
    file = io.BytesIO()
    sheet.save(file, "png")
    return file.getvalue()


def _shown(
    rows: Sequence[Mapping[str, Any]], ids: tuple[str, ...]
) -> dict[tuple[str, Combination], dict[str, float]]:
    """(subject, combination) -> file -> how much each of its captions counts."""
    found: dict[tuple[str, Combination], dict[str, float]] = {}
    for row in rows:
        combination = tuple(row.get(id) for id in ids)
        if any(value is not None for value in combination):
            place = found.setdefault((str(row["subject"]), combination), {})
            place[str(row["file_name"])] = float(row["weight"])
    return found
