"""The settings of the benchmark of training. Their values stand in `configs/bench/`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from unskew.settings import Settings

Count = Annotated[int, Field(ge=1)]
Word = bool | int | float | str
Value = Word | tuple[Word, ...]
Overrides = dict[str, Value | dict[str, Value]]
"""Settings of `unskew train` over those of its file, tables one deep."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bar = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EffectSettings(Settings):
    """How seconds to an effect are measured."""

    seconds: Positive
    """Seconds of training that each loop gets; as many steps as fit at the speed just measured."""
    readings: Count
    """How often what is drawn is read in that time, after twice the steps each."""
    training_seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    """Seeds that both loops train with, one after the other; their readings are averaged."""
    prompts: Path
    """A prompt file; a relative path that does not exist is looked up in Unskew's configs."""
    suite: str
    """The suite that is drawn: one that training may look at."""
    seeds: Annotated[int, Field(ge=2)]
    """Pictures a prompt."""
    exemplars: Path
    """Labelled pictures that the classifier reads with."""
    steps: Count
    """Denoising steps a picture."""
    resolution_px: Annotated[int, Field(ge=8)]
    """Side of the square pictures."""
    guidance: Annotated[float, Field(ge=1)]
    """Classifier-free guidance scale."""
    batch: Count
    """Pictures drawn together."""


class WantedSettings(Settings):
    """The bars that figures are shown beside; 0 is none. They decide nothing."""

    ratio: Bar = 0
    """Ours over the plain loop's images/s, at least."""
    effect_share: Bar = 0
    """Ours over the plain loop's seconds to the imbalance that it ends at, at most."""
    memory_gib: Bar = 0
    """Peak memory of ours, at most."""


class BenchSettings(Settings):
    """What is measured, and how often."""

    row: str
    """The name of this row's place in the page."""
    recipe: Path
    """The settings file of `unskew train` that is measured; one of Unskew's own by its name."""
    training: Overrides = {}
    """Settings of `unskew train` over the recipe's."""
    weights: Literal["given", "sd15", "sdxl"] = "given"
    """given: the base and dataset of the training's settings. sd15, sdxl: random weights of that
    model's size and random pictures, made in a temporary folder (2 or 7 GB)."""
    needs_gpu: bool = False
    """Refuse where there is no NVIDIA GPU, on which alone this row means something."""
    loops: Literal["both", "ours", "plain"] = "both"
    """What is measured."""
    plain_dtype: Literal["fp32", "bf16"] = "fp32"
    """Precision of the plain loop; ours is training.dtype."""
    plain_workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read the plain loop's pictures; 0, the example scripts' default, is none."""
    warmup: Count = 3
    """Steps of each loop that are not timed, at the start."""
    steps: Count
    """Steps that are timed together."""
    repeats: Annotated[int, Field(ge=0)]
    """How often each loop is timed; 0 only warms up and reads the peak memory."""
    memory: bool = True
    """Read each loop's peak memory in a process of its own. Off reads it only where one loop is
    measured."""
    peak_tflops: Annotated[float, Field(ge=0)] = 0
    """The device's peak in TFLOP/s, for the utilisation; 0 measures it by large matrix products."""
    effect: bool = False
    """Measure the seconds to an effect too, as `reach` says: a quarter of an hour a seed."""
    reach: EffectSettings | None = None
    """How that is measured."""
    wanted: WantedSettings = WantedSettings()
    """The bars."""
    write: Path | None = None
    """The page whose block of this row is replaced."""
