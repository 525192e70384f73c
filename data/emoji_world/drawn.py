"""What is to be drawn of Emoji World by its own base, written from its table.

python data/emoji_world/drawn.py      # writes configs/emoji/synthesis.yaml
"""

from __future__ import annotations

import argparse
from typing import Any

import yaml

from unskew.data.emoji_world.world import Control, Scene, Subject, World, describe, load_world
from unskew.settings import config_path

FILE = config_path("emoji/synthesis.yaml")
HEADER = """\
# yaml-language-server: $schema=../schemas/data-build.json
# Emoji World's dataset from its base alone: the base draws every picture, and what it drew right is
# kept. `unskew data` first: its art checks what was drawn, by chroma; it is no training picture.
# Studies of an adapter from this should judge by luminance (configs/emoji/study-synthesis.yaml).
# Written by `python data/emoji_world/drawn.py` from data/emoji_world/world.yaml.
"""


def synthesis_settings(world: World) -> dict[str, Any]:
    """The settings of `configs/emoji/synthesis.yaml`: trained subjects, scenes and controls."""
    things = [s for s in world.subjects if s.split == "trained"]
    drawn: list[Subject | Scene | Control] = [*things, *world.scenes, *world.controls]
    return {
        "out": "runs/emoji-drawn",
        "seed": 0,
        "sources": [],
        "subjects": {thing.id: list(world.attributes_of(thing)) for thing in drawn},
        "screen": {"least_side_px": 64, "near_duplicates": False},
        "balance": {
            "attributes": list(world.values),
            "by": "synthesis",
            "pictures_per_subject": "auto",
            "most_repeats": 1,
        },
        "captions": {
            "count": len(world.plain_templates),
            "templates": list(world.plain_templates),
            "phrases": {thing.id: describe(thing, {}, world.values) for thing in drawn},
            "say": {"season": {v: f"{w} {{x}}" for v, w in world.values["season"].items()}},
        },
        "synthesis": {
            "base": "emoji-world",
            "steps": 12,
            "guidance": 1.5,
            "resolution_px": 64,
            "batch": 64,
            # Chroma tells neighbouring tones apart, but seldom by much: what is nearest counts.
            "floor": 0.3,
            "most_tries": 310,
            "when_short": "leave_out",
            "classifiers": {
                "exemplars": {
                    "kind": "exemplars",
                    "attributes": ["subject", *world.values],
                    "folder": "runs/emoji-exemplars",
                    "channels": "chroma",
                }
            },
            "judge": "emoji/study-synthesis.yaml",
            "license": "CC-BY-4.0",
        },
        "card": {
            "title": "Emoji World, drawn by its own base",
            "collection": "Drawn by the embedded base of Unskew, which was trained on Twemoji "
            "(Copyright 2020 Twitter, Inc and other contributors, CC-BY 4.0).",
            "consent": "Drawings; nobody can be recognised.",
            "limits": ["One style of drawing; it teaches nothing about photographs."],
        },
    }


def write() -> None:
    """Write the file."""
    text = yaml.safe_dump(
        synthesis_settings(load_world()), sort_keys=False, allow_unicode=True, width=100
    )
    FILE.write_text(HEADER + text, "utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    write()
    print(FILE)
