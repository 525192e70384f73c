"""The page on which a person labels: one file that opens from disk and sends nothing.

It tells a rater neither arm nor prompt nor reading: tasks have numbers in a shuffled order, and
pictures are inside as data: URIs, encoded anew, so that no path and no metadata tells.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from unskew.errors import UserError
from unskew.evaluate.calibration import Sample
from unskew.evaluate.pictures import PictureError, PictureFiles, picture_files, read_picture
from unskew.evaluate.schema import Results
from unskew.runs import sha256_file, write_text_atomic

HERE = Path(__file__).parent
SIDE_PX = 512
"""Larger pictures are shrunk to this; 300 of them make a page of about 15 MB."""
LOSSLESS_PX = 128
"""Pictures up to this size are kept to the last bit."""


def write_label_page(sample: Sample, results: Results, folder: Path) -> Path:
    """Write `calibration/label.html`; its path.

    Raises UserError when a picture is missing, broken or not the one that was read.
    """
    files = picture_files(folder)
    numbers: dict[tuple[str, str, int], int] = {}
    pictures: list[str] = []
    tasks = []
    for task in sample.tasks:
        cell = (task.arm, task.prompt_id, task.seed)
        if cell not in numbers:
            numbers[cell] = len(pictures)
            pictures.append(data_uri(files, *cell, task.image_sha256, task.id))
        tasks.append({"id": task.id, "attribute": task.attribute, "picture": numbers[cell]})
    settings = results.settings.attributes
    data = {
        "run": sample.run,
        "sample": sample.sha256,
        "attributes": {
            id: {
                "title": settings[id].title,
                "caveat": settings[id].caveat,
                "values": list(values),
            }
            for id, values in sample.values.items()
        },
        "tasks": tasks,
        "pictures": pictures,
    }
    page = folder / sample.page
    write_text_atomic(page, page_of(data))
    return page


def page_of(data: Mapping[str, Any]) -> str:
    """The page over its data: run, sample, attributes, tasks, and the pictures as `data:` URIs."""
    script = _own("js")
    return (
        Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
        .get_template("label_template.html.j2")
        .render(
            n=len(data["tasks"]),
            style=Markup(_own("css")),
            script=Markup(script),
            script_hash=policy_hash(script),
            data=data,
        )
    )


def _own(kind: str) -> str:
    return (HERE / f"label_template.{kind}").read_text("utf-8")


def policy_hash(script: str) -> str:
    """What a content security policy calls a script by (CSP level 2, hash-source)."""
    digest = hashlib.sha256(script.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def data_uri(
    files: PictureFiles, arm: str, prompt_id: str, seed: int, sha256: str, task: str
) -> str:
    """A picture as a page holds it. Raises UserError, which names the task, as above."""
    file, root = files.file(arm, prompt_id, seed), files.root(arm)
    if file is None or not file.is_file():
        raise UserError(f"the picture of {task} is gone from {root}: run the study again")
    if not file.resolve().is_relative_to(root.resolve()):
        raise UserError(f"the picture of {task} lies outside of {root}: {file.resolve()}")
    if sha256_file(file) != sha256:
        raise UserError(f"{file} is not the picture that was read: run the study again")
    try:
        return picture_uri(read_picture(file))
    except PictureError as error:
        raise UserError(f"{file} cannot be shown ({error}): run the study again") from None


def picture_uri(image_hwc: NDArray[np.uint8]) -> str:
    """A picture encoded anew, small enough for the page."""
    small = Image.fromarray(image_hwc)
    small.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=90, lossless=max(small.size) <= LOSSLESS_PX)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
