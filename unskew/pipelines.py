"""Loading a base model, and choosing where and how precisely to compute."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import warnings
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from unskew.errors import UserError
from unskew.runs import sha256_file

EMBEDDED_BASE = "emoji-world"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def choose_device() -> tuple[torch.device, str]:
    """The fastest device here, and why."""
    if torch.cuda.is_available():
        return torch.device("cuda"), f"cuda ({torch.cuda.get_device_name()})"
    if torch.backends.mps.is_available():
        return torch.device("mps"), "mps (Apple GPU)"
    return torch.device("cpu"), f"cpu ({torch.get_num_threads()} threads; no GPU found)"


def choose_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    """The precision that this device computes fast and safely, and why."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return torch.bfloat16, f"bf16 (cuda, compute capability {major}.{minor})"
        return torch.float16, f"fp16 (cuda, compute capability {major}.{minor} has no bf16)"
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16, "bf16 (cpu with avx512_bf16)"
    return torch.float32, f"fp32 ({device.type} without fast bf16)"


def check_base(folder: Path) -> dict[str, object]:
    """Look a diffusers folder over without loading weights; its model_index.

    Raises UserError when it is missing, is no Stable Diffusion folder, lacks a part, or holds
    weights in anything but safetensors.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(
            f"base {folder} is no diffusers folder (no model_index.json): give a folder that "
            "StableDiffusionPipeline.save_pretrained wrote"
        )
    parts: dict[str, object] = json.loads(index.read_text("utf-8"))
    if parts.get("_class_name") != "StableDiffusionPipeline":
        raise UserError(
            f"base {folder} is a {parts.get('_class_name')}; allowed: StableDiffusionPipeline"
        )
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise UserError(f"base {folder} lacks {', '.join(missing)}: download it whole")
    for part in ("unet", "vae", "text_encoder"):
        if not list((folder / part).glob("*.safetensors")):
            raise UserError(
                f"base {folder}/{part} has no .safetensors weights; other formats are not loaded, "
                "because unpickling a file can run code: convert it first"
            )
    return parts


def load_base(folder: Path, device: torch.device, dtype: torch.dtype) -> StableDiffusionPipeline:
    """The base on its device, in evaluation mode, gradients off. Raises UserError as check_base."""
    check_base(folder)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = StableDiffusionPipeline.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False).eval()
    pipe.unet.to(memory_format=torch.channels_last)
    return pipe.to(device)


def base_sha256(folder: Path) -> str:
    """sha256 over the base's configuration, tokenizer and weights, by sorted relative name."""
    digest = hashlib.sha256()
    for file in sorted(f for part in PARTS for f in (folder / part).rglob("*") if f.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def resolve_base(name: str) -> Path:
    """The folder of a base: a path, or "emoji-world" for the embedded one. Raises UserError."""
    if name != EMBEDDED_BASE:
        return Path(name)
    world = importlib.util.find_spec("unskew.data.emoji_world")
    assert world is not None and world.origin is not None
    return Path(world.origin).parent / "base"
