"""A benchmark's two loops behind one face: ours as `unskew train` runs it, and the plain one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from torch.nn import Parameter

from unskew.adapters import attach
from unskew.errors import UserError
from unskew.scripts.plain_loop import (
    PlainSettings,
    Section,
    load_plain,
    no_section,
    plain_step,
)
from unskew.train import lora, numerics
from unskew.train.inputs import Inputs
from unskew.train.memory import choose_checkpointing, compile_blocks
from unskew.train.numerics import learning_rate
from unskew.train.objective import draw_part, target_bchw
from unskew.train.options import LoraSettings, TrainSettings
from unskew.train.surroundings import DTYPES, NAMES
from unskew.train.training import Training, load_training


@dataclass(frozen=True)
class Loop:
    """A way to train, loaded and ready."""

    name: str
    step: Callable[[int, Section], object]
    """Does optimizer step 0, 1, 2, ..., telling of its parts."""
    parameters: Mapping[str, Parameter]
    """The LoRA's weights by peft's names in the UNet."""
    dtype: str
    loading_s: float
    """Seconds until the first step can begin, without encoding."""
    encoding_s: float
    """Seconds that were spent on encoding every picture and caption once, before the first step."""


def load_ours(settings: TrainSettings, inputs: Inputs, accelerator: Accelerator) -> Loop:
    """What `unskew train` does with these settings. Nothing is cached on disk, nothing written."""
    started = time.perf_counter()
    training = load_training(settings, inputs, inputs.rows, accelerator, None)
    choose_checkpointing(training)
    compile_blocks(training)
    loaded = time.perf_counter() - started

    def step(number: int, section: Section) -> None:
        with _as_programs_run(accelerator.device), _watched(training, section) as watched:
            lora.train_step(watched, number)
            training.stepper.read(wait=number % settings.log_every == 0)

    return Loop(
        name="ours",
        step=step,
        parameters={name.removeprefix("unet."): p for name, p in training.parameters.items()},
        dtype=NAMES[training.dtype],
        loading_s=loaded - training.encoding_seconds,
        encoding_s=training.encoding_seconds,
    )


def load_plain_loop(
    settings: TrainSettings,
    inputs: Inputs,
    device: torch.device,
    dtype: str,
    workers: int,
) -> Loop:
    """The plain loop on the same base, rows, batch, modules, rate and its schedule.

    Raises UserError for settings of ours that it has no counterpart of.
    """
    _check_comparable(settings)
    started = time.perf_counter()
    plain = load_plain(
        PlainSettings(
            base=inputs.base,
            resolution_px=settings.resolution_px,
            batch=settings.batch.size,
            dtype=DTYPES[dtype],
            target_modules=adapted_modules(inputs.base, settings.lora),
            rank=settings.lora.rank,
            alpha=settings.lora.alpha,
            learning_rate=settings.optimizer.learning_rate,
            weight_decay=settings.optimizer.weight_decay,
            clip_norm=settings.optimizer.clip_norm,
            seed=settings.seed,
            workers=workers,
        ),
        [(row.file, row.text) for row in inputs.rows],
        device,
    )
    loaded = time.perf_counter() - started

    def step(number: int, section: Section) -> float:
        rate = learning_rate(number, settings.optimizer, settings.steps)
        return plain_step(plain, rate, section)

    return Loop("plain", step, plain.parameters, dtype, loaded, 0.0)


def adapted_modules(base: Path, settings: LoraSettings) -> tuple[str, ...]:
    """Full names of the modules of a base's UNet that get a LoRA from `unskew train`."""
    config = UNet2DConditionModel.load_config(base / "unet", local_files_only=True)
    with torch.device("meta"):  # names need no weights
        unet = UNet2DConditionModel.from_config(config)
        weights = attach({"unet": unet}, **settings.model_dump(exclude={"components"}))
    return tuple(sorted({name.removeprefix("unet.").partition(".lora_")[0] for name in weights}))


def _check_comparable(settings: TrainSettings) -> None:
    """Raise UserError where the plain loop would train something else."""
    alone = {
        "lora.components": (settings.lora.components, ("unet",)),
        "lora.use_rslora": (settings.lora.use_rslora, False),
        "lora.use_dora": (settings.lora.use_dora, False),
        "pictures.aspect_buckets": (settings.pictures.aspect_buckets, False),
        "batch.accumulation": (settings.batch.accumulation, 1),
    }
    other = [f"{name} {given!r}" for name, (given, same) in alone.items() if given != same]
    if other:
        raise UserError(
            f"the plain loop has no {', '.join(other)}: leave that at its default to compare with "
            "it, or measure ours alone (--loops ours)"
        )


def _as_programs_run(device: torch.device) -> AbstractContextManager[None]:
    """Inside, GPU kernels are chosen as `unskew train` has them chosen: the reproducible ones."""
    return _deterministic() if device.type == "cuda" else nullcontext()


@contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def _watched(training: Training, section: Section) -> Iterator[Training]:
    """The training whose step's parts are told of: data, target, forward, backward, optimizer.

    The step itself stays the one of `train/lora.py`; its parts are wrapped where it calls them.
    """
    if section is no_section:
        yield training
        return

    def told(name: str, function: Any) -> Any:
        def call(*more: Any, **named: Any) -> Any:
            with section(name):
                return function(*more, **named)

        return call

    clip = torch.nn.utils.clip_grad_norm_
    with (
        patch.object(lora, "draw_part", told("data", draw_part)),
        patch.object(lora, "target_bchw", told("target", target_bchw)),
        patch.object(
            training.accelerator, "backward", told("backward", training.accelerator.backward)
        ),
        patch.object(numerics, "clip_grad_norm_", told("optimizer", clip)),
        patch.object(training.optimizer, "step", told("optimizer", training.optimizer.step)),
    ):
        yield replace(training, denoiser=told("forward", training.denoiser))
