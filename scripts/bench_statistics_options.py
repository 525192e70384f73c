"""The settings of the benchmark of the statistics. Their values stand in `configs/bench/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from unskew.scripts.bench_simulations import SITUATIONS
from unskew.settings import Settings

Count = Annotated[int, Field(ge=1)]
Seeds = Annotated[int, Field(ge=4)]
Share = Annotated[float, Field(gt=0, lt=1)]
Target = tuple[Share, ...]
Part = Literal["grid", "these_prompts", "outside", "power", "published", "readings"]


class GridSettings(Settings):
    """Kinds of studies: every combination of what is listed."""

    prompts: tuple[Count, ...]
    """Prompts, or subjects where these have several wordings."""
    seeds: tuple[Seeds, ...]
    """Pictures a prompt and arm."""
    situations: tuple[str, ...]
    """What the adapter does; scripts/bench_simulations.py has what each name means."""
    targets: tuple[Target, ...]
    """Wanted shares; as many as the attribute has values."""

    @field_validator("situations")
    @classmethod
    def _known(cls, situations: tuple[str, ...]) -> tuple[str, ...]:
        for name in situations:
            if name not in SITUATIONS:
                raise ValueError(f"each must be one of {', '.join(SITUATIONS)}")
        return situations

    @field_validator("targets")
    @classmethod
    def _whole(cls, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        for target in targets:
            if len(target) < 2 or abs(sum(target) - 1) > 1e-6:
                raise ValueError("each must be two or more shares that sum to 1")
        return targets


class PowerSettings(Settings):
    """Studies whose smallest change is computed, then simulated."""

    designs: tuple[tuple[Annotated[int, Field(ge=10)], Seeds], ...]
    """[prompts, seeds] of each."""
    targets: tuple[Target, ...]
    """Wanted shares."""
    studies: Count
    """Simulated studies of each."""


class ReadingsSettings(Settings):
    """A table of readings of random answers; rows are the product of these."""

    arms: Annotated[int, Field(ge=2)]
    """Arms, the baseline among them."""
    prompts: Annotated[int, Field(ge=10)]
    """Prompts in one suite."""
    seeds: Seeds
    """Pictures a prompt and arm."""
    attributes: Count
    """Attributes; the first has 2 values, the next 3 and so on up to 5, then 2 again."""


class StatisticsSettings(Settings):
    """What is simulated, and where it is written."""

    grid: GridSettings
    """The studies that the intervals are made for."""
    these_prompts: GridSettings
    """Studies of fewer than ten prompts, whose seeds are the unit."""
    outside: GridSettings
    """Studies that ask too much: what fails, and how badly."""
    power: PowerSettings
    """Whether the smallest change that a study is said to see is seen as often as said."""
    readings: ReadingsSettings
    """How long a large table takes, and how much memory."""
    parts: tuple[Part, ...]
    """What is done. "readings" is timed: have it done on a machine that does nothing else."""
    studies: Count
    """Simulated studies of each kind; 5,000 tell a coverage to +-.6 points."""
    correlation: Annotated[float, Field(ge=0, lt=1)]
    """Of the two arms' noise: what pictures from the same seed have in common."""
    unreadable: Annotated[float, Field(ge=0, le=0.3)]
    """Mean share of unreadable pictures; a prompt's own lies between 0 and three times it."""
    seed: Annotated[int, Field(ge=0)]
    """Of all that is drawn."""
    published: Path
    """Published counts of an attribute before and after, kept as a file of figures."""
    out: Path
    """Folder of finished kinds of studies, so that what was stopped is gone on with."""
    write: Path | None = None
    """The page whose blocks are replaced."""
