"""Everything that a training step uses, loaded and in its place."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import SchedulerMixin
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn import Module, Parameter

from unskew.adapters import attach
from unskew.families import Family, Text, family_of, stack_texts
from unskew.fused_lora import fuse
from unskew.pipelines import load_base, load_unet
from unskew.quantized import quantize
from unskew.train.batches import Batches
from unskew.train.buckets import by_size
from unskew.train.cache import Encoded, encode
from unskew.train.guards import check_trained
from unskew.train.inputs import Inputs, captions_of
from unskew.train.noise_levels import training_schedule
from unskew.train.numerics import Stepper, can_defer
from unskew.train.objective import Deal, Part
from unskew.train.optimizers import make_optimizer
from unskew.train.options import TrainSettings
from unskew.train.rows import Row
from unskew.train.siblings import find_siblings
from unskew.train.surroundings import autocast, precision
from unskew.train.validation_inputs import ValidationInputs

ONE_BY_ONE_PX = 512
"""Samples that are larger are decoded one by one: a row together may need more than training."""


class Denoiser(Module):
    """The UNet, and text encoders where they are trained: what accelerate wraps."""

    def __init__(self, pipe: Any, encoders: Sequence[str]) -> None:
        super().__init__()
        self.pipe, self.family, self.unet = pipe, family_of(pipe), pipe.unet
        self.encoders = torch.nn.ModuleList([getattr(pipe, name) for name in encoders])

    def forward(self, noisy_bchw: Tensor, part: Part) -> Tensor:
        """(b, c, h, w) prediction; captions are encoded here where encoders are trained."""
        texts: Mapping[str, Tensor] = part.texts
        if len(self.encoders):
            live = self.family.encode(self.pipe, part.captions)
            texts = stack_texts(live)
        told = self.family.told(texts, part.time_ids_b6)
        prediction: Tensor = self.unet(noisy_bchw, part.timesteps_b, **told).sample
        return prediction


@dataclass(frozen=True)
class Training:
    """The parts of a run."""

    settings: TrainSettings
    accelerator: Accelerator
    pipe: Any
    family: Family
    schedule: SchedulerMixin
    """The noise schedule that is trained on."""
    models: Mapping[str, Module]
    """What has a LoRA, by its name in the pipeline."""
    denoiser: Any
    """What accelerate made of a Denoiser."""
    parameters: Mapping[str, Parameter]
    """Name -> LoRA weight, fp32."""
    optimizer: torch.optim.Optimizer
    stepper: Stepper
    """What makes the optimizer's steps, and says how they were."""
    batches: Batches
    deal: Deal
    encoding_seconds: float
    dtype: torch.dtype
    validation: ValidationInputs | None

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

    def passes(
        self, rows: Sequence[Row]
    ) -> Iterator[tuple[list[int], AbstractContextManager[Any]]]:
        """Places of one size each, and a context in which processes meet at the last one only."""
        groups = [
            group for part in self.parts() for group in by_size(rows, part, self.deal.framings)
        ]
        for number, places in enumerate(groups, 1):
            alone = number < len(groups)
            yield places, self.accelerator.no_sync(self.denoiser) if alone else nullcontext()

    @property
    def rows_per_process(self) -> int:
        """Rows of a step that this process computes; the step's loss is the mean over processes."""
        return self.batches.size // int(self.accelerator.num_processes)

    @torch.no_grad()
    def texts(self, captions: Sequence[str], pipe: Any = None) -> dict[str, Text]:
        """What the UNet is told of captions now: by `pipe`'s encoders where they are trained.

        `pipe` is the trained one unless another is given. Elsewhere what the cache holds.
        """
        captions = list(dict.fromkeys(captions))
        if "text_encoder" not in self.models:
            return {caption: self.deal.encoded.texts[caption] for caption in captions}
        live = self.family.encode(pipe or self.pipe, captions)
        return dict(zip(captions, live, strict=True))


def load_training(
    settings: TrainSettings,
    inputs: Inputs,
    rows: tuple[Row, ...],
    accelerator: Accelerator,
    cache: Path | None,
) -> Training:
    """Encode these rows, let the encoders go, then load the UNet with a fresh LoRA on it."""
    device = accelerator.device
    dtype, _ = precision(settings, device)
    # in fp32: SDXL's VAE overflows in fp16, and what is encoded once may be exact
    pipe = load_base(inputs.base, device, torch.float32, without=("unet",))
    family = family_of(pipe)
    schedule = training_schedule(pipe.scheduler, settings.objective)
    if settings.objective.zero_terminal_snr:
        pipe.scheduler = schedule
    started = time.perf_counter()
    with accelerator.main_process_first():
        encoded = encode(
            pipe,
            inputs.base,
            [row.file for row in rows],
            captions_of(rows, settings),
            inputs.framings,
            cache,
            mirror=settings.pictures.horizontal_flip,
        )
    encoding_seconds = time.perf_counter() - started
    encoders = family.ENCODERS if "text_encoder" in settings.lora.components else ()
    for name in set(family.ENCODERS) - set(encoders):
        setattr(pipe, name, None)
    pipe.vae.encoder = None
    if dtype == torch.float16:
        decode_exactly(pipe.vae)
    if settings.resolution_px > ONE_BY_ONE_PX:
        pipe.vae.enable_slicing()
    for name in encoders:
        quantize(getattr(pipe, name), settings.memory.quantize, device, dtype)
    pipe.unet = load_unet(inputs.base, device, dtype, settings.memory.quantize)
    trained = (*(["unet"] if "unet" in settings.lora.components else []), *encoders)
    models = {name: getattr(pipe, name) for name in trained}
    idle = family.idle(pipe) if encoders else ()
    parameters = fresh_lora(models, settings, idle)
    denoiser = Denoiser(pipe, encoders)
    weights = list(parameters.values())
    optimizer = make_optimizer(weights, settings.optimizer, device)
    return Training(
        settings=settings,
        accelerator=accelerator,
        pipe=pipe,
        family=family,
        schedule=schedule,
        models=models,
        denoiser=accelerator.prepare_model(denoiser),
        parameters=parameters,
        optimizer=optimizer,
        stepper=Stepper(
            weights,
            optimizer,
            settings.optimizer.clip_norm,
            device,
            fp16=dtype == torch.float16,
            deferred=can_defer(optimizer, device),
        ),
        batches=inputs.batches,
        deal=Deal(
            seed=settings.seed,
            encoded=encoded,
            framings=inputs.framings,
            siblings=siblings_of(settings, inputs.batches, encoded),
            settings=settings.objective,
            schedule=schedule,
            device=device,
        ),
        encoding_seconds=encoding_seconds,
        dtype=dtype,
        validation=inputs.validation,
    )


def decode_exactly(vae: Any) -> None:
    """Let a VAE in fp32 decode in fp32, whatever comes: SDXL's overflows in fp16.

    Some samplers, SDXL's own among them, hand over latents in the UNet's precision.
    """
    decode = vae.decode

    def exactly(latents_bchw: Tensor, *more: Any, **named: Any) -> Any:
        with torch.autocast(latents_bchw.device.type, enabled=False):
            return decode(latents_bchw.float(), *more, **named)

    vae.decode = exactly


def siblings_of(settings: TrainSettings, batches: Batches, encoded: Encoded) -> dict[Any, Any]:
    """Siblings where noise and pictures are what their likelihood takes them for, else none."""
    if settings.pictures.horizontal_flip or settings.objective.noise_offset:
        return {}
    return find_siblings(batches.streams["neutral"].decks, encoded)


def fresh_lora(
    models: Mapping[str, Module], settings: TrainSettings, leave_out: Collection[str] = ()
) -> dict[str, Parameter]:
    """Attach an fp32 LoRA that follows from the seed. Raises UserError when none is trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        parameters = attach(
            models, **settings.lora.model_dump(exclude={"components"}), leave_out=leave_out
        )
    check_trained(parameters, settings.lora.target_modules)
    for model in models.values():
        speed_up(model)
    return parameters


def speed_up(model: Module) -> None:
    """Let a model with an fp32 LoRA compute without peft's detours."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            # autocast casts already; peft's detour through fp32 is a quarter of a CPU's step
            module.cast_input_dtype_enabled = False
    fuse(model)
