"""What every test relies on: no hub, the same examples on any machine, a tiny base and dataset."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = "1"
# Models this small gain nothing from threads, and where another program holds a core, threads that
# wait for each other at every operation make minutes of seconds. Children inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# A loaded machine is no failure, so no deadline for an example.
hypothesis.settings.register_profile("unskew", deadline=None, derandomize=True)
hypothesis.settings.load_profile("unskew")

TINY_SUBJECTS = ("mechanic", "health worker")
TINY_CONTROLS = ("red apple", "banana", "house")
PRESENTATIONS = {"woman": "woman", "man": "man", "person": "androgynous"}
TONES = ("pale", "light", "tan", "brown", "dark")

TINY_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "latent_channels": 8,
    "norm_num_groups": 4,
    "sample_size": 16,
}
TINY_TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 16,
}
SPECIAL = ("bos", "eos", "pad")
TINY_UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 8,
    "out_channels": 8,
    "block_out_channels": (16, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
TINY_TEXT_2: dict[str, Any] = {
    "hidden_size": 12,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 12,
}
TINY_SDXL: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": TINY_TEXT["hidden_size"] + TINY_TEXT_2["hidden_size"],
    "transformer_layers_per_block": (1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + TINY_TEXT_2["projection_dim"],
}
SD_BETAS: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion folder with random weights: 16 px, latents (8, 8, 8), 24 tokens of 16.

    Emoji World's own tokenizer and scheduler; some 100,000 parameters, so a step takes
    milliseconds. Its pictures are noise: tests of what pictures show cannot use it.
    """
    from unskew.data.emoji_world.base_parts import build_scheduler

    return save_tiny_sd(tmp_path_factory.mktemp("tiny"), build_scheduler())


@pytest.fixture(scope="session")
def tiny_sd15_like_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As tiny_base, but with SD 1.5's scheduler: it predicts the noise and draws with PNDM."""
    from diffusers import PNDMScheduler

    scheduler = PNDMScheduler(
        **SD_BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1
    )
    return save_tiny_sd(tmp_path_factory.mktemp("tiny-sd15"), scheduler)


@pytest.fixture(scope="session")
def tiny_sdxl_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SDXL folder with random weights and SDXL's scheduler: two text encoders, told sizes.

    16 px, latents (8, 8, 8); 24 tokens of 16 + 12, pooled 12; no caption is all zeros.
    """
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    folder = tmp_path_factory.mktemp("tiny-sdxl")
    tokenizer, words = tiny_words(folder / "tokenizer")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = StableDiffusionXLPipeline(
            vae=AutoencoderKL(**TINY_VAE),
            text_encoder=CLIPTextModel(
                CLIPTextConfig(**{**TINY_TEXT, "num_hidden_layers": 2}, **words)
            ),
            text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**TINY_TEXT_2, **words)),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=UNet2DConditionModel(**{**TINY_UNET, **TINY_SDXL}),
            scheduler=EulerDiscreteScheduler(
                **SD_BETAS, timestep_spacing="leading", steps_offset=1
            ),
            add_watermarker=False,
        )
    pipe.save_pretrained(folder / "base", safe_serialization=True)
    return folder / "base"


def tiny_words(folder: Path) -> tuple[Any, dict[str, int]]:
    """Emoji World's tokenizer, and what a text model's configuration says of it."""
    from unskew.data.emoji_world.base_parts import TOKENS, build_tokenizer
    from unskew.data.emoji_world.world import load_world

    tokenizer = build_tokenizer(load_world(), folder)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in SPECIAL}
    return tokenizer, special | {"vocab_size": len(tokenizer), "max_position_embeddings": TOKENS}


def save_tiny_sd(folder: Path, scheduler: Any) -> Path:
    """A tiny StableDiffusionPipeline with this scheduler; always the same random weights."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer, words = tiny_words(folder / "tokenizer")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = StableDiffusionPipeline(
            vae=AutoencoderKL(**TINY_VAE),
            text_encoder=CLIPTextModel(CLIPTextConfig(**TINY_TEXT, **words)),
            tokenizer=tokenizer,
            unet=UNet2DConditionModel(**TINY_UNET),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.save_pretrained(folder / "base", safe_serialization=True)
    return folder / "base"


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imagefolder of two subjects x 15 cells and three controls, 16 px; change only a copy."""
    folder = tmp_path_factory.mktemp("dataset") / "pictures"
    (folder / "images").mkdir(parents=True)
    rows = list(_tiny_rows())
    for number, name in enumerate(dict.fromkeys(row["file_name"] for row in rows)):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(lines, "utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_people(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset without its controls: as exemplars, every picture reads as somebody."""
    folder = Path(shutil.copytree(tiny_dataset, tmp_path_factory.mktemp("people") / "pictures"))
    lines = (folder / "metadata.jsonl").read_text("utf-8").splitlines(keepends=True)
    people = "".join(line for line in lines if json.loads(line)["kind"] == "explicit")
    (folder / "metadata.jsonl").write_text(people, "utf-8")
    return folder


def _tiny_rows() -> Iterator[dict[str, Any]]:
    for subject, presentation, tone in itertools.product(TINY_SUBJECTS, PRESENTATIONS, TONES):
        explicit = f"a {PRESENTATIONS[presentation]} {subject} with {tone} skin"
        values = {"presentation": presentation, "skin_tone": tone, "season": None}
        for kind, text in (("neutral", f"a {subject}"), ("explicit", explicit)):
            yield _tiny_row(
                f"{subject}-{presentation}-{tone}", kind, subject, text, explicit, values
            )
    for thing in TINY_CONTROLS:
        nothing = {"presentation": None, "skin_tone": None, "season": None}
        yield _tiny_row(thing, "control", thing, f"a {thing}", None, nothing)


def _tiny_row(
    name: str,
    kind: str,
    subject: str,
    text: str,
    explicit_text: str | None,
    values: dict[str, str | None],
) -> dict[str, Any]:
    return {
        "file_name": f"images/{name.replace(' ', '-')}.png",
        "text": text,
        "kind": kind,
        "subject": subject.replace(" ", "-"),
        **values,
        "explicit_text": explicit_text,
        "weight": 1.0,
        "split": "train",
        "source": "test",
        "license": "CC0-1.0",
        "sha256": "",
    }
