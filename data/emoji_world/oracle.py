"""The oracle: the nearest piece of art names a picture's true subject, presentation, tone, season.

Real models have no such thing. It is what statistics, corrections and classifiers are proved
against, and what the base's own figures are measured with.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from unskew.attributes import SUBJECT
from unskew.data.emoji_world.art import drawings
from unskew.data.emoji_world.world import load_world
from unskew.evaluate.classifiers.exemplar import ExemplarClassifier, fit


@cache
def oracle() -> ExemplarClassifier:
    """An exemplar classifier over every drawing of the world."""
    world = load_world()
    art = list(drawings(world))
    values = {attribute: tuple(words) for attribute, words in world.values.items()}
    labels: dict[str, list[str | None]] = {SUBJECT: [d.thing.id for d in art]}
    for attribute in world.values:
        labels[attribute] = [d.values.get(attribute) for d in art]
    return fit("Emoji World oracle", np.stack([d.image for d in art]), labels, values)


def truth(image_hwc: NDArray[np.uint8]) -> dict[str, str | None]:
    """The true values of one (64, 64, 3) picture; None for what it does not have."""
    readings = oracle().read(image_hwc[None], [SUBJECT, *load_world().values])
    return {
        attribute: reading.values[reading.value_n[0]] if reading.readable_n[0] else None
        for attribute, reading in readings.items()
    }
