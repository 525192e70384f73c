"""Checkpoints: whole or not there at all.

A checkpoint is a folder `step-000200` of LoRA weights, optimizer state, and `checkpoint.json`,
which names the step and the sha256 of the others. It appears under its name only when all of it is
on disk. Nothing else is needed to go on exactly: order, noise and learning rate follow from the
step.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import Parameter

from unskew.errors import UserError
from unskew.runs import atomic_path, sha256_file, write_json_atomic

LORA = "lora.safetensors"
OPTIMIZER = "optimizer.safetensors"
SEAL = "checkpoint.json"
SCHEMA_VERSION = 1


def save_checkpoint(
    folder: Path,
    step: int,
    parameters: Mapping[str, Parameter],
    optimizer: torch.optim.Optimizer,
    keep: int,
) -> Path:
    """Write `folder/step-N` after `step` finished steps, then delete all but the newest `keep`.

    One of the same name that an attempt before left (broken, or not resumed from) is replaced.
    """
    path = folder / f"step-{step:06d}"
    with atomic_path(path) as temporary:
        temporary.mkdir(parents=True)
        weights = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
        safetensors.torch.save_file(weights, temporary / LORA)
        safetensors.torch.save_file(_optimizer_state(parameters, optimizer), temporary / OPTIMIZER)
        hashes = {name: sha256_file(temporary / name) for name in (LORA, OPTIMIZER)}
        seal = {"schema_version": SCHEMA_VERSION, "step": step, "sha256": hashes}
        write_json_atomic(temporary / SEAL, seal)
        if path.exists():
            shutil.rmtree(path)
    others = sorted(f for f in folder.glob("step-*") if f != path)
    older = [f for f in others if f < path]
    stay = older[len(older) - keep + 1 :] if keep > 1 else []
    for other in set(others) - set(stay):
        shutil.rmtree(other)
    return path


def load_checkpoint(
    path: Path, parameters: Mapping[str, Parameter], optimizer: torch.optim.Optimizer
) -> int:
    """Restore weights and optimizer in place; returns how many steps are done.

    Raises UserError when the checkpoint is not whole or is of another LoRA.
    """
    step = check_checkpoint(path)
    weights = safetensors.torch.load_file(path / LORA)
    state = safetensors.torch.load_file(path / OPTIMIZER)
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    if {name: tuple(t.shape) for name, t in weights.items()} != shapes:
        raise UserError(
            f"checkpoint {path} is of another LoRA ({len(weights)} weights, this run trains "
            f"{len(shapes)}): give the lora settings and the base that it was made with"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
            optimizer.state[parameter] = {
                key.removeprefix(f"{name}/"): t if t.ndim == 0 else t.to(parameter.device)
                for key, t in state.items()
                if key.startswith(f"{name}/")
            }
    return step


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; a broken one is passed over with a warning on stderr."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            check_checkpoint(path)
        except UserError as error:
            print(f"warning: {error}; looking for an older one", file=sys.stderr)
            continue
        return path
    return None


def check_checkpoint(path: Path) -> int:
    """The step of a whole checkpoint. Raises UserError that says what is missing or damaged."""
    if not path.is_dir():
        raise UserError(f"checkpoint {path} does not exist: resume is auto, never or its folder")
    try:
        seal = json.loads((path / SEAL).read_text("utf-8"))
        version, step, hashes = seal["schema_version"], seal["step"], seal["sha256"]
        damaged = [name for name in (LORA, OPTIMIZER) if sha256_file(path / name) != hashes[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"checkpoint {path} is not whole ({error!r})") from None
    if version != SCHEMA_VERSION:
        raise UserError(f"checkpoint {path} has version {version}, this reads {SCHEMA_VERSION}")
    if damaged:
        raise UserError(f"checkpoint {path} is damaged: {damaged} are not what was written")
    return int(step)


def _optimizer_state(
    parameters: Mapping[str, Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """All that the optimizer remembers, under "<parameter name>/<entry>"."""
    return {
        f"{name}/{entry}": torch.as_tensor(value).detach().cpu().contiguous()
        for name, parameter in parameters.items()
        for entry, value in optimizer.state[parameter].items()
    }
