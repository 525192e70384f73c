"""Settings of a blind choice between arms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from unskew.settings import Settings

Question = Literal["better", "asked"]


class BlindSettings(Settings):
    """Which run, which of its pictures, and what was chosen."""

    run: Path = Path("runs/emoji-compare")
    """Folder of a comparison or a study; it may also stand first, without --run."""
    question: Question = "better"
    """What is asked: which picture is better, or which shows what was asked for."""
    arms: tuple[str, ...] = ()
    """Arms that are compared, each with each, the first the one that others are measured by; empty
    is all."""
    suites: tuple[str, ...] = ()
    """Suites that pairs are from; empty is all, and for "asked" those that name a value."""
    pairs: Annotated[int, Field(ge=1)] = 120
    """Pairs of pictures, evenly over all two arms."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Chooses pairs, sides and order."""
    choices: tuple[Path, ...] = ()
    """Files that the page downloaded, one a rater; given, they are read back."""
