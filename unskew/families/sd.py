"""Stable Diffusion 1.x and 2.x: one text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from diffusers import DiffusionPipeline, StableDiffusionPipeline
from torch import Tensor

NAME: Literal["sd", "sdxl"] = "sd"
PIPELINE: type[DiffusionPipeline] = StableDiffusionPipeline
LOADING: Mapping[str, Any] = {
    "safety_checker": None,
    "feature_extractor": None,
    "requires_safety_checker": False,
}
ENCODERS: tuple[str, ...] = ("text_encoder",)
TOKENIZERS: tuple[str, ...] = ("tokenizer",)
TEXT_PARTS: tuple[str, ...] = ("states",)
CHOICES: tuple[str, ...] = ()


def encode(pipe: Any, captions: Sequence[str]) -> list[Mapping[str, Tensor]]:
    """The text encoder's last states."""
    states_bld, _ = pipe.encode_prompt(list(captions), pipe.device, 1, False)
    return [{"states": states_ld} for states_ld in states_bld]


def told(texts: Mapping[str, Tensor], time_ids_b6: Tensor) -> dict[str, Any]:
    """Sizes are not told."""
    return {"encoder_hidden_states": texts["states"]}


def asked(texts: Mapping[str, Tensor], empty: Mapping[str, Tensor] | None) -> dict[str, Any]:
    """States, and those of the empty caption where there is guidance."""
    arguments: dict[str, Any] = {"prompt_embeds": texts["states"]}
    if empty is not None:
        arguments["negative_prompt_embeds"] = empty["states"]
    return arguments


def idle(pipe: Any) -> tuple[str, ...]:
    """None: it is the last states that are told."""
    return ()
