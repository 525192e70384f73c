"""A study's picture files: written whole, opened with care, found again by the report."""

from __future__ import annotations

import io
import json
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from unskew.runs import atomic_path, write_json_atomic

LARGEST_PIXELS = 2**26
"""8,192 x 8,192: what claims more is taken for a decompression bomb."""
LARGEST_BYTES = 2**28
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA")
"""Only picture formats: some that Pillow reads (EPS) would start another program."""
ELSEWHERE = "elsewhere.json"
"""File of a study's folder that says where arms from folders have their pictures."""


class PictureError(Exception):
    """A file that is no whole picture, or too large a one; says why."""


def read_picture(file: Path) -> NDArray[np.uint8]:
    """(h, w, 3) RGB of a picture file: its first frame, turned as its EXIF says, on white.

    Raises PictureError where it is missing, broken, or larger than any picture that is meant.
    """
    try:
        if file.stat().st_size > LARGEST_BYTES:
            raise PictureError(f"{file.stat().st_size:,} bytes, more than {LARGEST_BYTES:,}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of oddities in what describes the picture
            with Image.open(file, formats=_formats()) as image:
                if image.width * image.height > LARGEST_PIXELS:
                    said = f"{image.width:,} x {image.height:,} pixels"
                    raise PictureError(f"{said}, more than {LARGEST_PIXELS:,}")
                return np.asarray(_on_white(ImageOps.exif_transpose(image)))
    except Image.DecompressionBombError as error:
        raise PictureError(str(error)) from None
    except UnidentifiedImageError:
        raise PictureError("no picture in a format that is read") from None
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, struct.error) as error:
        raise PictureError(str(error) or type(error).__name__) from None


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    shown = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")


def png_of(image_hwc: NDArray[np.uint8]) -> bytes:
    """A PNG file's bytes; the same picture has the same."""
    buffer = io.BytesIO()
    Image.fromarray(image_hwc).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def save_picture(image_hwc: NDArray[np.uint8], file: Path) -> None:
    """Write a PNG whole or not at all."""
    png = png_of(image_hwc)
    with atomic_path(file) as temporary:
        temporary.write_bytes(png)


@dataclass(frozen=True)
class PictureFiles:
    """Where the pictures of a study lie, as its folder says."""

    images: Path
    elsewhere: Mapping[str, tuple[Path, Mapping[str, str]]]
    """Arm -> its folder, and "prompt_id/seed" -> file in it, of arms that were not drawn here."""

    def root(self, arm: str) -> Path:
        """The folder that no picture of the arm may lie outside of."""
        return self.elsewhere[arm][0] if arm in self.elsewhere else self.images

    def file(self, arm: str, prompt_id: str, seed: int) -> Path | None:
        """A cell's picture; None where an arm made elsewhere has none."""
        if arm not in self.elsewhere:
            return self.images / arm / prompt_id / f"{seed}.png"
        folder, names = self.elsewhere[arm]
        name = names.get(f"{prompt_id}/{seed}")
        return None if name is None else folder / name


def picture_files(study_folder: Path) -> PictureFiles:
    """Where a study's pictures lie."""
    file = study_folder / ELSEWHERE
    table = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return PictureFiles(
        study_folder / "images",
        {arm: (Path(said["folder"]), said["files"]) for arm, said in table.items()},
    )


def write_elsewhere(study_folder: Path, arms: Mapping[str, tuple[Path, Mapping[str, str]]]) -> None:
    """Set down where arms from folders have their pictures; nothing where there is no such arm."""
    if arms:
        table = {
            arm: {"folder": str(folder.resolve()), "files": dict(files)}
            for arm, (folder, files) in arms.items()
        }
        write_json_atomic(study_folder / ELSEWHERE, table)
