"""Kohya's LoRA file, read by its published rules and merged into plain models.

The rules are those of kohya-ss/sd-scripts (networks/lora.py: prefixes, alpha / rank, shapes), of
ComfyUI (comfy/lora.py: the text encoders' layers) and of LyCORIS (`wd_on_output`: DoRA). Nothing is
imported from the package. What a lenient reader would skip or guess is an error here.
"""

import copy

import torch
from safetensors.torch import load_file

CLIP_LAYER = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.out_proj",
    "mlp.fc1",
    "mlp.fc2",
)
PARTS = {"lora_down.weight", "lora_up.weight", "alpha", "dora_scale"}


def merged(file, unet, *text_encoders):
    """Copies of the models, in their order, with the file's LoRA merged into their weights."""
    models = copy.deepcopy([unet, *text_encoders])
    places = {underscored("lora_unet", name): m for name, m in models[0].named_modules()}
    for number, encoder in enumerate(models[1:], start=1):
        places |= clip_places(encoder, f"lora_te{number}" if len(text_encoders) > 1 else "lora_te")
    tensors = load_file(file)
    for name in sorted({key.split(".")[0] for key in tensors}):
        parts = {k.split(".", 1)[1]: t for k, t in tensors.items() if k.split(".")[0] == name}
        if name not in places:
            raise KeyError(f"{name} has no place")
        if not PARTS - {"dora_scale"} <= set(parts) <= PARTS:
            raise KeyError(f"{name} has {sorted(parts)}")
        weight = places[name].weight
        weight.data = adapted(weight.data, **{k.split(".")[0]: t for k, t in parts.items()})
    return models


def underscored(prefix, module):
    return f"{prefix}.{module}".replace(".", "_")


def clip_places(encoder, prefix):
    """Names as in CLIPTextModel before it lost its `text_model`, whatever this one looks like."""
    text_model = getattr(encoder, "text_model", encoder)
    places = {
        f"{prefix}_text_model_encoder_layers_{number}_{inner.replace('.', '_')}": (
            layer.get_submodule(inner)
        )
        for number, layer in enumerate(text_model.encoder.layers)
        for inner in CLIP_LAYER
    }
    if hasattr(encoder, "text_projection"):
        places[f"{prefix}_text_projection"] = encoder.text_projection
    return places


def adapted(weight, lora_down, lora_up, alpha, dora_scale=None):
    assert alpha.shape == ()
    out, rank = lora_up.shape[:2]
    if weight.ndim == 2:
        delta = lora_up @ lora_down
    else:
        assert lora_up.shape == (out, rank, 1, 1)
        delta = torch.einsum("or,rikl->oikl", lora_up[:, :, 0, 0], lora_down)
    assert delta.shape == weight.shape and len(lora_down) == rank
    weight = weight + delta * (alpha.item() / rank)
    if dora_scale is not None:
        ones = [1] * (weight.ndim - 1)
        assert dora_scale.shape == (out, *ones)
        weight = weight * dora_scale / weight.flatten(1).norm(dim=1).view(out, *ones)
    return weight
