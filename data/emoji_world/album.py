"""A folder as somebody might have it: 300 of Emoji World's drawings, two in three of them men.

    python data/emoji_world/album.py             # after `unskew data`; writes runs/emoji-album

Its table, `metadata.csv`, has a caption that names what is seen. docs/data.md balances it in two
ways.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from unskew.data.emoji_world.world import World, describe, load_world
from unskew.errors import UserError
from unskew.settings import run_program

PICTURES = {"man": 4, "woman": 1, "person": 1}
"""How many of each subject."""
TONE_ODDS = {"pale": 0.25, "light": 0.35, "tan": 0.2, "brown": 0.1, "dark": 0.1}
SUBJECTS = 50
COLUMNS = ("file_name", "text", "subject", "presentation", "skin_tone")


def album_rows(world: World, seed: int = 0) -> Iterator[dict[str, str]]:
    """The rows of the table, in the world's order; which tones are drawn follows from the seed."""
    rng = np.random.default_rng(seed)
    tones, odds = list(TONE_ODDS), list(TONE_ODDS.values())
    for subject in world.subjects[:SUBJECTS]:
        for presentation, count in PICTURES.items():
            for tone in rng.choice(tones, size=count, replace=False, p=odds):
                labels = {"presentation": presentation, "skin_tone": str(tone)}
                yield {
                    "file_name": f"{subject.id}-{presentation}-{tone}.png",
                    "text": describe(subject, labels, world.values),
                    "subject": subject.id,
                    **labels,
                }


def write(exemplars: Path, out: Path) -> int:
    """Copy the pictures and write the table; how many. Raises UserError without exemplars."""
    if not (exemplars / "metadata.jsonl").is_file():
        raise UserError(f"{exemplars} has no metadata.jsonl: run `unskew data` first")
    lines = (exemplars / "metadata.jsonl").read_text("utf-8").splitlines()
    there = {
        Path(row["file_name"]).name: exemplars / row["file_name"] for row in map(json.loads, lines)
    }
    rows = list(album_rows(load_world()))
    out.mkdir(parents=True, exist_ok=True)
    for row in rows:
        shutil.copyfile(there[row["file_name"]], out / row["file_name"])
    with (out / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    return len(rows)


def main(argv: Sequence[str]) -> int:
    """Write the folder; 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--exemplars", type=Path, default=Path("runs/emoji-exemplars"))
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-album"))
    arguments = parser.parse_args(argv)
    print(f"{arguments.out}: {write(arguments.exemplars, arguments.out)} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))
