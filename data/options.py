"""The settings of `unskew data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from unskew.settings import Settings


class DataSettings(Settings):
    """What the dataset is balanced to, and where it goes."""

    out: Path
    """The dataset's folder, an imagefolder; the same command again finishes what is missing."""
    exemplars: Path | None
    """Folder for all drawings with their labels, for the study's classifier; null writes none."""
    attributes: tuple[str, ...]
    """The attributes to balance; each has a file in configs/attributes/."""
    targets: dict[str, dict[str, float]] = {}
    """Attribute -> value -> wanted share, where it differs from the attribute's own target."""
    pictures_per_subject: Literal["auto"] | Annotated[int, Field(ge=1)]
    """Pictures of each subject, counted with repeats. auto: the fewest, and at least all it has,
    that show the target's shares exactly; a number: every share within one picture."""
    captions: Annotated[int, Field(ge=1)]
    """Templates that each picture is captioned in; each gives a neutral and an explicit caption."""
    seed: int
    """Decides which pictures are repeated or left out, and which templates caption them."""
