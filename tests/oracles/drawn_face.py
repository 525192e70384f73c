"""A drawn face that a face detector takes for one, in any skin colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

CENTRE = (256, 250)


def drawn_face(
    skin: tuple[int, int, int],
    size_px: int = 512,
    background: tuple[int, int, int] = (120, 130, 140),
) -> NDArray[np.uint8]:
    """(size, size, 3) a face from the front, evenly lit: its skin has exactly this colour."""

    def shade(factor: float) -> tuple[int, int, int]:
        return tuple(int(min(max(c * factor, 0), 255)) for c in skin)  # type: ignore[return-value]

    page = Image.new("RGB", (512, 512), background)
    draw = ImageDraw.Draw(page)
    x, y = CENTRE
    draw.ellipse((x - 118, y - 175, x + 118, y + 120), fill=(25, 20, 18))  # hair
    draw.rectangle((x - 45, y + 90, x + 45, y + 230), fill=shade(0.7))  # neck
    draw.ellipse((x - 100, y - 140, x + 100, y + 150), fill=skin)
    for side in (-1, 1):
        eye = x + side * 42
        draw.line((eye - 26, y - 48, eye + 26, y - 50), fill=shade(0.3), width=9)  # brow
        draw.ellipse((eye - 28, y - 36, eye + 28, y + 2), fill=shade(0.62))
        draw.ellipse((eye - 22, y - 28, eye + 22, y - 6), fill=(235, 235, 235))
        draw.ellipse((eye - 10, y - 28, eye + 10, y - 6), fill=(20, 15, 12))
        draw.ellipse((x + side * 13 - 8, y + 44, x + side * 13 + 8, y + 56), fill=shade(0.45))
    draw.polygon(
        [(x - 8, y - 10), (x + 8, y - 10), (x + 24, y + 48), (x - 24, y + 48)], shade(0.88)
    )
    draw.ellipse((x - 44, y + 80, x + 44, y + 112), fill=shade(0.55))  # mouth
    draw.line((x - 40, y + 95, x + 40, y + 95), fill=shade(0.25), width=5)
    small = page.filter(ImageFilter.GaussianBlur(2.5)).resize((size_px, size_px))
    return np.asarray(small)
