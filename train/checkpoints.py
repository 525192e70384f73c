"""Checkpoints: whole or not there at all.

A checkpoint is a folder `step-000200` of LoRA weights, optimizer state, the weights' average where
there is one, what validation has found and its best weights where it is on, and `checkpoint.json`,
which names the step, the loss scale where there is one, and the sha256 of the others. It appears
under its name only when all of it is on disk. Nothing else is needed to go on exactly: order, noise
and learning rate follow from the step. Each holds the best weights again, so that no older one must
be kept for them.

The optimizer's file holds its tensors as they are, whatever their type, under "<parameter>/<entry>"
and "group 0/<entry>", and what is no tensor as JSON in its header.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import Parameter

from unskew.errors import UserError
from unskew.runs import atomic_path, sha256_file, write_json_atomic

LORA = "lora.safetensors"
OPTIMIZER = "optimizer.safetensors"
AVERAGE = "average.safetensors"
CHOICE = "choice.safetensors"
SEAL = "checkpoint.json"
SCHEMA_VERSION = 1
SET_BY_THE_RUN = ("params", "lr")
"""Entries of an optimizer's group that each run sets for itself."""


def save_checkpoint(
    folder: Path,
    step: int,
    parameters: Mapping[str, Parameter],
    optimizer: torch.optim.Optimizer,
    keep: int,
    average: Mapping[str, Tensor] | None = None,
    choice: Mapping[str, Tensor] | None = None,
    loss_scale: Mapping[str, float] | None = None,
) -> Path:
    """Write `folder/step-N` after `step` finished steps, then delete all but the newest `keep`.

    `average` is what `unskew.train.average.average_state` gives, `choice` what `choice_state` of
    `unskew.train.choice` does, `loss_scale` what `unskew.train.numerics.Stepper.state` does. A
    checkpoint of the same name that an attempt before left (broken, or not resumed from) is
    replaced.
    """
    path = folder / f"step-{step:06d}"
    with atomic_path(path) as temporary:
        temporary.mkdir(parents=True)
        safetensors.torch.save_file(_copies(parameters), temporary / LORA)
        tensors, header = _optimizer_state(parameters, optimizer)
        safetensors.torch.save_file(tensors, temporary / OPTIMIZER, header)
        if average is not None:
            safetensors.torch.save_file(_copies(average), temporary / AVERAGE)
        if choice is not None:
            safetensors.torch.save_file(_copies(choice), temporary / CHOICE)
        hashes = {file.name: sha256_file(file) for file in sorted(temporary.iterdir())}
        seal = {"schema_version": SCHEMA_VERSION, "step": step, "sha256": hashes}
        if loss_scale is not None:
            seal["loss_scale"] = dict(loss_scale)
        write_json_atomic(temporary / SEAL, seal)
        if path.exists():
            shutil.rmtree(path)
    others = sorted(f for f in folder.glob("step-*") if f != path)
    older = [f for f in others if f < path]
    stay = older[-(keep - 1) :] if keep > 1 else []
    for other in set(others) - set(stay):
        shutil.rmtree(other)
    return path


def load_checkpoint(
    path: Path, parameters: Mapping[str, Parameter], optimizer: torch.optim.Optimizer
) -> int:
    """Restore weights and optimizer in place; returns how many steps are done.

    Nothing is changed where it raises UserError: when the checkpoint is not whole, or is of another
    LoRA or optimizer. Learning rate, weight decay and the like stay as the optimizer was made with.
    """
    step = check_checkpoint(path)
    weights = safetensors.torch.load_file(path / LORA)
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    if {name: tuple(t.shape) for name, t in weights.items()} != shapes:
        raise UserError(
            f"checkpoint {path} is of another LoRA ({len(weights)} weights, this run trains "
            f"{len(shapes)}): give the lora settings and the base that it was made with"
        )
    _restore_optimizer(path, parameters, optimizer)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    return step


def load_average(path: Path) -> dict[str, Tensor] | None:
    """The average's state in a whole checkpoint, on the CPU; None when it was made without one."""
    return _load_further(path, AVERAGE)


def load_choice(path: Path) -> dict[str, Tensor] | None:
    """The choice's state in a whole checkpoint, on the CPU; None when validation was off."""
    return _load_further(path, CHOICE)


def load_loss_scale(path: Path) -> dict[str, Any] | None:
    """The state of the loss scale in a whole checkpoint; None when it was made without one."""
    check_checkpoint(path)
    state: dict[str, Any] | None = json.loads((path / SEAL).read_text("utf-8")).get("loss_scale")
    return state


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
        names = sorted({LORA, OPTIMIZER, *hashes})
        damaged = [name for name in names if sha256_file(path / name) != hashes[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"checkpoint {path} is not whole ({error!r})") from None
    if version != SCHEMA_VERSION:
        raise UserError(f"checkpoint {path} has version {version}, this reads {SCHEMA_VERSION}")
    if damaged:
        raise UserError(f"checkpoint {path} is damaged: {damaged} are not what was written")
    return int(step)


def _load_further(path: Path, name: str) -> dict[str, Tensor] | None:
    check_checkpoint(path)
    file = path / name
    return safetensors.torch.load_file(file) if file.exists() else None


def _optimizer_state(
    parameters: Mapping[str, Parameter], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All that the optimizer remembers: its tensors, and a header with the rest."""
    owners = {name: optimizer.state.get(p, {}) for name, p in parameters.items()}
    for number, group in enumerate(optimizer.param_groups):
        owners[f"group {number}"] = _memory(group, optimizer.defaults)
    entries = {f"{name}/{key}": value for name, own in owners.items() for key, value in own.items()}
    tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    others = {key: value for key, value in entries.items() if key not in tensors}
    header = {"optimizer": type(optimizer).__name__, "entries": json.dumps(others)}
    return _copies(tensors), header


def _memory(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What a group has come to hold since it was made, such as the rate that Prodigy found.

    What it was made with is left out: settings are the run's, never the checkpoint's.
    """
    return {
        key: value
        for key, value in group.items()
        if key not in SET_BY_THE_RUN
        and (isinstance(value, Tensor) or key not in defaults or value != defaults[key])
    }


def _restore_optimizer(
    path: Path, parameters: Mapping[str, Parameter], optimizer: torch.optim.Optimizer
) -> None:
    with safetensors.safe_open(path / OPTIMIZER, "pt") as file:
        header = file.metadata() or {}
        entries: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    kind, ours = header.get("optimizer", "AdamW"), type(optimizer).__name__
    if kind != ours:
        raise UserError(
            f"checkpoint {path} was made with the optimizer {kind}, this run has {ours}: set "
            "optimizer.kind as it was, or resume to never"
        )
    memory: dict[str, dict[str, Any]] = {}
    for key, value in (entries | json.loads(header.get("entries", "{}"))).items():
        owner, _, entry = key.rpartition("/")
        memory.setdefault(owner, {})[entry] = value
    places = {p: n for n, p in enumerate(_parameters_of(optimizer))}
    groups = []
    for number, group in enumerate(optimizer.param_groups):
        device = group["params"][0].device
        found = {
            key: value.to(device) if isinstance(value, Tensor) else value
            for key, value in memory.get(f"group {number}", {}).items()
        }
        groups.append({**group, **found, "params": [places[p] for p in group["params"]]})
    states = {p: memory[name] for name, p in parameters.items() if name in memory}
    # through the optimizer's own method, which knows what lives on which device
    optimizer.load_state_dict(
        {"state": {places[p]: own for p, own in states.items()}, "param_groups": groups}
    )
    for parameter, own in states.items():
        held = optimizer.state[parameter]
        for entry, value in own.items():
            if isinstance(value, Tensor) and held[entry].dtype != value.dtype:
                held[entry] = value.to(held[entry].device)  # torch's makes all of a weight's type


def _parameters_of(optimizer: torch.optim.Optimizer) -> list[Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, and none in another's memory: safetensors refuses tensors that share it."""
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
