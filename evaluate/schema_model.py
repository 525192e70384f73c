"""What every part of `results.json` shares."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Interval = tuple[float, float]
Verdict = Literal["improved", "worsened", "no_change", "inconclusive"]


class Model(BaseModel):
    """Frozen, closed, without infinities: what every part of the file shares."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
