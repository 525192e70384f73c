"""A LoRA as Kohya's file: what ComfyUI, A1111 and sd-scripts read.

A module's name is its component's prefix and its path, dots made underscores. Paths in the UNet
keep diffusers' blocks (`lora_unet_down_blocks_1_attentions_0_...`). For SD 1.x and 2.x these are
Kohya's own. For SDXL sd-scripts writes `input_blocks_4_1_...`, but it, ComfyUI and A1111 read
diffusers' blocks too, and of a file that mixes both diffusers drops the former. A1111 alone
misplaces one SDXL convolution by them, `up_blocks.0.upsamplers.0.conv`, and leaves it out.

DoRA: `dora_scale` is LyCORIS's of `wd_on_output`, for that is peft's DoRA. The others do not get it
right yet: ComfyUI divides by the norm of the base's weight instead of the adapted one's (its pull
request 15458), A1111 takes the norm along the input, sd-scripts and diffusers ignore it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from unskew.adapters import write_safetensors
from unskew.errors import UserError

KOHYA_FILE = "kohya_lora_weights.safetensors"

Base = Literal["sd", "sdxl"]
"""Stable Diffusion with one text encoder (1.x, 2.x), or SDXL with two."""
ModelVersion = Literal["sd_v1", "sd_v2", "sdxl_base_v1-0"]
"""A base as Kohya's metadata names it."""
MODEL_VERSIONS: Mapping[int, ModelVersion] = {768: "sd_v1", 1024: "sd_v2", 2048: "sdxl_base_v1-0"}
"""Width of the UNet's cross-attention -> version; for another width Kohya has no name."""

_PREFIXES: Mapping[Base, Mapping[str, str]] = {
    "sd": {"unet": "lora_unet_", "text_encoder": "lora_te_"},
    "sdxl": {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"},
}
_KEY = re.compile(r"(\w+)\.(.+)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector)")
_ARCHITECTURES: Mapping[str, str] = {
    "sd_v1": "stable-diffusion-v1",
    "sd_v1_v": "stable-diffusion-v1",
    "sd_v2": "stable-diffusion-v2-512",
    "sd_v2_v": "stable-diffusion-v2-768-v",
    "sdxl_base_v1-0": "stable-diffusion-xl-v1-base",
}


@dataclass(frozen=True)
class LoraScale:
    """What sets the strength of a component's LoRA: rank >= 1, alpha > 0, and the kind of scale.

    The scale of B A is alpha / rank, or alpha / sqrt(rank) for rsLoRA (arXiv:2312.03732).
    """

    rank: int
    alpha: float
    rslora: bool = False

    @property
    def kohya_alpha(self) -> float:
        """The alpha that gives this strength when it is divided by the rank."""
        # the format has no mark for rsLoRA: readers always divide by the rank, which is sqrt(rank)
        # too much, so alpha makes up for it
        return self.alpha * math.sqrt(self.rank) if self.rslora else self.alpha


def kohya_weights(
    weights: Mapping[str, Tensor], scales: Mapping[str, LoraScale], base: Base
) -> dict[str, Tensor]:
    """The same weights by Kohya's names, each module with its alpha; tensors are not copied.

    `weights` are named as peft saves them, behind their component: `unet.<path>.lora_A.weight`
    (r, in) or (r, in, k, k), `.lora_B.weight` (out, r) or (out, r, 1, 1), and with DoRA
    `.lora_magnitude_vector` (out,) or (1, out, 1, 1). `scales` has one entry a component. Gives
    `<name>.lora_down.weight` and `<name>.lora_up.weight` of the same shapes, `<name>.alpha` of
    shape () in fp32, and `<name>.dora_scale` (out, 1) or (out, 1, 1, 1).

    Raises UserError for a weight that the format cannot hold, half a module, or a wrong scale.
    """
    modules: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key in sorted(weights):
        component, module, part = _split(key, scales, base)
        modules.setdefault((component, module), {})[part] = weights[key]
    if not modules:
        raise UserError("Kohya's file: the adapter has no weights to write: train it first")
    renamed: dict[str, Tensor] = {}
    for (component, module), parts in modules.items():
        _check_module(f"{component}.{module}", parts, scales[component])
        name = kohya_name(component, module, base)
        down = renamed[f"{name}.lora_down.weight"] = parts["lora_A.weight"]
        renamed[f"{name}.lora_up.weight"] = parts["lora_B.weight"]
        # readers take alpha = rank where this is missing
        renamed[f"{name}.alpha"] = torch.tensor(float(scales[component].kohya_alpha))
        if "lora_magnitude_vector" in parts:
            column = (-1, *[1] * (down.ndim - 1))  # without its ones it would broadcast as a row
            renamed[f"{name}.dora_scale"] = parts["lora_magnitude_vector"].reshape(column)
    return renamed


def kohya_name(component: str, module: str, base: Base) -> str:
    """Kohya's name of a module: `lora_te_text_model_encoder_layers_0_mlp_fc1`.

    `module` is its path in the component as transformers and diffusers have it. A CLIPTextModel
    has no `text_model` in its paths since transformers 5, and Kohya's names want one; that of a
    CLIPTextModelWithProjection is still there, and its `text_projection` is outside of it.
    """
    if component != "unet" and not module.startswith(("text_model.", "text_projection")):
        module = f"text_model.{module}"
    return _PREFIXES[base][component] + module.replace(".", "_")


def kohya_metadata(
    scales: Mapping[str, LoraScale],
    *,
    version: ModelVersion | None,
    title: str,
    resolution: tuple[int, int],
    prediction_type: Literal["epsilon", "v_prediction"],
    date: str | None = None,
) -> dict[str, str]:
    """Header entries by which programs sort and label the file; none changes how it is applied.

    `resolution` is (width, height) in pixels, `date` ISO 8601; without one the same training gives
    the same bytes. Without a `version` nothing says what the base is. Rank and alpha are those of
    the `.alpha` tensors, "Dynamic" where components differ, as sd-scripts has it. ModelSpec 1.0.1.
    """
    v_prediction = prediction_type == "v_prediction"
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": _common(str(scale.rank) for scale in scales.values()),
        "ss_network_alpha": _common(str(float(scale.kohya_alpha)) for scale in scales.values()),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.resolution": f"{resolution[0]}x{resolution[1]}",
        "modelspec.prediction_type": "v" if v_prediction else "epsilon",
    }
    if version is not None:
        full = f"{version}_v" if v_prediction and version != "sdxl_base_v1-0" else version
        metadata["ss_base_model_version"] = full
        metadata["ss_v2"] = str(version == "sd_v2")  # by which A1111 tells 2.x from 1.x
        metadata["modelspec.architecture"] = f"{_ARCHITECTURES[full]}/lora"
    if date is not None:
        metadata["modelspec.date"] = date
    return metadata


def save_kohya(file: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write what `kohya_weights` and `kohya_metadata` gave, and return the file.

    Whole or not at all; same weights and metadata, same bytes. Its name must end in `.safetensors`,
    for readers go by it: `KOHYA_FILE` in the folder of the diffusers file.
    """
    write_safetensors(file, weights, {**metadata, "format": "pt"})
    return file


def _split(key: str, scales: Mapping[str, LoraScale], base: Base) -> tuple[str, str, str]:
    """(component, path of the module, part) of a weight's name."""
    components = [component for component in _PREFIXES[base] if component in scales]
    match = _KEY.fullmatch(key)
    if match is None or match[1] not in components:
        raise UserError(
            f"Kohya's file for base {base!r} has no place for the weight {key!r} (it takes "
            f"lora_A.weight, lora_B.weight and lora_magnitude_vector of modules of {components}): "
            "train without what this weight belongs to, or use the diffusers file only"
        )
    return match[1], match[2], match[3]


def _check_module(name: str, parts: Mapping[str, Tensor], scale: LoraScale) -> None:
    """Both halves are there, of one rank, which is the scale's; and alpha is positive."""
    shapes = {part: tuple(tensor.shape) for part, tensor in parts.items()}
    a, b = shapes.get("lora_A.weight"), shapes.get("lora_B.weight")
    if (
        a is None
        or b is None
        or len(a) not in (2, 4)
        or len(b) != len(a)
        or b[2:] not in ((), (1, 1))
    ):
        raise UserError(
            f"Kohya's file: {name} has {shapes}, but wants lora_A.weight (r, in) or (r, in, k, k) "
            "and lora_B.weight (out, r) or (out, r, 1, 1): the adapter is damaged, save it again"
        )
    if not a[0] == b[1] == scale.rank:
        raise UserError(
            f"Kohya's file: {name} has rank {a[0]} in lora_A and {b[1]} in lora_B, but the given "
            f"rank is {scale.rank}: give the one it was trained with, or the strength changes"
        )
    if not 0 < scale.alpha < math.inf:
        raise UserError(
            f"Kohya's file: alpha must be > 0, got {scale.alpha} for {name}: its readers take 0 as "
            "alpha = rank. Train with a positive lora.alpha"
        )
    magnitude = parts.get("lora_magnitude_vector")
    if magnitude is not None and magnitude.numel() != b[0]:
        raise UserError(
            f"Kohya's file: {name} has {magnitude.numel()} DoRA magnitudes for {b[0]} outputs: "
            "the adapter is damaged, save it again"
        )


def _common(values: Iterable[str]) -> str:
    """The one value that all share, or "Dynamic"."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else "Dynamic"
