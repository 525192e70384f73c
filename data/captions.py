"""Captions of Emoji World's pictures: neutral, explicit, and those of controls.

Only the world's plain templates are used; the contextual ones belong to the study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from unskew.data.balance import seeded
from unskew.data.emoji_world.world import Control, Scene, Subject, World, describe


@dataclass(frozen=True)
class Caption:
    """One caption of one picture."""

    kind: Literal["neutral", "explicit", "control"]
    text: str
    explicit_text: str | None
    """The caption in the same words that names every value of the picture; None for a control."""


def captions_of(
    thing: Subject | Scene | Control,
    values: Mapping[str, str],
    world: World,
    count: int,
    *,
    key: tuple[object, ...],
    turn: int = 0,
) -> Iterator[Caption]:
    """A neutral and an explicit caption in each of `count` templates; for a control just the one.

    The templates come in an order that is a function of `key` alone. `turn` is how often the
    picture has been captioned before: the next turn goes on in that order.
    """
    order = seeded(*key).permutation(len(world.plain_templates)).tolist()
    for number in range(turn * count, (turn + 1) * count):
        template = world.plain_templates[order[number % len(order)]]
        neutral = template.format(x=describe(thing, {}, world.values))
        if isinstance(thing, Control):
            yield Caption("control", neutral, None)
            continue
        explicit = template.format(x=describe(thing, values, world.values))
        yield Caption("neutral", neutral, explicit)
        yield Caption("explicit", explicit, explicit)
