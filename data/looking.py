"""What a picture file is, found out without trusting it: one look, which all screening needs.

Only the header is read of what is too large to be meant; broken and truncated files are a problem
that is told, never an error. A file is only ever read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from unskew.evaluate.pictures import PictureError, read_picture
from unskew.runs import sha256_file

SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
    "JPEG2000": ".jp2",
    "PPM": ".ppm",
    "TGA": ".tga",
}
PLAIN = {"PNG", "JPEG", "WEBP"}
"""Formats that every trainer reads."""
SHARPNESS_PX = 512
"""Longer side at which sharpness is measured, so that it means the same at every resolution;
smaller pictures are not enlarged."""
GRID = 4
"""The colour signature has this many fields on a side."""


@dataclass(frozen=True)
class Look:
    """What was seen of one file."""

    sha256: str = ""
    """Of its bytes; "" where it is not there."""
    problem: str | None = None
    """Why it is no picture that can be used; then what follows says nothing."""
    width_px: int = 0
    """Turned upright as its EXIF says, as all that follows."""
    height_px: int = 0
    suffix: str = ""
    """That fits its content."""
    animated: bool = False
    plain: bool = False
    """One frame, upright, RGB or grey, in a format that every trainer reads."""
    contrast: float = 0
    """Standard deviation of the channel that varies most, 0 to 127.5; 0 is one even colour."""
    sharpness: float = 0
    """Variance of the Laplacian of the luminance (0 to 255); 0 is blank, low is blurred."""
    luminance_hash: str = ""
    """64 bits as hexadecimal: pHash of the luminance (ImageHash)."""
    colours: str = ""
    """Mean RGB of 4 x 4 fields, 48 bytes as hexadecimal."""
    faces: int | None = None
    """How many were found; None where nobody looked."""


def look_at(file: Path, count_faces: Callable[[NDArray[np.uint8]], int] | None = None) -> Look:
    """Look at one file. Never raises for what is in it; needs memory for one picture."""
    try:
        sha256 = sha256_file(file)
    except OSError as error:
        return Look(problem=f"cannot be read ({error.strerror})")
    try:
        image = read_picture(file)
        form, mode, turned, animated = _header(file)
    except PictureError as error:
        return Look(sha256, problem=f"cannot be read ({error})")
    except Exception as error:  # decoders raise many kinds; each means that it cannot be read
        return Look(sha256, problem=f"cannot be read ({type(error).__name__}: {error})")
    height, width = image.shape[:2]
    shown = Image.fromarray(image)
    grey = shown.convert("L")
    colours = np.asarray(shown.resize((GRID, GRID), Image.Resampling.BOX))
    return Look(
        sha256=sha256,
        width_px=width,
        height_px=height,
        suffix=SUFFIXES.get(form, ".png"),
        animated=animated,
        plain=form in PLAIN and mode in ("RGB", "L") and not turned and not animated,
        contrast=round(float(_small(shown).std(axis=(0, 1)).max()), 3),
        sharpness=round(sharpness(grey), 3),
        luminance_hash=str(imagehash.phash(grey)),
        colours=colours.tobytes().hex(),
        faces=None if count_faces is None else count_faces(image),
    )


def upright(file: Path) -> Image.Image:
    """The picture as it is meant: first frame, turned as its EXIF says, RGB, on white.

    Raises PictureError where it cannot be read.
    """
    return Image.fromarray(read_picture(file))


def sharpness(grey: Image.Image) -> float:
    """Variance of the 4-neighbour Laplacian (Pech-Pacheco et al. 2000); 0 under 3 pixels a side."""
    y = np.asarray(_shrunk(grey), dtype=np.float32)
    if min(y.shape) < 3:
        return 0.0
    laplacian = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    return float(laplacian.var())


def _small(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(_shrunk(image), dtype=np.float32)


def _shrunk(image: Image.Image) -> Image.Image:
    if max(image.size) <= SHARPNESS_PX:
        return image
    small = image.copy()
    small.thumbnail((SHARPNESS_PX, SHARPNESS_PX), Image.Resampling.BOX)
    return small


def _header(file: Path) -> tuple[str, str, bool, bool]:
    """(format, mode, whether its EXIF turns it, whether it has several frames)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of oddities in what describes the picture
        with Image.open(file) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            mode = "RGBA" if image.has_transparency_data else image.mode
            frames: Any = getattr(image, "n_frames", 1)
            return str(image.format), mode, turned, frames > 1 and image.format != "MPO"
