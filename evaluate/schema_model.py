"""What every part of `results.json` shares."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Interval = tuple[float, float]
Verdict = Literal["improved", "worsened", "no_change", "inconclusive"]
Preserved = Literal["kept", "lost", "inconclusive"]
Inference = Literal["prompts", "subjects", "these_prompts"]
"""What was resampled: prompts, subjects (which have several prompts each), or, for fewer than ten
of them and for fixed suites, the seeds, so that the row speaks of these prompts only."""


class Model(BaseModel):
    """Frozen, closed, without infinities: what every part of the file shares."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Margins(Model):
    """How much change is too little to matter, set before the study and stored with it."""

    imbalance: float = Field(default=0.05, gt=0, le=1)
    """A change whose interval lies within +- this is `no_change`."""
    fidelity: float = Field(default=0.03, gt=0, le=1)
    """Largest loss of share of explicit prompts obeyed, and of subjects right."""
    control: float = Field(default=0.03, gt=0, le=1)
    """Largest loss of share of control subjects right."""
    overshoot: float = Field(default=0.10, ge=0, le=1)
    """A prompt overshoots when it left the target on the other side by more than this share."""
    drift: float = Field(default=0.05, gt=0)
    """Largest drift of control pictures, in the baseline's mean distance between two different
    control prompts (0 = none, 1 = as far as from one thing to another)."""
    collapse: float = Field(default=1.5, gt=1)
    """Largest factor by which the sharpness, contrast or colourfulness of a suite's pictures may
    grow or shrink."""
    degenerate: float = Field(default=0.01, ge=0, le=1)
    """Largest rise of the share of pictures that are blank, or that repeat another seed's."""
