"""LoRA adapters on a UNet: attach, save, load back strictly, weigh.

The file is diffusers' own format (`pytorch_lora_weights.safetensors`) with its adapter metadata:
without it a loader takes alpha = rank, and the adapter comes back at another strength.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_unet_state_dict_to_peft
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor
from torch.nn import Parameter

from unskew.errors import UserError
from unskew.runs import atomic_path

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
METADATA_KEY = "lora_adapter_metadata"
"""The header entry from which diffusers rebuilds the LoRA's configuration."""
TRAINED = "default"
"""Name of the adapter that `attach` adds."""

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
_PROJECTIONS = ("proj_in", "proj_out")
_CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "samplers.0.conv")
TARGET_PRESETS: Mapping[str, tuple[str, ...]] = {
    "attention": _ATTENTION,
    "attention+feed_forward": (*_ATTENTION, *_FEED_FORWARD),
    "all_linear": (*_ATTENTION, *_FEED_FORWARD, *_PROJECTIONS),
    "with_convolutions": (*_ATTENTION, *_FEED_FORWARD, *_PROJECTIONS, *_CONVOLUTIONS),
}
"""Preset -> the ends of the names of the UNet's modules that get a LoRA."""


def attach(
    unet: UNet2DConditionModel, *, rank: int, alpha: float, target_modules: str | Sequence[str]
) -> list[Parameter]:
    """Add a LoRA that changes nothing yet (B = 0), and return its parameters, all fp32.

    `target_modules` is a preset or ends of module names. The scale is alpha / rank. A is drawn
    from torch's global generator: seed it first. fp32 whatever the base's precision, because in
    bf16 most updates of a usual learning rate round to nothing. Raises UserError for an end that
    no module has.
    """
    ends = TARGET_PRESETS.get(target_modules) if isinstance(target_modules, str) else target_modules
    if ends is None:
        raise UserError(
            f"lora.target_modules must be one of {list(TARGET_PRESETS)} or a list of ends of "
            f"module names, got {target_modules!r}"
        )
    modules = _modules_ending(unet, ends, strict=not isinstance(target_modules, str))
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules)  # type: ignore[arg-type]
    unet.add_adapter(config, TRAINED)
    parameters = [p for p in unet.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    return parameters


def save_adapter(
    folder: Path, unet: UNet2DConditionModel, extra_metadata: Mapping[str, str]
) -> Path:
    """Write the attached LoRA into `folder` and return the file. Same weights, same bytes.

    `extra_metadata` goes into the file's header beside the LoRA's own configuration.
    """
    # peft's own names: diffusers' converter renames attention only, and its loader, which judges
    # all names by the first, then drops the attention weights without a word
    layers = get_peft_model_state_dict(unet, adapter_name=TRAINED)
    weights = {f"unet.{name}": tensor for name, tensor in layers.items()}
    config = {
        f"unet.{key}": sorted(value) if isinstance(value, set) else value
        for key, value in unet.peft_config[TRAINED].to_dict().items()
    }
    metadata = {**extra_metadata, "format": "pt", METADATA_KEY: json.dumps(config, sort_keys=True)}
    write_safetensors(folder / WEIGHTS_FILE, weights, metadata)
    return folder / WEIGHTS_FILE


def load_adapter(pipe: StableDiffusionPipeline, path: Path, name: str, weight: float = 1.0) -> None:
    """Put an adapter (a folder or its safetensors file) on the pipeline, switched on at `weight`.

    Raises UserError, before anything is changed, when the file is missing or unreadable or when
    any of its weights has no place of its shape in the UNet: diffusers alone would only warn.
    """
    file = adapter_file(path)
    if not file.is_file():
        raise UserError(f"adapter {path}: there is no {file}: give a folder that holds one")
    try:
        loaded, alphas, metadata = pipe.lora_state_dict(
            str(file.parent),
            weight_name=file.name,
            use_safetensors=True,
            local_files_only=True,
            return_lora_metadata=True,
        )
    except Exception as error:
        raise UserError(f"adapter {file} cannot be read as a LoRA ({error})") from error
    weights: dict[str, Tensor] = convert_unet_state_dict_to_peft(loaded)
    _check_fits(pipe.unet, weights, file)
    pipe.unet.load_lora_adapter(
        weights, prefix="unet", adapter_name=name, network_alphas=alphas, metadata=metadata
    )
    weigh(pipe, {name: weight})


def weigh(pipe: StableDiffusionPipeline, weights: Mapping[str, float]) -> None:
    """Switch on these loaded adapters, each at its weight: 0 is the bare base, 1 as trained."""
    pipe.set_adapters(list(weights), adapter_weights=list(weights.values()))


def write_safetensors(
    file: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file whole or not at all. Same weights and metadata, same bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with atomic_path(file) as temporary:
        temporary.write_bytes(_sorted_header(safetensors.torch.save(tensors, dict(metadata))))


def adapter_file(path: Path) -> Path:
    """The safetensors file of an adapter's folder, or the file itself."""
    return path if path.suffix == ".safetensors" else path / WEIGHTS_FILE


def architecture(unet: UNet2DConditionModel) -> str:
    """What an adapter must match: "channels 320-640-1280, cross-attention 768"."""
    channels = "-".join(map(str, sorted(set(unet.config.block_out_channels))))
    return f"channels {channels}, cross-attention {unet.config.cross_attention_dim}"


def _modules_ending(unet: UNet2DConditionModel, ends: Sequence[str], *, strict: bool) -> list[str]:
    """Full names of the modules to adapt; `strict` wants every end to be the end of one."""
    names = [n for n, m in unet.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    found = {end: [n for n in names if n == end or n.endswith(_end(end))] for end in ends}
    unknown = [end for end, modules in found.items() if not modules]
    if unknown and strict:
        raise UserError(
            f"lora.target_modules: no module of the UNet ends in {unknown} "
            f"(it has, for example, {names[1:12:2]})"
        )
    return sorted({name for modules in found.values() for name in modules})


def _end(end: str) -> str:
    return end if end.startswith("samplers") else f".{end}"  # down- and upsamplers alike


def _check_fits(unet: UNet2DConditionModel, weights: Mapping[str, Tensor], file: Path) -> None:
    """Every weight belongs to a module of its shape, and every A has its B."""
    modules = {f"unet.{name}": module for name, module in unet.named_modules()}
    misfits = [key for key in sorted(weights) if not _fits(key, weights, modules)]
    if misfits or not weights:
        raise UserError(
            f"adapter {file} does not fit this base: {len(misfits)} of {len(weights)} weights have "
            f"no place in its UNet (first: {misfits[:3]}). The adapter is for a UNet with "
            f"{_architecture_of(weights)}; the base has {architecture(unet)}: give the base that "
            "it was trained on"
        )


def _fits(key: str, weights: Mapping[str, Tensor], modules: Mapping[str, Any]) -> bool:
    """Whether a weight's module exists, both of its halves are there, and the widths agree."""
    name, _, half = key.rpartition(".lora_")
    module = modules.get(name)
    base = getattr(getattr(module, "base_layer", module), "weight", None)
    a, b = weights.get(f"{name}.lora_A.weight"), weights.get(f"{name}.lora_B.weight")
    if base is None or a is None or b is None or half not in ("A.weight", "B.weight"):
        return False
    return bool(
        a.ndim == base.ndim == b.ndim
        and (b.shape[0], *a.shape[1:]) == tuple(base.shape)
        and a.shape[0] == b.shape[1]
    )


def _architecture_of(weights: Mapping[str, Tensor]) -> str:
    """An adapter's architecture, as far as the widths of its attention weights tell."""
    widths = {
        kind: sorted({t.shape[1] for k, t in weights.items() if f".{kind}.lora_A" in k})
        for kind in ("attn1.to_q", "attn1.to_k", "attn2.to_k", "attn2.to_v")
    }
    channels = "-".join(map(str, widths["attn1.to_q"] or widths["attn1.to_k"])) or "unknown"
    text = "-".join(map(str, widths["attn2.to_k"] or widths["attn2.to_v"])) or "unknown"
    return f"channels {channels}, cross-attention {text}"


def _sorted_header(file: bytes) -> bytes:
    """The same safetensors bytes with its header in sorted order: the library's order is random."""
    size = int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8 : 8 + size]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[8 + size :]
