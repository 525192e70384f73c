"""LoRA adapters on a base's UNet and text encoders: attach, save, load back strictly, weigh.

The file is diffusers' own format (`pytorch_lora_weights.safetensors`) with its adapter metadata:
without it a loader takes alpha = rank, and the adapter comes back at another strength.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor
from torch.nn import Module, Parameter

from unskew.errors import UserError
from unskew.families import family_of
from unskew.foreign import scale_of_one, with_alphas
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
_TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
TEXT_PRESETS: Mapping[str, tuple[str, ...]] = {
    name: _TEXT_ATTENTION if name == "attention" else (*_TEXT_ATTENTION, "fc1", "fc2")
    for name in TARGET_PRESETS
}
"""Preset -> the same of a text encoder's modules."""
_IN_TEXT_ENCODERS = {"lora_A": "lora_linear_layer.down", "lora_B": "lora_linear_layer.up"}
"""Peft's names of a LoRA's halves, and diffusers' own in text encoders."""


def attach(
    models: Mapping[str, Module],
    *,
    rank: int,
    alpha: float,
    target_modules: str | Sequence[str],
    use_rslora: bool = False,
    use_dora: bool = False,
    leave_out: Collection[str] = (),
) -> dict[str, Parameter]:
    """Add a LoRA that changes nothing yet (B = 0); "model.parameter" -> parameter, all fp32.

    `models` are UNet and text encoders by their names in the pipeline. `target_modules` is a preset
    or ends of module names. The scale is alpha / rank, with rsLoRA alpha / sqrt(rank). A is drawn
    from torch's global generator: seed it first. fp32 whatever the base's precision, because in
    bf16 most updates of a usual learning rate round to nothing. `leave_out` are modules that get
    none, with all inside them, as "model.module". Raises UserError for an end that no module of any
    model has.
    """
    outside = tuple(f"{module}." for module in leave_out)
    names = {
        name: [
            module
            for module in _modules_to_adapt(name, model, target_modules)
            if not f"{name}.{module}.".startswith(outside)
        ]
        for name, model in models.items()
    }
    _check_ends(models, target_modules)
    parameters = {}
    for name, model in models.items():
        if not names[name]:
            continue
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]
            target_modules=names[name],
            use_rslora=use_rslora,
            use_dora=use_dora,
        )
        model.add_adapter(config, TRAINED)  # type: ignore[operator]
        for key, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                parameters[f"{name}.{key}"] = parameter
    return parameters


def adapter_weights(models: Mapping[str, Module]) -> dict[str, Tensor]:
    """The attached LoRA by peft's names, "unet.<module>.lora_A.weight" and so on, on the CPU."""
    # peft's own names: diffusers' converter renames attention only, and its loader, which judges
    # all names by the first, then drops the attention weights without a word
    return {
        f"{name}.{key}": t.detach().to("cpu", copy=True).contiguous()
        for name, model in _adapted(models)
        for key, t in get_peft_model_state_dict(model, adapter_name=TRAINED).items()
    }


def save_adapter(
    folder: Path, models: Mapping[str, Module], extra_metadata: Mapping[str, str]
) -> Path:
    """Write the attached LoRA into `folder` and return the file. Same weights, same bytes.

    `extra_metadata` goes into the file's header beside the LoRA's own configuration.
    """
    weights = {_name_in_file(key, models): t for key, t in adapter_weights(models).items()}
    config = {
        f"{name}.{key}": sorted(value) if isinstance(value, set) else value
        for name, model in _adapted(models)
        for key, value in model.peft_config[TRAINED].to_dict().items()  # type: ignore[union-attr, index]
    }
    metadata = {**extra_metadata, "format": "pt", METADATA_KEY: json.dumps(config, sort_keys=True)}
    write_safetensors(folder / WEIGHTS_FILE, weights, metadata)
    return folder / WEIGHTS_FILE


def write_safetensors(
    file: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file whole or not at all. Same weights and metadata, same bytes."""
    with atomic_path(file) as temporary:
        temporary.write_bytes(_sorted_header(safetensors.torch.save(dict(weights), dict(metadata))))


def load_adapter(pipe: Any, path: Path, name: str, weight: float = 1.0) -> None:
    """Put an adapter (a folder or its safetensors file) on the pipeline, switched on at `weight`.

    Raises UserError, before anything is changed, when the file is missing or unreadable or when
    any of its weights has no place of its shape in the base: diffusers alone would only warn.
    """
    file, family = adapter_file(path), family_of(pipe)
    if not file.is_file():
        raise UserError(f"adapter {path}: there is no {file}: give a folder that holds one")
    mapped = {"unet_config": pipe.unet.config} if family.NAME == "sdxl" else {}
    try:
        loaded, alphas, metadata = pipe.lora_state_dict(
            str(file.parent),
            weight_name=file.name,
            use_safetensors=True,
            local_files_only=True,
            return_lora_metadata=True,
            **mapped,
        )
    except Exception as error:
        raise UserError(f"adapter {file} cannot be read as a LoRA ({error})") from error
    try:
        loaded, alpha = with_alphas(loaded, alphas)
    except UserError as error:
        raise UserError(f"adapter {file} cannot be read as a LoRA: {error}") from error
    loaded = {_dora_name(key): tensor for key, tensor in loaded.items()}
    there = {part: getattr(pipe, part) for part in ("unet", *family.ENCODERS)}
    models = {part: model for part, model in there.items() if model is not None}
    unet = convert_unet_state_dict_to_peft(_of("unet", loaded, keep_prefix=True))
    encoders = [part for part in family.ENCODERS if part in models]
    texts = {part: _text_weights(part, loaded, models[part]) for part in encoders}
    strangers = [key for key in loaded if key.split(".")[0] not in models]
    _check_fits(models, {**unet, **_prefixed(texts)}, strangers, file)
    if not metadata:
        parts = {"unet": {key.removeprefix("unet."): t for key, t in unet.items()}, **texts}
        metadata = {}
        for part, own in parts.items():
            metadata |= scale_of_one(part, own, alpha)
    if unet:
        pipe.unet.load_lora_adapter(
            unet, prefix="unet", adapter_name=name, network_alphas=None, metadata=metadata
        )
    for part, weights in texts.items():
        if weights:
            pipe.load_lora_into_text_encoder(
                loaded,
                network_alphas=None,
                text_encoder=models[part],
                prefix=part,
                adapter_name=name,
                metadata=metadata,
                _pipeline=pipe,
            )
    weigh(pipe, {name: weight})


def weigh(pipe: Any, weights: Mapping[str, float]) -> None:
    """Switch on these loaded adapters, each at its weight: 0 is the bare base, 1 as trained."""
    pipe.set_adapters(list(weights), adapter_weights=list(weights.values()))


def adapter_file(path: Path) -> Path:
    """The safetensors file of an adapter's folder, or the file itself."""
    return path if path.suffix == ".safetensors" else path / WEIGHTS_FILE


def architecture(unet: Any) -> str:
    """What an adapter must match: "channels 320-640-1280, cross-attention 768"."""
    channels = "-".join(map(str, sorted(set(unet.config.block_out_channels))))
    return f"channels {channels}, cross-attention {unet.config.cross_attention_dim}"


def _modules_to_adapt(name: str, model: Module, targets: str | Sequence[str]) -> list[str]:
    """Full names of a model's modules that get a LoRA."""
    presets = TARGET_PRESETS if name == "unet" else TEXT_PRESETS
    ends = presets.get(targets) if isinstance(targets, str) else targets
    if ends is None:
        raise UserError(
            f"lora.target_modules must be one of {list(presets)} or a list of ends of module "
            f"names, got {targets!r}"
        )
    return sorted({module for end in ends for module in _ending(model, end)})


def _check_ends(models: Mapping[str, Module], targets: str | Sequence[str]) -> None:
    """Every end of a list of the user's must be the end of a module."""
    ends = () if isinstance(targets, str) else targets
    unknown = [e for e in ends if not any(_ending(model, e) for model in models.values())]
    if unknown:
        some = _adaptable(next(iter(models.values())))[1:12:2]
        raise UserError(
            f"lora.target_modules: no module of {', '.join(models)} ends in {unknown} "
            f"(there are, for example, {some})"
        )


def _adaptable(model: Module) -> list[str]:
    kinds = torch.nn.Linear | torch.nn.Conv2d
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def _ending(model: Module, end: str) -> list[str]:
    suffix = end if end.startswith("samplers") else f".{end}"  # down- and upsamplers alike
    return [name for name in _adaptable(model) if name == end or name.endswith(suffix)]


def _adapted(models: Mapping[str, Module]) -> list[tuple[str, Module]]:
    """The models that `attach` gave a LoRA."""
    return [(n, m) for n, m in models.items() if TRAINED in getattr(m, "peft_config", {})]


def _name_in_file(key: str, models: Mapping[str, Module]) -> str:
    """The name by which diffusers finds a weight, whatever the version of transformers.

    Version 5 took the `text_model.` out of CLIPTextModel; loaders there take it out of names by
    themselves. Of a text encoder they know peft's names of attention only.
    """
    part, _, module = key.partition(".")
    if part == "unet":
        return key
    inside = module if hasattr(models[part], "text_model") else f"text_model.{module}"
    for ours, theirs in _IN_TEXT_ENCODERS.items():
        inside = inside.replace(f".{ours}.weight", f".{theirs}.weight")
    return _dora_name(f"{part}.{inside}")


def _dora_name(key: str) -> str:
    """The name of a text encoder's DoRA lengths that transformers 5 reads.

    It puts the adapter's name behind `lora_...`, but the weight is called `.weight` behind that;
    by peft's own name, which has none, they are passed over without a word.
    """
    lost = key.startswith("text_encoder") and key.endswith(".lora_magnitude_vector")
    return f"{key}.weight" if lost else key


def _of(part: str, weights: Mapping[str, Any], *, keep_prefix: bool = False) -> dict[str, Any]:
    start = f"{part}."
    return {
        key if keep_prefix else key.removeprefix(start): value
        for key, value in weights.items()
        if key.startswith(start)
    }


def _text_weights(part: str, loaded: Mapping[str, Tensor], encoder: Module) -> dict[str, Tensor]:
    """A text encoder's weights by peft's names, as diffusers is about to load them."""
    weights = _of(part, loaded)
    if not weights:
        return {}
    weights = convert_state_dict_to_peft(convert_state_dict_to_diffusers(weights))
    old = "" if hasattr(encoder, "text_model") else "text_model."
    return {key.removeprefix(old): t for key, t in weights.items()}


def _prefixed(weights: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{part}.{key}": t for part, own in weights.items() for key, t in own.items()}


def _check_fits(
    models: Mapping[str, Module],
    weights: Mapping[str, Tensor],
    strangers: Iterable[str],
    file: Path,
) -> None:
    """Every weight belongs to a module of its shape, and every A has its B."""
    modules = {
        f"{part}.{name}": module
        for part, model in models.items()
        for name, module in model.named_modules()
    }
    misfits = [key for key in sorted(weights) if not _fits(key, weights, modules)]
    misfits += strangers
    if misfits or not weights:
        raise UserError(
            f"adapter {file} does not fit this base: {len(misfits)} of {len(weights)} weights have "
            f"no place in it (first: {misfits[:3]}). The adapter is for a UNet with "
            f"{_architecture_of(weights)}; the base has {architecture(models['unet'])}: give the "
            "base that it was trained on"
        )


def _fits(key: str, weights: Mapping[str, Tensor], modules: Mapping[str, Any]) -> bool:
    """Whether a weight's module exists, both of its halves are there, and the widths agree."""
    name, _, half = key.rpartition(".lora_")
    module = modules.get(name)
    base = _shape(getattr(module, "base_layer", module))
    a, b = weights.get(f"{name}.lora_A.weight"), weights.get(f"{name}.lora_B.weight")
    if base is None or a is None or b is None:
        return False
    if half.startswith("magnitude_vector"):
        return bool(weights[key].numel() == base[0])
    return half in ("A.weight", "B.weight") and bool(
        a.ndim == len(base) == b.ndim
        and (b.shape[0], *a.shape[1:]) == base
        and a.shape[0] == b.shape[1]
    )


def _shape(module: Any) -> tuple[int, ...] | None:
    """A layer's weight's shape, of a quantised one what it stands for; None of what has none."""
    if isinstance(module, torch.nn.Linear):
        return module.out_features, module.in_features
    weight = getattr(module, "weight", None)
    return None if weight is None else tuple(weight.shape)


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
