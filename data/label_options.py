"""Settings of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from unskew.evaluate.classifiers.options import ClassifierSettings
from unskew.settings import Settings


class LabelSettings(Settings):
    """Who says what pictures show where their owner's columns do not."""

    classifiers: dict[str, ClassifierSettings] = {}
    """Name -> classifier; each attribute has one at most. None leaves unknown what is unknown."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.8
    """The least probability that a classifier must give its value; under it the label is unknown.
    It is the classifier's own confidence: how often it is right, only a person's check tells."""
    check_pictures: Annotated[int, Field(ge=0)] = 100
    """Labelled pictures on the page for a person's check, of each attribute; 0 writes none."""
    checked: tuple[Path, ...] = ()
    """Files that the page gave; the card says how often a person agreed. `--dry-run` writes the
    page too, so that it can be answered before the dataset is written."""
