"""Where an adapter comes from: a folder or file of diffusers, PEFT or Kohya, here or on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from unskew.adapters import METADATA_KEY, WEIGHTS_FILE, write_safetensors
from unskew.errors import UserError
from unskew.hub import fetch, is_hub_id
from unskew.runs import sha256_file

PEFT_WEIGHTS = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
PEFT_PREFIX = "base_model.model."
"""What PEFT's save_pretrained puts before a module's name."""
CONVERTED = "adapters"
"""Folder of the cache for PEFT's folders in diffusers' format."""
ENDING = ".safetensors"


def resolve_adapter(
    adapter: str, *, revision: str | None = None, file: str | None = None, cache: Path
) -> Path:
    """The folder or file of an adapter that `load_adapter` reads, fetched or converted if it must.

    `adapter` is a folder, a safetensors file, or a hub's "org/name" at `revision`. Of a folder
    with several files `file` names one. A folder that PEFT's save_pretrained wrote for a UNet is
    converted into `cache`, once. Raises UserError.
    """
    path = Path(adapter)
    hub = path.suffix != ENDING and is_hub_id(adapter)
    if revision is not None and not hub:
        raise UserError(
            f"revision {revision} is for an adapter on the hub, but {adapter} is none (a hub's is "
            '"org/name", and no path here): leave revision out'
        )
    if not hub:
        return _of_folder(path, file, cache)
    folder = fetch(
        adapter,
        what="adapter",
        revision=revision,
        allow=[file] if file else [WEIGHTS_FILE, PEFT_WEIGHTS, PEFT_CONFIG],
        otherwise=f"a folder or a {ENDING} file",
    )
    wanted = (file,) if file else (WEIGHTS_FILE, PEFT_WEIGHTS)
    if not any((folder / name).is_file() for name in wanted):
        missing = f"no {file}" if file else f"neither {WEIGHTS_FILE} nor {PEFT_WEIGHTS}"
        raise UserError(
            f"{adapter} on the hub has {missing}: give `file`, the name of its {ENDING} file there"
        )
    return _of_folder(folder, file, cache)


def _of_folder(path: Path, file: str | None, cache: Path) -> Path:
    """What `load_adapter` reads of a path that is here. What does not exist is told later."""
    if file is not None:
        if ".." in Path(file).parts or Path(file).is_absolute():
            raise UserError(f"file {file} lies outside of {path}")
        chosen = path / file
        if chosen.suffix != ENDING or not chosen.is_file():
            raise UserError(f"{path} holds no {ENDING} file {file}: {_held(path)}")
        return chosen
    if path.suffix == ENDING or not path.is_dir() or (path / WEIGHTS_FILE).is_file():
        if not (path / WEIGHTS_FILE if path.suffix != ENDING else path).is_file():
            raise UserError(
                f"{path} holds no adapter: train one first (`unskew train`), or give a folder, a "
                f'{ENDING} file or a hub\'s "org/name"'
            )
        return path
    if (path / PEFT_CONFIG).is_file() and (path / PEFT_WEIGHTS).is_file():
        return _converted(path, cache)
    found = sorted(path.glob(f"*{ENDING}"))
    if len(found) == 1:
        return found[0]
    raise UserError(f"{path} holds {len(found)} {ENDING} files: give `file`; {_held(path)}")


def _held(path: Path) -> str:
    names = sorted(f.name for f in path.glob(f"*{ENDING}"))
    return f"there are {', '.join(names[:8])}" if names else "there are none"


def _converted(folder: Path, cache: Path) -> Path:
    """PEFT's folder of a UNet's LoRA as diffusers' one, with the same configuration."""
    weights, config = folder / PEFT_WEIGHTS, folder / PEFT_CONFIG
    key = f"{sha256_file(weights)[:32]}-{sha256_file(config)[:16]}"
    made = cache / CONVERTED / key / WEIGHTS_FILE
    if made.is_file():
        return made.parent
    try:
        said: dict[str, Any] = json.loads(config.read_text("utf-8"))
        tensors = load_file(weights)
    except (ValueError, SafetensorError) as error:
        raise UserError(f"{folder} cannot be read as PEFT's adapter ({error})") from error
    if said.get("peft_type") != "LORA":
        raise UserError(f"{config} is of type {said.get('peft_type')}; allowed: LORA")
    strangers = [name for name in tensors if not name.startswith(PEFT_PREFIX)]
    if strangers:
        raise UserError(f"{weights} has names that PEFT does not give, such as {strangers[0]}")
    header = {f"unet.{name}": value for name, value in said.items()}
    write_safetensors(
        made,
        {f"unet.{name.removeprefix(PEFT_PREFIX)}": tensor for name, tensor in tensors.items()},
        {"format": "pt", METADATA_KEY: json.dumps(header, sort_keys=True)},
    )
    return made.parent
