"""The base of every model in `results.json`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

Interval = tuple[float, float]


class Model(BaseModel):
    """Frozen, closed, without infinities: what every part of the file shares."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
