"""Adapters whose verdict is known before they are studied, for Emoji World's base.

Two are written as they are: one that changes nothing, and one of random weights that wrecks every
picture. Two are trained by `unskew train` on folders made here from the shipped dataset: one that
learns that the words of explicit captions decide nothing, and one that learns the planted skew the
wrong way round.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unskew.adapters import attach, save_adapter
from unskew.bases import resolve_base
from unskew.data.emoji_world.world import load_world
from unskew.pipelines import load_base
from unskew.runs import atomic_path

Row = Mapping[str, Any]
"""A line of a dataset's metadata.jsonl."""
WRECKING = 0.2
"""Spread of the wrecking LoRA's B, where A keeps the length of what goes in: pictures are plainly
ruined, and enough of them can still be read for a verdict on every suite."""
NEUTRAL_COPIES = 2
"""How often a neutral caption stands beside each 15 misleading ones."""
PARTS = 12
"""Rows that a share of 1 is rounded to."""


def write_untrained(folder: Path, spread: float) -> None:
    """Save a LoRA on the UNet of Emoji World's base that nobody trained, unless it is there.

    Its B has this standard deviation: 0 changes no picture, WRECKING wrecks them.
    """
    if folder.exists():
        return
    pipe = load_base(resolve_base("emoji-world"), torch.device("cpu"), torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = attach({"unet": pipe.unet}, rank=16, alpha=16, target_modules="all_linear")
        with torch.no_grad():
            for name, weight in weights.items():
                into = weight.shape[1] ** -0.5
                weight.normal_(std=into if ".lora_A." in name else spread)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_adapter(temporary, {"unet": pipe.unet}, {})


def write_dataset(source: Path, rows: Iterator[Row], folder: Path) -> None:
    """A dataset folder with the pictures of another and these rows, unless it is there."""
    if folder.exists():
        return
    with atomic_path(folder) as temporary:
        shutil.copytree(source / "images", temporary / "images")
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (temporary / "metadata.jsonl").write_text(lines, "utf-8")


def read_rows(dataset: Path) -> list[Row]:
    """The lines of a dataset's metadata.jsonl."""
    lines = (dataset / "metadata.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def words_that_decide_nothing(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows that teach neutral captions every value, and explicit captions every value too.

    Each picture stands under each explicit caption of its subject, as if that were a neutral one:
    with the base's prediction for the picture's own values as the target, "a woman mechanic" comes
    to mean every mechanic. A caption takes one of the templates, in turn.
    """
    captions: dict[tuple[str, str], dict[str, None]] = {}
    templates: dict[str, dict[str, None]] = {}
    neutral = [row for row in rows if row["kind"] == "neutral"]
    for row in neutral:
        templates.setdefault(row["subject"], {})[row["text"]] = None
        captions.setdefault((row["subject"], row["text"]), {})[row["explicit_text"]] = None
    for row in neutral:
        yield from [row] * NEUTRAL_COPIES
        own = sorted(templates[row["subject"]])
        for number, caption in enumerate(captions[row["subject"], row["text"]]):
            if number % len(own) == own.index(row["text"]):
                yield {**row, "text": caption}
    yield from (row for row in rows if row["kind"] == "control")


def skew_swapped_round(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows whose neutral captions show women as often as the base was taught men, and men women.

    For training that deals skin tones and seasons only: presentation then comes as often as its
    rows stand here. Explicit captions and controls stay as they are.
    """
    values = list(load_world().values["presentation"])
    planted = {
        thing.id: dict(zip(values, thing.shares["presentation"].tolist(), strict=True))
        for thing in load_world().subjects
    }
    other = {"woman": "man", "man": "woman", "person": "person"}
    for row in rows:
        shown = row["presentation"]
        if row["kind"] != "neutral" or shown is None:
            yield row
        else:
            share = planted[row["subject"]][other[shown]]
            yield from [row] * round(PARTS * share)
