"""The model families: what differs between Stable Diffusion 1.x/2.x and SDXL, a file each.

A family is a module with the names of `Family`. To add one, write such a file, enter it in
FAMILIES under its pipeline's class name, and let `tests/unskew/test_families.py` run on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from unskew.families import sd, sdxl
from unskew.transfer import to_device

Text = Mapping[str, Tensor]
"""What a UNet is told of one caption: part -> tensor, without a batch axis. Every family has
"states" (l tokens, d width); SDXL has "pooled" (p) too."""


class Family(Protocol):
    """What every stage may ask of a family."""

    NAME: Literal["sd", "sdxl"]
    PIPELINE: type[DiffusionPipeline]
    LOADING: Mapping[str, Any]
    """Arguments of the pipeline's from_pretrained."""
    ENCODERS: tuple[str, ...]
    """The text encoders' names in the pipeline."""
    TOKENIZERS: tuple[str, ...]
    TEXT_PARTS: tuple[str, ...]
    """The keys of its Text."""
    CHOICES: tuple[str, ...]
    """Entries of the base's model_index.json that decide what captions become."""

    def encode(self, pipe: Any, captions: Sequence[str]) -> list[Text]:
        """Each caption's Text, exactly as the pipeline makes it when it draws.

        "" is what the pipeline takes for no caption. Gradients flow unless they are switched off.
        """
        ...

    def told(self, texts: Mapping[str, Tensor], time_ids_b6: Tensor) -> dict[str, Any]:
        """The UNet's arguments for a batch: `texts` as Text, with a batch axis in front.

        `time_ids_b6` are original height and width, crop top and left, target height and width.
        """
        ...

    def asked(
        self, texts: Mapping[str, Tensor], empty: Mapping[str, Tensor] | None
    ) -> dict[str, Any]:
        """The pipeline's arguments for a batch, and for guidance against the empty caption."""
        ...

    def idle(self, pipe: Any) -> tuple[str, ...]:
        """Parts of the text encoders that the UNet never hears of, "encoder.module": no LoRA."""
        ...


FAMILIES: Mapping[str, Family] = {
    "StableDiffusionPipeline": sd,
    "StableDiffusionXLPipeline": sdxl,
}
"""By the class that a base's model_index.json names."""


def family_of(pipe: DiffusionPipeline) -> Family:
    """The family of a loaded pipeline."""
    return FAMILIES[type(pipe).__name__]


def stack_texts(texts: Sequence[Text], device: torch.device | None = None) -> dict[str, Tensor]:
    """Texts of several captions as one, with a batch axis in front."""
    return {
        part: to_device(torch.stack([text[part] for text in texts]), device) for part in texts[0]
    }
