"""Loading a base model, and choosing where and how precisely to compute."""

from __future__ import annotations

import hashlib
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

    Raises UserError as check_parts, and when it holds weights in anything but safetensors.
    """
    family = check_parts(folder)
    for part in ("unet", "vae", *family.ENCODERS):
        if not list((folder / part).glob("*.safetensors")):
            raise UserError(
                f"base {folder}/{part} has no .safetensors weights; other formats are not loaded, "
                "because unpickling a file can run code: convert it first"
            )
    return family


def check_parts(folder: Path, setting: str = "base") -> Family:
    """The family of a diffusers folder, whose weights need not be there.

    Raises UserError, which names the `setting`, when it is missing, of no known family, or lacks a
    part.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(
            f"{setting} {folder} is no diffusers folder (no model_index.json): give a folder that "
            "a pipeline's save_pretrained wrote"
        )
    kind = json.loads(index.read_text("utf-8")).get("_class_name")
    if kind not in FAMILIES:
        raise UserError(f"{setting} {folder} is a {kind}; allowed: {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    missing = [part for part in parts_of(family) if not (folder / part).is_dir()]
    if missing:
        raise UserError(f"{setting} {folder} lacks {', '.join(missing)}: download it whole")
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
            variant=variant_of(folder),
            **family.LOADING,
            **dict.fromkeys(without),
        )
    pipe.set_progress_bar_config(disable=True)
    for name in ("unet", "vae", *family.ENCODERS):
        if name not in without:
            getattr(pipe, name).requires_grad_(False).eval()
    for name in {"unet", "vae"} - set(without):
        getattr(pipe, name).to(memory_format=torch.channels_last)
    return pipe.to(device)


def load_unet(
    folder: Path, device: torch.device, dtype: torch.dtype, quantization: Quantization = "none"
) -> UNet2DConditionModel:
    """A base's UNet alone, as `load_base` has it, or with its linear layers quantised."""
    unet = UNet2DConditionModel.from_pretrained(
        folder / "unet",
        torch_dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        variant=variant_of(folder),
    )
    quantize(unet.requires_grad_(False).eval(), quantization, device, dtype)
    return unet.to(memory_format=torch.channels_last)


def variant_of(folder: Path) -> str | None:
    """Which of a base's weights are read: the full ones, or "fp16" where the UNet has no others."""
    names = [file.name for file in (folder / "unet").glob("*.safetensors")]
    return "fp16" if names and all(".fp16." in name for name in names) else None


def base_sha256(folder: Path) -> str:
    """sha256 over the base's configuration, tokenizer and weights, by sorted relative name."""
    digest = hashlib.sha256()
    family = check_base(folder)
    parts = parts_of(family)
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    for name in family.CHOICES:
        digest.update(f"{name} {index.get(name)}\n".encode())
    for file in sorted(f for part in parts for f in (folder / part).rglob("*") if f.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()
