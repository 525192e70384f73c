"""A picture on its way into a dataset, and what is wanted where pictures are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Cell = tuple[tuple[str, str], ...]
"""(attribute, value) pairs of one combination, in the attributes' order; empty for a control."""


@dataclass(frozen=True)
class Drawn:
    """How the base drew a picture: with these the same bits can be drawn again."""

    prompt: str
    seed: int
    base: str
    """sha256 of the base."""
    sampler: str
    """Scheduler, steps, guidance, resolution, and the size of the batch it was drawn in."""


@dataclass(frozen=True)
class Row:
    """One picture that was gathered, with what is known of it."""

    name: str
    """How pages and messages call it; unlike any other row's: "photos/team 3.jpg"."""
    file: Path
    """Where its bytes lie now: the user's own file, read and never changed, or a work file."""
    subject: str
    caption: str | None
    """In the user's words; None where there is none."""
    labels: Mapping[str, str | None] = field(default_factory=dict)
    """Attribute -> value, None where it is unknown. An attribute that is not here does not apply:
    a row without any is of a control."""
    source: str = ""
    license: str = ""
    sha256: str = ""
    """Of the file's bytes; "" until it was screened."""
    split: str | None = None
    """"train", "validation" or "held_out" where the user's metadata says; None leaves it open."""
    drawn: Drawn | None = None
    """Set where the base drew it."""
    suffix: str = ""
    """Ending that fits the file's content (".jpg"), whatever its name says; "" until screened."""
    plain: bool = False
    """Whether any reader shows the file as it is meant: one frame, upright, RGB or grey. Else what
    is written must be `looking.upright` of it, as a PNG."""
    labelled_by: Mapping[str, str] = field(default_factory=dict)
    """Attribute -> who gave its value: "column NAME", "asked" of drawn ones, a classifier's name.
    Not here where the value is unknown."""

    @property
    def is_control(self) -> bool:
        """Whether no attribute applies to it."""
        return not self.labels

    @property
    def is_known(self) -> bool:
        """Whether every attribute that applies has a value."""
        return None not in self.labels.values()

    @property
    def cell(self) -> Cell:
        """Its combination of values, in its labels' order. Only for a row that is known."""
        return tuple((a, value) for a, value in self.labels.items() if value is not None)


@dataclass(frozen=True)
class Wanted:
    """Pictures of one cell that balancing is missing."""

    subject: str
    labels: Mapping[str, str]
    """The cell's value of each attribute that applies; empty for a control."""
    wordings: tuple[str, ...]
    """Prompts that name subject and values, taken in turn."""
    count: int
    """How many pictures that show it."""
    there: bool = False
    """Whether the dataset has one of it already."""

    @property
    def cell(self) -> Cell:
        """Its combination of values."""
        return tuple(self.labels.items())


@dataclass(frozen=True)
class Tries:
    """What one cell's pictures cost: for the card."""

    subject: str
    labels: Mapping[str, str]
    wanted: int
    kept: int
    """Pictures that show what was asked; fewer than wanted where the limit of tries was reached."""
    tries: int
    """Pictures that were drawn for it; where the last round had more than needed, those too."""
    other_subject: int
    """Tries on which something else than the subject was shown, or nothing that could be read."""
    other_value: int
    """Tries on which the subject was right and a value was not."""
    screened_out: int
    """Tries that showed what was asked, but were screened out (blank, a duplicate)."""
