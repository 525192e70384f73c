"""What a comparison is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from unskew.evaluate.options import ArmSettings, SamplerName, StudySettings
from unskew.settings import Settings


class CompareAdapterSettings(Settings):
    """An adapter, and the weights at which it is compared."""

    adapter: str
    """A folder, a .safetensors file (with diffusers', PEFT's or Kohya's names), or a hub's
    "org/name". What exists here as a path is never looked for on the hub."""
    revision: str | None = None
    """Commit, tag or branch of an adapter on the hub; null is its main branch."""
    file: str | None = None
    """Which file of a folder or a hub's repository; null is the only one, or the usual name."""
    weights: tuple[float, ...] = (1.0,)
    """Each is an arm. Empty is none: the adapter is then only there to be mixed or stood beside."""


class RobustnessSettings(Settings):
    """Does the effect of one arm survive elsewhere? Each entry is a study of its own.

    It has a baseline of its own: the base beside the same style, at the same sampler or guidance.
    """

    arm: str = ""
    """The arm whose effect is tried; empty is the one that is recommended."""
    beside: tuple[str, ...] = ()
    """Adapters that both arms wear as well, "style" or "style:0.7"."""
    samplers: tuple[SamplerName, ...] = ()
    """Samplers in place of the study's."""
    guidances: tuple[Annotated[float, Field(ge=1)], ...] = ()
    """Guidance scales in place of the study's."""


class CompareSettings(StudySettings):
    """Many arms on the same cells, and how they are ranked."""

    arms: dict[str, ArmSettings] = {"base": ArmSettings()}
    """Name -> arm, the baseline first, as in a study; `adapters` and `mixes` add more."""
    adapters: dict[str, CompareAdapterSettings] = {}
    """Name -> adapter; an arm for each of its weights."""
    mixes: tuple[str, ...] = ()
    """Several adapters on at once, "one:0.8+two:0.5", each of `adapters`; no weight is 1."""
    rank_on: str = ""
    """The neutral suite that the leaderboard is decided on; empty is held_out where there is one,
    else the first. Its primary attributes count, without any all that it measures."""
    robustness: RobustnessSettings = RobustnessSettings()
    """Where else one arm is tried."""
    reuse: tuple[Path, ...] = ()
    """Folders of studies whose pictures are taken where they are those that would be drawn."""
