"""Whether an adapter's two files, diffusers' and Kohya's, say the same: weights, alpha, places."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unskew.adapters import METADATA_KEY
from unskew.errors import UserError
from unskew.kohya import Base, LoraScale, kohya_weights
from unskew.scripts.belonging import header

SHOWN = 3
_HALVES = {".lora_linear_layer.down.": ".lora_A.", ".lora_linear_layer.up.": ".lora_B."}
"""Diffusers' names of a LoRA's halves in text encoders -> peft's."""


def format_differences(diffusers: Path, kohya: Path, base: Base) -> list[str]:
    """In what the files differ; empty where they are one adapter.

    Diffusers' file is written anew in Kohya's format, by its own rank and alpha, and compared
    tensor by tensor, bit by bit.
    """
    try:
        ours, theirs = load_file(diffusers), load_file(kohya)
        due = kohya_weights(_by_peft(ours), scales_of(diffusers), base)
    except (SafetensorError, OSError, UserError) as error:
        return [f"they cannot be compared: {error}"]
    return list(_differences(due, theirs))


def scales_of(file: Path) -> dict[str, LoraScale]:
    """Component -> the strength that a diffusers file's header gives it. Raises UserError."""
    try:
        said: dict[str, Any] = json.loads(header(file)[METADATA_KEY])
        parts = [key.removesuffix(".lora_alpha") for key in said if key.endswith(".lora_alpha")]
        return {
            part: LoraScale(
                said[f"{part}.r"], said[f"{part}.lora_alpha"], said.get(f"{part}.use_rslora", False)
            )
            for part in parts
        }
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{file.name} says nothing of its rank and alpha ({type(error).__name__}), so readers "
            "would take it at another strength"
        ) from None


def _by_peft(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in weights.items():
        for theirs, ours in _HALVES.items():
            key = key.replace(theirs, ours)
        renamed[key.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")] = tensor
    return renamed


def _differences(due: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Iterator[str]:
    for missing, what in ((due.keys() - found.keys(), "lacks"), (found.keys() - due.keys(), "has")):
        if missing:
            named = ", ".join(sorted(missing)[:SHOWN])
            yield f"Kohya's file {what} {len(missing)} weights ({named})"
    unlike = [key for key in sorted(due.keys() & found.keys()) if not _same(due[key], found[key])]
    if unlike:
        first = unlike[0]
        values = ""
        if due[first].ndim == 0 == found[first].ndim:
            values = f", {found[first].item():g} in place of {due[first].item():g}"
        yield f"{len(unlike)} weights differ (first: {first}{values})"


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.float(), other.float())
