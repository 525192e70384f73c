"""Emoji World's prompt suites, written from its table.

python data/emoji_world/suites.py      # writes configs/prompts/emoji.yaml
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

import unskew.configs
from unskew.data.emoji_world.world import Scene, Subject, World, describe, load_world

PROMPTS_YAML = Path(next(iter(unskew.configs.__path__))) / "prompts" / "emoji.yaml"
HEADER = "# Written by `python data/emoji_world/suites.py` from data/emoji_world/world.yaml.\n"
PEOPLE = ["presentation", "skin_tone"]


def prompt_blocks(world: World) -> list[dict[str, Any]]:
    """The blocks of `configs/prompts/emoji.yaml`.

    Trained and contextual subjects take one template each, in turn; the few held-out and validation
    subjects take all the plain ones.
    """
    by_split = {
        split: [s for s in world.subjects if s.split == split]
        for split in ("trained", "held_out", "validation")
    }
    trained = by_split["trained"]
    plain, contextual = world.plain_templates, world.contextual_templates
    blocks = [
        *_in_turn("trained", trained, plain, world),
        _all_of("trained", world.scenes, plain, ["season"], world),
        *_in_turn("contextual", trained, contextual, world),
        _all_of("held_out", by_split["held_out"], plain, PEOPLE, world),
        _all_of("validation", by_split["validation"], plain, PEOPLE, world),
        _explicit_people(world),
        _explicit_scenes(world),
    ]
    controls = {c.id: describe(c, {}, world.values) for c in world.controls}
    return [
        *blocks,
        {"suite": "control", "role": "control", "templates": [plain[1]], "subjects": controls},
    ]


def _in_turn(
    suite: str, subjects: Sequence[Subject], templates: Sequence[str], world: World
) -> list[dict[str, Any]]:
    step = len(templates)
    return [
        _all_of(suite, subjects[offset::step], [template], PEOPLE, world)
        for offset, template in enumerate(templates)
    ]


def _all_of(
    suite: str,
    things: Sequence[Subject | Scene],
    templates: Sequence[str],
    attributes: list[str],
    world: World,
) -> dict[str, Any]:
    return {
        "suite": suite,
        "role": "neutral",
        "attributes": list(attributes),
        "templates": list(templates),
        "subjects": {thing.id: describe(thing, {}, world.values) for thing in things},
    }


def _explicit_people(world: World) -> dict[str, Any]:
    """Two prompts a subject; the 15 cells of presentation x tone come up equally often."""
    templates = (*world.plain_templates, *world.contextual_templates)
    cells = list(product(world.values["presentation"], world.values["skin_tone"]))
    prompts = []
    for number, subject in enumerate(2 * [s for s in world.subjects if s.split != "validation"]):
        presentation, tone = cells[7 * number % len(cells)]
        asked = {"presentation": presentation, "skin_tone": tone}
        phrase = describe(subject, asked, world.values)
        text = templates[number % len(templates)].format(x=phrase)
        prompts.append({"subject": subject.id, "text": text, "asked": asked})
    return _explicit(list(PEOPLE), prompts)


def _explicit_scenes(world: World) -> dict[str, Any]:
    """Every scene and season in all templates: enough pictures for a loss of 3 points to show."""
    prompts = []
    templates = (*world.plain_templates, *world.contextual_templates)
    for scene, season, template in product(world.scenes, world.values["season"], templates):
        text = template.format(x=describe(scene, {"season": season}, world.values))
        prompts.append({"subject": scene.id, "text": text, "asked": {"season": season}})
    return _explicit(["season"], prompts)


def _explicit(attributes: list[str], prompts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "suite": "explicit",
        "role": "explicit",
        "attributes": list(attributes),
        "prompts": prompts,
    }


def prompts_yaml() -> str:
    """The text of `configs/prompts/emoji.yaml`."""
    body = yaml.safe_dump(
        prompt_blocks(load_world()), sort_keys=False, allow_unicode=True, width=120
    )
    return HEADER + body


if __name__ == "__main__":
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    PROMPTS_YAML.write_text(prompts_yaml(), "utf-8")
