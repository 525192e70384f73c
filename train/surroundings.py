"""Where training runs and how precisely it computes: processes, cores, device, precision."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from unskew import processes
from unskew.errors import UserError
from unskew.pipelines import choose_device, choose_dtype
from unskew.processes import PATIENCE, stay_on_loopback
from unskew.train.options import TrainSettings

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
SHARDERS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
"""What `accelerate launch` sets for each way to cut a model up -> that way's name."""


def make_accelerator(settings: TrainSettings) -> Accelerator:
    """Accelerate's view of this process.

    Raises UserError when the batch does not divide, or the launcher was told what is not done here.
    """
    refuse_sharding()
    stay_on_loopback()
    accelerator = Accelerator(
        mixed_precision="no",  # autocast is ours: the teacher's pass needs it too
        log_with=None if settings.tracker == "none" else settings.tracker,
        project_dir=settings.out,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],  # one of them encodes for all
    )
    take_cores(accelerator)
    check_launcher(settings, accelerator)
    # accelerate would divide by what the launcher said, and a step's loss is a mean here already
    accelerator.gradient_accumulation_steps = 1
    ways = accelerator.num_processes * settings.batch.accumulation
    if settings.batch.size % ways:
        raise UserError(
            f"batch.size must be a multiple of {ways} ({accelerator.num_processes} processes x "
            f"batch.accumulation {settings.batch.accumulation}), got {settings.batch.size}"
        )
    return accelerator


def refuse_sharding() -> None:
    """Raise UserError when `accelerate launch` was told to cut the model up over processes."""
    for variable, name in SHARDERS.items():
        if os.environ.get(variable, "false").lower() == "true":
            raise UserError(
                f"accelerate launch was told to use {name}, but every process here holds the whole "
                "base and a copy of the LoRA (DDP): gradients and optimizer state of a LoRA are a "
                "few MB, of which sharding saves nothing. Launch with "
                "configs/accelerate/several-gpus.yaml; where the base is too large for one card, "
                "set memory.quantize to nf4 or int8"
            )


def take_cores(accelerator: Accelerator) -> None:
    """On a CPU, this process's share of the cores; see `processes.take_cores`."""
    if accelerator.device.type == "cpu":
        processes.take_cores()


def check_launcher(settings: TrainSettings, accelerator: Accelerator) -> None:
    """Raise UserError when `accelerate launch` was told another precision or accumulation.

    Both are the settings' here, and a launcher's that is silently ignored would mislead.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    ours = NAMES[precision(settings, accelerator.device)[0]]
    if launched not in ("no", "fp32", ours):
        raise UserError(
            f"accelerate launch has mixed_precision {launched}, the settings come to dtype {ours}: "
            f"launch with --mixed_precision no, or set dtype to {launched}"
        )
    parts = int(os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1"))
    if parts not in (1, settings.batch.accumulation):
        raise UserError(
            f"accelerate launch has gradient_accumulation_steps {parts}, the settings have "
            f"batch.accumulation {settings.batch.accumulation}: set the latter alone; batch.size "
            "is the whole step's"
        )


def precision(settings: TrainSettings, device: torch.device) -> tuple[torch.dtype, str]:
    """The precision of the frozen base and of autocast, and why."""
    if settings.dtype != "auto":
        chosen = DTYPES[settings.dtype]
        return chosen, f"{settings.dtype} (as given)"
    return choose_dtype(device)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Autocast to a half precision; nothing for fp32."""
    half = dtype != torch.float32
    context: AbstractContextManager[None] = torch.autocast(
        device.type, dtype if half else torch.bfloat16, enabled=half
    )
    return context


def surroundings(settings: TrainSettings, accelerator: Accelerator) -> dict[str, Any]:
    """Where and how precisely this run computes, for its manifest."""
    chosen, device_reason = choose_device()
    if chosen.type != accelerator.device.type:
        device_reason = f"{accelerator.device.type} (as accelerate was told)"
    return {
        "device": device_reason,
        "dtype": precision(settings, accelerator.device)[1],
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
    }
