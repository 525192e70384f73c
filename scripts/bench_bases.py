"""Bases of published sizes with random weights, and pictures to train them on, for benchmarks.

How long a step takes does not depend on what the weights are, so nothing has to be downloaded. What
such a base draws is noise.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from unskew.attributes import load_attribute
from unskew.bases import EMBEDDED_BASE, resolve_base

Size = Literal["sd15", "sdxl"]
TOKENS = 77
ATTRIBUTES = ("presentation", "skin_tone")
SUBJECTS = ("mechanic", "health worker", "judge", "singer")
CONTROLS = ("red apple", "banana", "house", "bicycle")

# unet/config.json of huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5
SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
# unet/config.json of huggingface.co/stabilityai/stable-diffusion-xl-base-1.0
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
# vae/config.json of both; they differ in sample_size and scaling_factor
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
VAES: dict[Size, dict[str, Any]] = {
    "sd15": {**VAE, "sample_size": 512, "scaling_factor": 0.18215},
    "sdxl": {**VAE, "sample_size": 1024, "scaling_factor": 0.13025},
}
# text_encoder/config.json of both: the text model of openai/clip-vit-large-patch14
CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
# text_encoder_2/config.json of SDXL: the text model of laion/CLIP-ViT-bigG-14-laion2B-39B-b160k
CLIP_BIG_G: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
VOCABULARY = 49408
# scheduler/scheduler_config.json of both
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
NOISE = 1_000_003
"""How many random numbers a model is made of: a prime, so that no two rows are equal."""


def models_of(size: Size) -> dict[str, Any]:
    """The models of a base by their names in its pipeline, freshly made on torch's device."""
    unet = UNet2DConditionModel(**(SD15_UNET if size == "sd15" else SDXL_UNET))
    models = {"unet": unet, "vae": AutoencoderKL(**VAES[size])}
    models["text_encoder"] = CLIPTextModel(_text(CLIP_L))
    if size == "sdxl":
        models["text_encoder_2"] = CLIPTextModelWithProjection(_text(CLIP_BIG_G))
    return models


def write_base(size: Size, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """A diffusers folder of that size with random weights, in fp16 as the hub has them too.

    The tokenizer is Emoji World's, with its few thousand words, padded to 77 tokens. No more than
    one model is in memory at a time.
    """
    with torch.device("meta"):
        models = models_of(size)
    pipe = _pipeline(size, models)
    pipe.save_config(folder)
    pipe.scheduler.save_pretrained(folder / "scheduler")
    for name in ("tokenizer", "tokenizer_2") if size == "sdxl" else ("tokenizer",):
        pipe.tokenizer.save_pretrained(folder / name)
    for name, model in models.items():
        _fill(model.to(dtype).to_empty(device="cpu"))
        model.save_pretrained(folder / name, safe_serialization=True)
        model.to("meta")


def write_dataset(folder: Path, side_px: int) -> None:
    """An imagefolder of random JPEGs, four subjects x 15 values and four controls.

    They have the size they are trained at: photographs, which are larger, would cost whoever
    decodes and resizes them in every step more.
    """
    (folder / "images").mkdir(parents=True)
    rows = list(_rows())
    for number, name in enumerate(dict.fromkeys(row["file_name"] for row in rows)):
        coarse = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BICUBIC)
        picture.save(folder / name, quality=90)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(lines, "utf-8")


def _rows() -> Iterator[dict[str, Any]]:
    values = [load_attribute(id).values for id in ATTRIBUTES]
    for subject, *shown in itertools.product(SUBJECTS, *values):
        explicit = f"a {shown[0]} {subject} with {shown[1]} skin"
        labels = dict(zip(ATTRIBUTES, shown, strict=True))
        name = "-".join([subject, *shown])
        for kind, text in (("neutral", f"a {subject}"), ("explicit", explicit)):
            yield _row(name, kind, subject, text) | labels | {"explicit_text": explicit}
    for thing in CONTROLS:
        yield _row(thing, "control", thing, f"a {thing}")


def _row(name: str, kind: str, subject: str, text: str) -> dict[str, Any]:
    file = f"images/{name.replace(' ', '-')}.jpg"
    return {"file_name": file, "text": text, "kind": kind, "subject": subject}


def _pipeline(size: Size, models: dict[str, Any]) -> Any:
    tokenizer = _tokenizer()
    if size == "sdxl":
        return StableDiffusionXLPipeline(
            **models,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            scheduler=EulerDiscreteScheduler(**SCHEDULER, timestep_spacing="leading"),
            add_watermarker=False,
        )
    return StableDiffusionPipeline(
        **models,
        tokenizer=tokenizer,
        scheduler=PNDMScheduler(**SCHEDULER, skip_prk_steps=True, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def _fill(model: Any) -> None:
    """Weights as torch draws them, norms 1, biases 0: the same numbers over and over, for speed."""
    noise = torch.rand(NOISE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        scaled = (noise * parameter[0].numel() ** -0.5).to(parameter.dtype)
        for part in parameter.view(-1).split(NOISE):
            part.copy_(scaled[: len(part)])


def _text(numbers: dict[str, Any]) -> CLIPTextConfig:
    tokenizer = _tokenizer()
    special = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("bos", "eos", "pad")}
    return CLIPTextConfig(
        **numbers, **special, vocab_size=VOCABULARY, max_position_embeddings=TOKENS
    )


def _tokenizer() -> CLIPTokenizer:
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(
        resolve_base(EMBEDDED_BASE) / "tokenizer", model_max_length=TOKENS, local_files_only=True
    )
    return tokenizer
