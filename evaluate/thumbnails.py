"""Small versions of a study's pictures: inside the page, or as files beside it.

A page holds a bounded number of pixels. A study with more has its thumbnails in
`RUN/thumbnails/<arm>/<prompt_id>/<seed>.webp`, made once and then reused; where the pictures are
small already, the page points to themselves.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from unskew.evaluate.pictures import PictureError, PictureFiles, picture_files, read_picture
from unskew.runs import TEMPORARY

FOLDER = "thumbnails"
THUMBNAIL_PX = 128
"""Larger pictures are shrunk to this width and height at most."""
WEBP_QUALITY = 85

CellKey = tuple[str, str, int]
"""(arm, prompt id, seed)."""


class Thumbnails:
    """What a page's `src` says for a cell's picture; empty where it is missing or broken."""

    def __init__(self, study: Path, inline: bool) -> None:
        self.files, self.folder, self.inline = picture_files(study), study / FOLDER, inline
        width, height = first_size(self.files)
        self.small = max(width, height) <= THUMBNAIL_PX
        self._names = lru_cache(maxsize=None)(self._list)

    def uri(self, key: CellKey) -> str:
        """A data: URI, or a path relative to the study's folder."""
        file = self._picture(key)
        if file is None:
            return ""
        if self.inline:
            small = _shrunk(file)
            return (
                f"data:image/webp;base64,{base64.b64encode(small).decode('ascii')}" if small else ""
            )
        if self._shows_itself(key):
            return quote("/".join(("images", *file.parts[-3:])))
        made = self._file(key)
        return quote("/".join((FOLDER, *made.parts[-3:]))) if _is_made(made) else ""

    def make(self, keys: Iterable[CellKey]) -> None:
        """Write the files that `uri` will point to; what is there already is kept."""
        if self.inline:
            return
        wanted = [
            (picture, self._file(key))
            for key in keys
            if not self._shows_itself(key) and (picture := self._picture(key)) is not None
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(_make, wanted, chunksize=1):
                pass

    def _shows_itself(self, key: CellKey) -> bool:
        """Whether the page can point to the picture: a small one in the study's own folder."""
        return self.small and key[0] not in self.files.elsewhere

    def _picture(self, key: CellKey) -> Path | None:
        """The cell's picture; None where there is none inside of its arm's folder."""
        arm, prompt_id, seed = key
        if arm in self.files.elsewhere:
            file, root = self.files.file(*key), self.files.root(arm).resolve()
            inside = file is not None and file.resolve().is_relative_to(root)
            return file if file is not None and inside and file.is_file() else None
        name = f"{seed}.png"
        known = name in self._names(arm, prompt_id)
        return self.files.images / arm / prompt_id / name if known else None

    def _file(self, key: CellKey) -> Path:
        arm, prompt_id, seed = key
        return self.folder / arm / prompt_id / f"{seed}.webp"

    def _list(self, arm: str, prompt_id: str) -> frozenset[str]:
        images = self.files.images
        folder = images / arm / prompt_id
        try:
            if folder.resolve() != images.resolve() / arm / prompt_id:
                return frozenset()
            with os.scandir(folder) as entries:
                return frozenset(e.name for e in entries if e.is_file(follow_symlinks=False))
        except (OSError, ValueError):
            return frozenset()


def first_size(files: PictureFiles) -> tuple[int, int]:
    """Width and height of the first picture that can be read; that of a thumbnail without one."""
    for file in _every(files):
        try:
            height, width, _ = read_picture(file).shape
            return width, height
        except PictureError:
            continue
    return THUMBNAIL_PX, THUMBNAIL_PX


def _every(files: PictureFiles) -> Iterator[Path]:
    for arm in _folders(files.images):
        for prompt in _folders(arm):
            yield from sorted(prompt.glob("*.png"))
    for folder, names in files.elsewhere.values():
        yield from (folder / name for name in names.values())


def _folders(folder: Path) -> Sequence[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir()) if folder.is_dir() else ()


def _make(job: tuple[Path, Path]) -> None:
    picture, made = job
    if _is_made(made) and made.stat().st_mtime >= picture.stat().st_mtime:
        return
    small = _shrunk(picture)
    if not small:
        made.unlink(missing_ok=True)
        return
    made.parent.mkdir(parents=True, exist_ok=True)
    # Not synced to disk, unlike what a study finds: a lost thumbnail is made again.
    temporary = made.with_name(f"{TEMPORARY}{made.name}")
    temporary.write_bytes(small)
    temporary.replace(made)


def _is_made(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def _shrunk(file: Path) -> bytes:
    """The picture as a small WebP; empty for a file that is missing or broken."""
    try:
        small = Image.fromarray(read_picture(file))
    except PictureError:
        return b""
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
    return buffer.getvalue()
