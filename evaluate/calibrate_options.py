"""The settings of `unskew calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from unskew.settings import Settings


class CalibrateSettings(Settings):
    """Which run, which of its pictures, and what was said of them."""

    run: Path = Path("runs/emoji-study")
    """A study's folder; it may also stand first, without --run."""
    per_arm: Annotated[int, Field(ge=10)] = 150
    """Pictures an arm and attribute, evenly over the suites."""
    attributes: tuple[str, ...] = ()
    """Attributes to label; empty is all that neutral prompts measure."""
    suites: tuple[str, ...] = ()
    """Suites to label; empty is all neutral ones. Fewer suites get more labels each."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Chooses the pictures and their order."""
    labels: tuple[Path, ...] = ()
    """Files that the labelling page downloaded, one a rater; given, they are read back."""
