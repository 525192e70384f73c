"""A Stable Diffusion 1.x pipeline as the one file that CompVis's code and A1111 call a checkpoint.

The names are those of ldm/modules/diffusionmodules (openaimodel.py, model.py) and of the text
encoder that it takes from transformers. Nothing is imported from the package.
"""

import re

from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
MIDDLE = {
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def save_original(file, unet, vae, text_encoder):
    tensors = {}
    layers = unet.config.layers_per_block
    for key, tensor in unet.state_dict().items():
        tensors[f"model.diffusion_model.{unet_name(key, layers, unet.config)}"] = tensor
    blocks = len(vae.config.block_out_channels)
    for key, tensor in vae.state_dict().items():
        name = vae_name(key, blocks)
        image = ".mid.attn_1." in name and name.endswith("weight") and tensor.ndim == 2
        tensors[f"first_stage_model.{name}"] = tensor[:, :, None, None] if image else tensor
    for key, tensor in text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = (
            tensor
        )
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, file)


def unet_name(key, layers, config):
    for ours, theirs in {**OUTSIDE, **MIDDLE}.items():
        if key.startswith(f"{ours}."):
            renamed = key.replace(ours, theirs, 1)
            return resnet(renamed) if "resnets" in ours else renamed
    way, block, kind, number, rest = re.fullmatch(
        r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", key
    ).groups()
    block = int(block)
    first = block * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        after = 2 if config.up_block_types[block].startswith("CrossAttn") else 1
        return f"output_blocks.{first + layers}.{after}.{rest}"
    side, place = ("input", 1 + first) if way == "down" else ("output", first)
    start = f"{side}_blocks.{place + int(number)}"
    return resnet(f"{start}.0.{rest}") if kind == "resnets" else f"{start}.1.{rest}"


def resnet(name):
    for ours, theirs in RESNET.items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    return name


def vae_name(key, blocks):
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    if "mid_block.attentions.0" in key:
        key = key.replace("mid_block.attentions.0", "mid.attn_1")
        for ours, theirs in VAE_ATTENTION.items():
            key = key.replace(f".{ours}.", f".{theirs}.")
    key = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", key)
    key = re.sub(
        r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{blocks - 1 - int(m[1])}.block.", key
    )
    return re.sub(
        r"up_blocks\.(\d)\.upsamplers\.0\.",
        lambda m: f"up.{blocks - 1 - int(m[1])}.upsample.",
        key,
    )
