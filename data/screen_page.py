"""The page that shows what was left out beside what was kept, with every reason."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from unskew.data.screening import Judged
from unskew.evaluate.pictures import PictureError, read_picture
from unskew.runs import atomic_path

HERE = Path(__file__).parent
SIDE_PX = 96
MOST_SHOWN = 1000
"""Pictures of each kind that the page shows; screened.jsonl has all."""


@dataclass(frozen=True)
class Shown:
    """A picture on the page."""

    name: str
    reason: str
    thumbnail: str
    """data: URI; empty where the file cannot be shown."""
    twin: str = ""
    """Name of the kept picture that it duplicates."""
    twin_thumbnail: str = ""


class Page:
    """The first pictures of each kind."""

    def __init__(self) -> None:
        self.rejected: list[Judged] = []
        self.kept: list[Judged] = []

    def add(self, judged: Judged) -> None:
        """Take one that there is room for."""
        kind = self.kept if judged.reason is None else self.rejected
        if len(kind) < MOST_SHOWN:
            kind.append(judged)


def write_page(page: Page, reasons: Counter[str], kept: int, file: Path) -> None:
    """Write the page; its pictures are opened one by one.

    `reasons` says how many were left out for what, and `kept` how many were kept, of all.
    """
    template = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    ).get_template("screened.html.j2")
    stream = template.stream(
        reasons=reasons.most_common(),
        left_out=reasons.total(),
        kept=kept,
        most=MOST_SHOWN,
        rejected_pictures=_shown(page.rejected),
        kept_pictures=_shown(page.kept),
    )
    with atomic_path(file) as temporary:
        stream.dump(str(temporary), encoding="utf-8")


def _shown(pictures: Iterable[Judged]) -> Iterator[Shown]:
    for judged in pictures:
        looked = judged.look.problem is None and judged.file is not None
        thumbnail = _thumbnail(judged.file) if looked and judged.file else ""
        name, reason = judged.name, judged.reason or ""
        if judged.twin is None:
            yield Shown(name, reason, thumbnail)
        else:
            yield Shown(name, reason, thumbnail, judged.twin[0], _thumbnail(judged.twin[1]))


def _thumbnail(file: Path) -> str:
    try:
        small = Image.fromarray(read_picture(file))
    except PictureError:
        return ""
    small.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    content = io.BytesIO()
    small.save(content, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
