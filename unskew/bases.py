"""Which folder a base is: yours, the embedded one, one from the hub, or one file unpacked."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open

from unskew.errors import UserError
from unskew.families import FAMILIES, Family
from unskew.hub import fetch, is_hub_id
from unskew.pipelines import check_parts, parts_of
from unskew.runs import atomic_path, sha256_file

EMBEDDED_BASE = "emoji-world"
CHECKPOINT = ".safetensors"
UNPACKED = "bases"
"""Folder of the cache that single files are unpacked into."""
_PARTS = tuple(dict.fromkeys(part for family in FAMILIES.values() for part in parts_of(family)))
_SMALL = ("model_index.json", *(f"{part}/*.{end}" for part in _PARTS for end in ("json", "txt")))
_FULL = (*_SMALL, *(f"{part}/*.safetensors" for part in _PARTS))
_HALF = tuple(f"{part}/*.fp16.safetensors" for part in _PARTS)
_NOT_WANTED = ("*.fp16.*", "*.non_ema.*")
_UNET = "model.diffusion_model."
"""What the names of a UNet's weights begin with in a single file."""


def resolve_base(
    name: str,
    *,
    revision: str | None = None,
    config: Path | None = None,
    cache: Path | None = None,
) -> Path:
    """The diffusers folder of a base, fetched or unpacked first where it must be.

    `name` is "emoji-world" for the embedded one, a folder, a hub's "org/name" (at `revision`, a
    commit, tag or branch; None is its main branch), or one `.safetensors` file with everything in
    it. That is unpacked by the configuration in the folder `config`, into `cache`, once. What
    exists here as a path is never looked for on the hub. Raises UserError.
    """
    path = Path(name)
    embedded = name == EMBEDDED_BASE
    single = not embedded and path.suffix == CHECKPOINT
    hub = not embedded and not single and is_hub_id(name)
    if revision is not None and not hub:
        raise UserError(
            f"base_revision {revision} is for a base on the hub, but base {name} is none (a hub's "
            'is "org/name", and no path here): leave base_revision out'
        )
    if config is not None and not single:
        raise UserError(
            f"base_config {config} is for a base of one {CHECKPOINT} file, but base {name} is "
            "none: leave base_config out"
        )
    if embedded:
        return _embedded()
    if single:
        return _unpacked(path, config, cache)
    return _fetched(name, revision) if hub else path


def base_facts(folder: Path) -> dict[str, str]:
    """What a manifest says of where a resolved base came from: the hub's commit, if any."""
    return {"base_commit": folder.name} if folder.parent.name == "snapshots" else {}


def _embedded() -> Path:
    world = importlib.util.find_spec("unskew.data.emoji_world")
    assert world is not None and world.origin is not None
    return Path(world.origin).parent / "base"


def _fetched(name: str, revision: str | None) -> Path:
    """The hub's files as its own cache holds them: safetensors, configuration and tokenizer only.

    Weights in full precision; those of the variant "fp16" where the repository has no others.
    """
    otherwise = f'"{EMBEDDED_BASE}", a diffusers folder or a {CHECKPOINT} file'
    folder = fetch(
        name, what="base", revision=revision, allow=_FULL, ignore=_NOT_WANTED, otherwise=otherwise
    )
    if not list((folder / "unet").glob(f"*{CHECKPOINT}")):
        folder = fetch(name, what="base", revision=revision, allow=_HALF, otherwise=otherwise)
    return folder


def _unpacked(file: Path, config: Path | None, cache: Path | None) -> Path:
    """The folder that a single file becomes, in `cache` under the sha256 of file and `config`."""
    if not file.is_file():
        raise UserError(f"base {file} does not exist: give a {CHECKPOINT} file or another base")
    if config is None:
        raise UserError(
            f"base {file} is a single file, which has the weights but not how they are put "
            "together, nor tokenizer and schedule: give base_config, a diffusers folder of the "
            "model that it was made from (its weights need not be there)"
        )
    family = check_parts(config, "base_config")
    if cache is None:
        raise UserError(f"base {file} is a single file: give cache, a folder to unpack it into")
    folder = cache / UNPACKED / f"{sha256_file(file)}-{_config_sha256(config, family)[:16]}"
    with _alone(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():
            pipe = _load_single(file, config, family)
            with atomic_path(folder) as temporary:
                pipe.save_pretrained(temporary, safe_serialization=True)
    return folder


def _load_single(file: Path, config: Path, family: Family) -> Any:
    dtype = _dtype_of(file)
    diffusers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = family.PIPELINE.from_single_file(
                str(file),
                config=str(config),
                local_files_only=True,
                torch_dtype=dtype,
                **family.LOADING,
            )
    except Exception as error:  # of many kinds; each means that file and configuration differ
        raise UserError(
            f"base {file} cannot be put together as base_config {config} says ({error}): give a "
            "diffusers folder of the model that it was made from"
        ) from error
    models = {part: getattr(pipe, part) for part in ("unet", "vae", *family.ENCODERS)}
    missing = [
        f"{part}.{key}"
        for part, model in models.items()
        for key, weight in model.named_parameters()
        if weight.is_meta
    ]
    if missing:
        raise UserError(
            f"base {file} lacks {len(missing)} weights of base_config {config} (first: "
            f"{missing[0]}): give a file that holds the whole model, or the folder of the model "
            "that it was made from"
        )
    return pipe


def _dtype_of(file: Path) -> torch.dtype:
    """The precision of the UNet in a single file. Raises UserError when there is none."""
    try:
        with safe_open(file, "pt") as weights:
            names = [name for name in weights.keys() if name.startswith(_UNET)]  # noqa: SIM118
            if names:
                dtype: torch.dtype = weights.get_tensor(names[0]).dtype
                return dtype
    except SafetensorError as error:
        raise UserError(f"base {file} is no safetensors file ({error})") from error
    raise UserError(
        f"base {file} has no weights that begin with {_UNET}, so it is no Stable Diffusion "
        "checkpoint: give one that holds the whole model, not a LoRA or a part of it"
    )


def _config_sha256(folder: Path, family: Family) -> str:
    """sha256 over the small files that say how a base is put together."""
    digest = hashlib.sha256()
    places = [folder / part for part in parts_of(family)]
    files = [f for place in places for f in place.iterdir() if f.suffix in (".json", ".txt")]
    for file in sorted([folder / "model_index.json", *files]):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Inside, no other process is: several of one training come here at once."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
