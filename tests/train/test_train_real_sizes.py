"""The published architectures, at their own widths, with random weights: one step, and a picture.

UNet and VAE of Stable Diffusion 1.5 and its text encoder are whole. Of SDXL the deep stacks are cut
short, so that it fits two cores and some minutes: transformers 1, 1 and 2 layers deep instead of 1,
2 and 10, the second text encoder 4 layers instead of 32. Vocabulary, tokenizer and sentence length
are Emoji World's, and pictures have 64 px, latents 8 x 8.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from unskew.adapters import WEIGHTS_FILE, load_adapter
from unskew.evaluate.generate import Cell, Sampler, TextStates, draw_batch
from unskew.kohya import KOHYA_FILE
from unskew.pipelines import load_base
from unskew.prompts import Prompt, prompt_id
from unskew.runs import read_manifest
from unskew.settings import run_program
from unskew.train import lora

pytestmark = pytest.mark.slow
Argv = Callable[..., list[str]]

BETAS: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}
CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "max_position_embeddings": 77,
}
BIG_G: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 4,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
    "max_position_embeddings": 77,
}
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def build_sd15(tokenizer: CLIPTokenizer, words: dict[str, int]) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=AutoencoderKL(**VAE).bfloat16(),
        text_encoder=CLIPTextModel(CLIPTextConfig(**CLIP_L, **words)).bfloat16(),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8
        ).bfloat16(),
        scheduler=PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def build_sdxl(tokenizer: CLIPTokenizer, words: dict[str, int]) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL(**VAE, scaling_factor=0.13025).bfloat16(),
        text_encoder=CLIPTextModel(CLIPTextConfig(**CLIP_L, **words)).bfloat16(),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**BIG_G, **words)).bfloat16(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=UNet2DConditionModel(**SDXL_UNET).bfloat16(),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
        add_watermarker=False,
    )


BUILDERS = {"sd_v1": build_sd15, "sdxl_base_v1-0": build_sdxl}


@pytest.mark.parametrize("version", BUILDERS)
def test_a_base_of_the_real_size_trains_and_draws(
    version: str, tiny_base: Path, argv: Argv, tmp_path: Path
) -> None:
    """One step of UNet and encoders, proved on a fresh base, named right, and able to draw."""
    tokenizer = CLIPTokenizer.from_pretrained(tiny_base / "tokenizer")
    words = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("bos", "eos", "pad")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = BUILDERS[version](tokenizer, words | {"vocab_size": len(tokenizer)})
    base = tmp_path / "base"
    pipe.save_pretrained(base, safe_serialization=True)
    del pipe
    settings = (
        *("--base", str(base), "--resolution_px", "64", "--dtype", "bf16", "--steps", "1"),
        *("--lora.components", "unet", "text_encoder", "--batch.size", "2"),
        *("--batch.control_share", "0", "--checkpoints.keep", "1"),
    )
    out = tmp_path / "run"
    assert run_program(lora.main, argv(out, *settings)) == 0
    facts = read_manifest(out)["facts"]
    assert facts["effect"] > 0 and facts["difference"] <= 1e-6
    with safetensors.safe_open(out / "adapter" / KOHYA_FILE, "pt") as file:
        assert file.metadata()["ss_base_model_version"] == version
    drawn = load_base(base, torch.device("cpu"), torch.bfloat16)
    load_adapter(drawn, out / "adapter" / WEIGHTS_FILE, "a")
    text = "a mechanic"
    cell = Cell(Prompt(prompt_id(text), text, "s", "x", (), {"subject": "x"}), 0)
    sampler = Sampler(steps=2, guidance=5.0, resolution_px=64, batch=1)
    picture = draw_batch(drawn, [cell], sampler, TextStates(drawn, True)([text]))
    assert picture.shape == (1, 64, 64, 3)
    assert np.unique(picture).size > 10
