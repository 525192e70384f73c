"""What is told of a picture without a model: sharpness, contrast, colourfulness, and a small copy.

Computed once a picture; pictures may differ in size, but figures of sharpness are only comparable
between pictures of one size.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from unskew.evaluate.classifiers.reading import Images

TONES = ("sharpness", "contrast", "colourfulness")
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R BT.601."""
SMALL_PX = 32
"""Side of the grey copy in which pictures are compared."""
BLANK = 2.0
"""Grey levels of 255: a picture of which no channel varies by more is blank."""
LOOKS = pa.schema(
    [
        *[(tone, pa.float32()) for tone in TONES],
        ("blank", pa.bool_()),
        ("pixels", pa.string()),
        ("size", pa.string()),
        ("small", pa.binary(SMALL_PX**2)),
    ]
)


def looks_of(images: Images) -> pa.Table:
    """A row a picture: its figures, a hash of its pixels, and a small grey copy of it."""
    return pa.Table.from_pylist([_look(image) for image in images], schema=LOOKS)


def _look(image_hwc: NDArray[np.uint8]) -> dict[str, object]:
    rgb_chw = np.moveaxis(image_hwc, -1, 0).astype(np.float32, order="C")
    luma_hw = np.tensordot(LUMA, rgb_chw, axes=1)
    shape = np.array(image_hwc.shape, dtype=np.int64).tobytes()
    small = Image.fromarray(image_hwc).convert("L")
    return {
        "sharpness": _sharpness(luma_hw),
        "contrast": float(luma_hw.std()),
        "colourfulness": _colourfulness(rgb_chw),
        "blank": bool(max(channel_hw.std() for channel_hw in rgb_chw) < BLANK),
        "pixels": hashlib.sha256(shape + image_hwc.tobytes()).hexdigest()[:32],
        "size": f"{image_hwc.shape[1]} x {image_hwc.shape[0]}",
        "small": small.resize((SMALL_PX, SMALL_PX), Image.Resampling.BOX).tobytes(),
    }


def _sharpness(luma_hw: NDArray[np.float32]) -> float:
    """Variance of the Laplacian of the inside (Pech-Pacheco et al. 2000); 0 = nothing to see."""
    if min(luma_hw.shape) < 3:
        return 0.0
    laplacian = luma_hw[:-2, 1:-1] + luma_hw[2:, 1:-1] + luma_hw[1:-1, :-2] + luma_hw[1:-1, 2:]
    return float((laplacian - 4 * luma_hw[1:-1, 1:-1]).var())


def _colourfulness(rgb_chw: NDArray[np.float32]) -> float:
    """M3 of Hasler & Suesstrunk (2003); 0 = grey, above 100 = extremely colourful."""
    red, green, blue = rgb_chw
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))
