"""The page on which a person compares pairs: one file that opens from disk and sends nothing.

It tells neither arm nor reading: pairs have numbers in a shuffled order, sides are drawn by
chance, and pictures are inside as data: URIs, encoded anew, so that no path and no metadata tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from unskew.evaluate.blind_sample import QUESTIONS, BlindSample
from unskew.evaluate.label_page import data_uri, policy_hash
from unskew.evaluate.pictures import picture_files
from unskew.runs import write_text_atomic

HERE = Path(__file__).parent


def write_blind_page(sample: BlindSample, texts: Mapping[str, str], folder: Path) -> Path:
    """Write `blind/QUESTION/page.html`; its path. `texts` are the prompts' words by their id.

    Raises UserError when a picture is missing, broken or not the one that was read.
    """
    files = picture_files(folder)
    pictures: list[str] = []
    numbers: dict[tuple[str, str, int], int] = {}
    pairs = []
    for pair in sample.pairs:
        shown = {}
        for side, arm, sha in (
            ("left", pair.left, pair.left_sha256),
            ("right", pair.right, pair.right_sha256),
        ):
            cell = (arm, pair.prompt_id, pair.seed)
            if cell not in numbers:
                numbers[cell] = len(pictures)
                pictures.append(data_uri(files, *cell, sha, pair.id))
            shown[side] = numbers[cell]
        pairs.append({"id": pair.id, "text": texts[pair.prompt_id], **shown})
    script = (HERE / "blind_template.js").read_text("utf-8")
    styles = [HERE / f"{name}_template.css" for name in ("label", "blind")]
    style = "".join(file.read_text("utf-8") for file in styles)
    html = (
        Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
        .get_template("blind_template.html.j2")
        .render(
            n=len(pairs),
            question=QUESTIONS[sample.question],
            style=Markup(style),
            script=Markup(script),
            script_hash=policy_hash(script),
            data={"run": sample.run, "sample": sample.sha256, "pairs": pairs, "pictures": pictures},
        )
    )
    page = folder / sample.page
    write_text_atomic(page, html)
    return page
