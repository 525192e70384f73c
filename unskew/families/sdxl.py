"""SDXL (Podell et al. 2023, arXiv:2307.01952): two text encoders, pooled states, told sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from diffusers import DiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor

NAME: Literal["sd", "sdxl"] = "sdxl"
PIPELINE: type[DiffusionPipeline] = StableDiffusionXLPipeline
LOADING: Mapping[str, Any] = {"add_watermarker": False}
ENCODERS: tuple[str, ...] = ("text_encoder", "text_encoder_2")
TOKENIZERS: tuple[str, ...] = ("tokenizer", "tokenizer_2")
TEXT_PARTS: tuple[str, ...] = ("states", "pooled")
CHOICES: tuple[str, ...] = ("force_zeros_for_empty_prompt",)


def encode(pipe: Any, captions: Sequence[str]) -> list[Mapping[str, Tensor]]:
    """Both encoders' last but one states side by side, and the second's pooled ones.

    No caption is all zeros where the base was trained so (its force_zeros_for_empty_prompt).
    """
    states_bld, _, pooled_bp, _ = pipe.encode_prompt(
        list(captions),
        device=pipe.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    texts: list[Mapping[str, Tensor]] = []
    for caption, states_ld, pooled_p in zip(captions, states_bld, pooled_bp, strict=True):
        none = caption == "" and pipe.config.force_zeros_for_empty_prompt
        parts = {"states": states_ld, "pooled": pooled_p}
        # times 0: every weight keeps a gradient, by which several processes wait for each other
        texts.append({name: 0 * t if none else t for name, t in parts.items()})
    return texts


def told(texts: Mapping[str, Tensor], time_ids_b6: Tensor) -> dict[str, Any]:
    """States, and beside the timestep the pooled ones and the sizes."""
    return {
        "encoder_hidden_states": texts["states"],
        "added_cond_kwargs": {"text_embeds": texts["pooled"], "time_ids": time_ids_b6},
    }


def asked(texts: Mapping[str, Tensor], empty: Mapping[str, Tensor] | None) -> dict[str, Any]:
    """States and pooled ones, and the empty caption's where there is guidance."""
    arguments: dict[str, Any] = {
        "prompt_embeds": texts["states"],
        "pooled_prompt_embeds": texts["pooled"],
    }
    if empty is not None:
        arguments["negative_prompt_embeds"] = empty["states"]
        arguments["negative_pooled_prompt_embeds"] = empty["pooled"]
    return arguments


def idle(pipe: Any) -> tuple[str, ...]:
    """The first encoder's last layer: its last but one states are told, and no pooled ones."""
    [last] = [
        name
        for name, _ in pipe.text_encoder.named_modules()
        if name.endswith(f"encoder.layers.{pipe.text_encoder.config.num_hidden_layers - 1}")
    ]
    return (f"text_encoder.{last}",)
