"""Loading a reader's weights: pinned, safetensors only, no code of theirs, no torchvision."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from unskew.errors import UserError
from unskew.runs import sha256_file

COMMIT = re.compile(r"[0-9a-f]{40}")


def pin(model: str, revision: str | None) -> str:
    """How a reader's weights are named: a folder by its sha256, a hub's model by its commit.

    Raises UserError for a folder without safetensors, and for a hub's model without a commit.
    """
    folder = Path(model)
    if folder.exists():
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if not files:
            raise UserError(
                f"{model} has no .safetensors weights; other formats are not loaded, because "
                "unpickling a file can run code: convert it first"
            )
        digest = hashlib.sha256()
        for file in [*files, *sorted(folder.glob("*.json"))]:
            digest.update(f"{file.name}\0{sha256_file(file)}\n".encode())
        return f"{folder.name}, sha256 {digest.hexdigest()[:12]}"
    if not COMMIT.fullmatch(revision or ""):
        raise UserError(
            f"{model} is no folder here, and for a model on the hub revision must be a commit of "
            f"40 hexadecimal digits, so that its weights stay the same, got {revision}: take the "
            "commit from the model's page"
        )
    return f"{model}@{str(revision)[:12]}"


def load_model(auto: Any, model: str, revision: str | None, device: torch.device) -> Any:
    """The model on its device in full precision, for reading only. `auto` is an AutoModel class.

    Raises UserError when it cannot be had or is of another kind.
    """
    loaded = _load(auto, model, revision, torch_dtype=torch.float32, use_safetensors=True)
    return loaded.requires_grad_(False).eval().to(device)


def load_processor(auto: Any, model: str, revision: str | None) -> Any:
    """What prepares pictures or words for a model; pictures by Pillow, the same everywhere."""
    return _load(auto, model, revision, backend="pil")


def load_tokenizer(auto: Any, model: str, revision: str | None) -> Any:
    """What prepares words for a model."""
    return _load(auto, model, revision)


def _load(auto: Any, model: str, revision: str | None, **how: Any) -> Any:
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return auto.from_pretrained(
                model,
                revision=None if Path(model).exists() else revision,
                trust_remote_code=False,
                **how,
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{model} cannot be loaded as {auto.__name__} ({said[0]}): give a folder that "
            "save_pretrained wrote, or a hub id and its commit; private models need "
            "`hf auth login` or HF_TOKEN"
        ) from error
