"""The settings of what pictures are measured in: drift's features, and agreement with prompts."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from unskew.settings import Settings


class FeatureSettings(Settings):
    """What drift of control pictures is measured in."""

    model: str | None = None
    """An image model of transformers (DINOv2, CLIP, SigLIP ...): a folder that save_pretrained
    wrote, or a hub's "org/name"; null takes the mean colours of an 8 x 8 grid."""
    revision: str | None = None
    """Of a model on the hub: its commit, 40 hexadecimal digits; null for a folder."""
    batch: Annotated[int, Field(ge=1)] = 32
    """Pictures looked at together."""


class AgreementSettings(Settings):
    """How near pictures are to their prompts, where a model for it is given."""

    model: str | None = None
    """A CLIP or SigLIP: a folder that save_pretrained wrote, or a hub's "org/name"; null measures
    no agreement."""
    revision: str | None = None
    """Of a model on the hub: its commit, 40 hexadecimal digits; null for a folder."""
    batch: Annotated[int, Field(ge=1)] = 32
    """Pictures looked at together."""
    margin: Annotated[float, Field(gt=0, le=2)] | None = None
    """Largest loss of cosine that counts as kept; null describes the change without a verdict."""

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.model is None and self.margin is not None:
            raise ValueError("a margin needs the model that measures agreement")
        return self
