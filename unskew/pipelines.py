"""Loading a base model, and choosing where and how precisely to compute."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from unskew.errors import UserError
from unskew.families import FAMILIES, Family
from unskew.quantized import Quantization, quantize
from unskew.runs import sha256_file

EMBEDDED_BASE = "emoji-world"


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


def check_base(folder: Path) -> Family:
    """Look a diffusers folder over without loading weights; its family.

    Raises UserError when it is missing, is of no known family, lacks a part, or holds weights in
    anything but safetensors.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(
            f"base {folder} is no diffusers folder (no model_index.json): give a folder that "
            "a pipeline's save_pretrained wrote"
        )
    kind = json.loads(index.read_text("utf-8")).get("_class_name")
    if kind not in FAMILIES:
        raise UserError(f"base {folder} is a {kind}; allowed: {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    missing = [part for part in parts_of(family) if not (folder / part).is_dir()]
    if missing:
        raise UserError(f"base {folder} lacks {', '.join(missing)}: download it whole")
    for part in ("unet", "vae", *family.ENCODERS):
        if not list((folder / part).glob("*.safetensors")):
            raise UserError(
                f"base {folder}/{part} has no .safetensors weights; other formats are not loaded, "
                "because unpickling a file can run code: convert it first"
            )
    return family


def parts_of(family: Family) -> tuple[str, ...]:
    """The folders of a base that decide what it draws."""
    return ("unet", "vae", *family.ENCODERS, *family.TOKENIZERS, "scheduler")


def load_base(
    folder: Path, device: torch.device, dtype: torch.dtype, *, without: Collection[str] = ()
) -> Any:
    """The base's pipeline on its device, in evaluation mode, gradients off.

    Parts named in `without` are left out (None), for one who needs the encoders or the UNet only.
    Raises UserError as check_base.
    """
    family = check_base(folder)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = family.PIPELINE.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            **family.LOADING,
            **dict.fromkeys(without),
        )
    pipe.set_progress_bar_config(disable=True)
    for name in ("unet", "vae", *family.ENCODERS):
        if name not in without:
            getattr(pipe, name).requires_grad_(False).eval()
    if "unet" not in without:
        pipe.unet.to(memory_format=torch.channels_last)
    return pipe.to(device)


def load_unet(
    folder: Path, device: torch.device, dtype: torch.dtype, quantization: Quantization = "none"
) -> UNet2DConditionModel:
    """A base's UNet alone, as `load_base` has it, or with its linear layers quantised."""
    unet = UNet2DConditionModel.from_pretrained(
        folder / "unet", torch_dtype=dtype, use_safetensors=True, local_files_only=True
    )
    quantize(unet.requires_grad_(False).eval(), quantization, device, dtype)
    return unet.to(memory_format=torch.channels_last)


def base_sha256(folder: Path) -> str:
    """sha256 over the base's configuration, tokenizer and weights, by sorted relative name."""
    digest = hashlib.sha256()
    parts = parts_of(check_base(folder))
    for file in sorted(f for part in parts for f in (folder / part).rglob("*") if f.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def resolve_base(name: str) -> Path:
    """The folder of a base: a path, or "emoji-world" for the embedded one. Raises UserError."""
    if name != EMBEDDED_BASE:
        return Path(name)
    world = importlib.util.find_spec("unskew.data.emoji_world")
    assert world is not None and world.origin is not None
    return Path(world.origin).parent / "base"
