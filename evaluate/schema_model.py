"""What every part of `results.json` shares."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

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
