"""What exists in Emoji World: its subjects, their planted skew, and how captions speak of them.

The table is `world.yaml`; this module reads it and answers. Pictures are made in `art`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

WORLD_YAML = Path(__file__).with_name("world.yaml")
BASE_DIR = Path(__file__).with_name("base")

Split = Literal["trained", "validation", "held_out"]


@dataclass(frozen=True)
class Subject:
    """A person subject: drawn as every presentation x tone, planted at known rates."""

    id: str
    code: str
    """Unicode code point of the role or activity, hexadecimal."""
    noun: str
    """Head noun of a noun subject ("mechanic"); empty for an act subject."""
    act: str
    """What the person does in an act subject ("juggling"); empty for a noun subject."""
    split: Split
    shares: Mapping[str, NDArray[np.float64]]
    """Attribute -> planted share of each value, in the attribute's order; sums to 1."""


@dataclass(frozen=True)
class Scene:
    """A composed scene without people, drawn in winter and in summer."""

    id: str
    noun: str
    place: str
    guest: str
    """Code point of what stands in front and tells the place: a gift, a kangaroo, a deer."""
    shares: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Control:
    """A thing that no attribute touches."""

    id: str
    noun: str
    code: str


@dataclass(frozen=True)
class World:
    """The whole table. `values` maps attribute -> value -> the words of an explicit caption."""

    subjects: tuple[Subject, ...]
    scenes: tuple[Scene, ...]
    controls: tuple[Control, ...]
    values: Mapping[str, Mapping[str, str]]
    plain_templates: tuple[str, ...]
    contextual_templates: tuple[str, ...]
    left_out: tuple[Mapping[str, str], ...]

    @property
    def skewed(self) -> tuple[Subject | Scene, ...]:
        """The things whose values are planted at known rates."""
        return (*self.subjects, *self.scenes)

    @property
    def things(self) -> tuple[Subject | Scene | Control, ...]:
        """All that can be drawn."""
        return (*self.subjects, *self.scenes, *self.controls)

    def attributes_of(self, thing: Subject | Scene | Control) -> tuple[str, ...]:
        """The attributes that a picture of this thing has."""
        return () if isinstance(thing, Control) else tuple(thing.shares)


@cache
def load_world(path: Path = WORLD_YAML) -> World:
    """Read the table. Shares are clipped to the table's least share and sum to 1."""
    table: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    rates = table["rates"]
    return World(
        subjects=tuple(_subject(row, rates) for row in table["subjects"]),
        scenes=tuple(_scene(row) for row in table["scenes"]),
        controls=tuple(
            Control(id=noun.replace(" ", "-"), noun=noun, code=str(code))
            for noun, code in table["controls"].items()
        ),
        values=table["values"],
        plain_templates=tuple(table["templates"]["plain"]),
        contextual_templates=tuple(table["templates"]["contextual"]),
        left_out=tuple(table["left_out"]),
    )


def _subject(row: Mapping[str, Any], rates: Mapping[str, Any]) -> Subject:
    person = float(rates["person_share"])
    least = float(rates["least_share"])
    man = float(np.clip((1 - person) * row["man_share"], least, 1 - person - least))
    return Subject(
        id=row["id"],
        code=str(row["code"]),
        noun=row.get("noun", ""),
        act=row.get("act", ""),
        split=row["split"],
        shares={
            "presentation": np.array([1 - person - man, man, person]),  # woman, man, person
            "skin_tone": np.array(rates["tone_profiles"][row["tone"]], dtype=float),
        },
    )


def _scene(row: Mapping[str, Any]) -> Scene:
    winter = float(row["winter_share"])
    return Scene(
        id=row["id"],
        noun=row["noun"],
        place=row.get("place", ""),
        guest=str(row["guest"]),
        shares={"season": np.array([winter, 1 - winter])},
    )


def describe(
    thing: Subject | Scene | Control,
    named: Mapping[str, str],
    words: Mapping[str, Mapping[str, str]],
) -> str:
    """The noun phrase for a thing, with the named attribute values spelt out.

    `named` maps attribute -> value; an empty mapping gives the neutral phrase:
    "a mechanic"; {"presentation": "woman", "skin_tone": "dark"} gives
    "a woman mechanic with dark skin".
    """
    if isinstance(thing, Control):
        return _with_article(thing.noun)
    if isinstance(thing, Scene):
        season = f"{words['season'][named['season']]} " if "season" in named else ""
        return _with_article(f"{season}{thing.noun} {thing.place}".strip())
    presentation = words["presentation"][named["presentation"]] if "presentation" in named else ""
    if thing.noun:
        head = f"{presentation} {thing.noun}".strip()
    else:
        head = {"": "person", "androgynous": "androgynous person"}.get(presentation, presentation)
        head = f"{head} {thing.act}"
    tone = ""
    if "skin_tone" in named:
        joiner = "and" if thing.act.startswith("with ") else "with"
        tone = f" {joiner} {words['skin_tone'][named['skin_tone']]}"
    return _with_article(head) + tone


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
