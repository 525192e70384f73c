"""Everything that a training step uses, loaded and in its place."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch.nn import Parameter

from unskew.adapters import attach, load_adapter
from unskew.errors import UserError
from unskew.fused_lora import fuse
from unskew.noise import cell_noise
from unskew.pipelines import choose_device, choose_dtype, load_base
from unskew.train.batches import Batches
from unskew.train.cache import Encoded, encode
from unskew.train.inputs import Inputs, captions_of
from unskew.train.objective import adapter_off
from unskew.train.options import TrainSettings
from unskew.train.rows import Row
from unskew.train.siblings import Caption, Siblings, find_siblings

MOST_DIFFERENCE = 0.01
"""Largest difference between the trained UNet and base + loaded adapter, as a share of the
adapter's effect. A lost alpha or a dropped weight differs by far more; equal arithmetic by 0."""


@dataclass(frozen=True)
class Training:
    """The parts of a run. `unet` is the bare module; `model` is what accelerate made of it."""

    settings: TrainSettings
    accelerator: Accelerator
    pipe: StableDiffusionPipeline
    unet: UNet2DConditionModel
    model: Any
    parameters: Mapping[str, Parameter]
    """Name -> LoRA weight, fp32."""
    optimizer: torch.optim.AdamW
    batches: Batches
    encoded: Encoded
    siblings: Mapping[Caption, Siblings]
    encoding_seconds: float
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in the base's precision inside."""
        return autocast(self.accelerator.device, self.dtype)

    def parts(self) -> list[range]:
        """This process's places of a batch, part after part.

        Process r of R takes the places r, r + R, ... of part 0, then of part 1: two processes hold
        together what one holds in two parts.
        """
        accelerator, accumulation = self.accelerator, self.settings.batch.accumulation
        stride = accelerator.num_processes * accumulation
        return [
            range(
                part * accelerator.num_processes + accelerator.process_index,
                self.batches.size,
                stride,
            )
            for part in range(accumulation)
        ]


def make_accelerator(settings: TrainSettings) -> Accelerator:
    """Accelerate's view of this process. Raises UserError when the batch does not divide."""
    stay_on_loopback()
    accelerator = Accelerator(
        mixed_precision="no",  # autocast is ours: the teacher's pass needs it too
        gradient_accumulation_steps=settings.batch.accumulation,
        log_with=None if settings.tracker == "none" else settings.tracker,
        project_dir=settings.out,
    )
    take_cores(accelerator)
    ways = accelerator.num_processes * settings.batch.accumulation
    if settings.batch.size % ways:
        raise UserError(
            f"batch.size must be a multiple of {ways} ({accelerator.num_processes} processes x "
            f"batch.accumulation {settings.batch.accumulation}), got {settings.batch.size}"
        )
    return accelerator


def stay_on_loopback() -> None:
    """Let the processes of one machine meet on its loopback interface.

    Gloo takes the interface of the machine's own name; where that leads outside and is filtered,
    the processes wait for each other until a timeout of half an hour.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1" and processes == os.environ.get("LOCAL_WORLD_SIZE"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")


def take_cores(accelerator: Accelerator) -> None:
    """Undo what `accelerate launch` does on a CPU: it leaves a process one thread.

    Each process of this machine then takes its share of the cores, as `python train/lora.py` does.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ  # set by the launcher alone
    if accelerator.device.type == "cpu" and launched and os.environ.get("OMP_NUM_THREADS") == "1":
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def load_training(
    settings: TrainSettings,
    inputs: Inputs,
    rows: tuple[Row, ...],
    accelerator: Accelerator,
    cache: Path | None,
) -> Training:
    """Encode these rows, let the encoders go, and put a fresh LoRA on the UNet."""
    pipe = load_base(inputs.base, accelerator.device, torch.float32)
    started = time.perf_counter()
    with accelerator.main_process_first():
        encoded = encode(
            pipe,
            inputs.base,
            [row.file for row in rows],
            captions_of(rows, settings),
            settings.resolution_px,
            cache,
        )
    encoding_seconds = time.perf_counter() - started
    pipe.text_encoder = None
    pipe.vae.encoder = None
    dtype, _ = precision(settings, accelerator.device)
    parameters = _fresh_lora(pipe.unet, settings, dtype)
    optimizer = torch.optim.AdamW(
        list(parameters.values()),
        lr=settings.optimizer.learning_rate,
        weight_decay=settings.optimizer.weight_decay,
        fused=accelerator.device.type in ("cpu", "cuda"),
    )
    return Training(
        settings=settings,
        accelerator=accelerator,
        pipe=pipe,
        unet=pipe.unet,
        model=accelerator.prepare_model(pipe.unet),
        parameters=parameters,
        optimizer=optimizer,
        batches=inputs.batches,
        encoded=encoded,
        siblings=find_siblings(inputs.batches.streams["neutral"].decks, encoded),
        encoding_seconds=encoding_seconds,
        dtype=dtype,
    )


def _fresh_lora(
    unet: UNet2DConditionModel, settings: TrainSettings, dtype: torch.dtype
) -> dict[str, Parameter]:
    """Freeze the UNet in `dtype` and attach an fp32 LoRA that follows from the seed."""
    if dtype == torch.bfloat16:
        unet.bfloat16()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        attach(unet, **settings.lora.model_dump())
    for module in unet.modules():
        if isinstance(module, LoraLayer):
            # autocast casts already; peft's detour through fp32 is a quarter of a CPU's step
            module.cast_input_dtype_enabled = False
    fuse(unet)
    return {name: p for name, p in unet.named_parameters() if p.requires_grad}


def precision(settings: TrainSettings, device: torch.device) -> tuple[torch.dtype, str]:
    """The precision of the frozen base and of autocast, and why."""
    if settings.dtype != "auto":
        chosen = {"bf16": torch.bfloat16, "fp32": torch.float32}[settings.dtype]
        return chosen, f"{settings.dtype} (as given)"
    dtype, reason = choose_dtype(device)
    if dtype == torch.float16:
        return torch.float32, f"fp32 ({reason}; training in fp16 would need loss scaling)"
    return dtype, reason


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Autocast to a half precision; nothing for fp32."""
    context: AbstractContextManager[None] = torch.autocast(
        device.type, torch.bfloat16, enabled=dtype == torch.bfloat16
    )
    return context


def surroundings(settings: TrainSettings, accelerator: Accelerator) -> dict[str, Any]:
    """Where and how precisely this run computes, for its manifest."""
    _, device_reason = choose_device()
    return {
        "device": device_reason,
        "dtype": precision(settings, accelerator.device)[1],
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
    }


@torch.no_grad()
def prove_adapter(training: Training, base: Path, folder: Path) -> dict[str, float]:
    """Load the saved adapter into a fresh base and compare UNet outputs.

    Returns {"effect", "difference"}: the root mean square change of the UNet's output by the
    adapter, and how far the loaded one is from the trained one, as a share of it (0 is equal).
    Raises UserError when the adapter has no effect, RuntimeError when it does not come back.
    """
    device = training.accelerator.device
    captions = sorted(training.encoded.states)[:4]
    states_bld = torch.stack([training.encoded.states[caption] for caption in captions])
    shape = next(iter(training.encoded.posteriors.values())).shape[1:]
    noise_bchw = cell_noise([(caption, 0) for caption in captions], tuple(shape)).to(device)
    last = training.pipe.scheduler.config.num_train_timesteps - 1
    timesteps_b = torch.linspace(last, last // 2, len(captions)).long().to(device)

    def output(unet: UNet2DConditionModel) -> torch.Tensor:
        with training.autocast():
            prediction: torch.Tensor = unet(noise_bchw, timesteps_b, states_bld.to(device)).sample
        return prediction.double()

    trained = output(training.unet)
    with adapter_off(training.unet):
        effect = (trained - output(training.unet)).square().mean().sqrt().item()
    if effect == 0:
        raise UserError(
            "the trained adapter changes nothing: raise optimizer.learning_rate or steps, and look "
            "whether the targets differ from what the base does already"
        )
    fresh = load_base(base, device, training.dtype)
    load_adapter(fresh, folder, "check")
    fuse(fresh.unet)  # the same arithmetic: in bf16 another order alone may be 1 % of the effect
    difference = (trained - output(fresh.unet)).square().mean().sqrt().item() / effect
    if not difference <= MOST_DIFFERENCE:
        raise RuntimeError(
            f"the saved adapter, loaded into a fresh base, differs from the trained one by "
            f"{difference:.1%} of its effect (allowed: {MOST_DIFFERENCE:.0%})"
        )
    return {"effect": effect, "difference": difference}
