"""The proof that a saved adapter is the trained one: loaded into a fresh base, it does the same."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from unskew.adapters import load_adapter
from unskew.errors import UserError
from unskew.families import stack_texts
from unskew.noise import cell_noise
from unskew.pipelines import load_base, load_unet
from unskew.quantized import quantize
from unskew.train.memory import uncompile
from unskew.train.objective import adapter_off
from unskew.train.training import Training, speed_up

MOST_DIFFERENCE = 0.01
"""Largest difference between the trained model and base + loaded adapter, as a share of the
adapter's effect. A lost alpha or a dropped weight differs by far more; equal arithmetic by 0."""


@torch.no_grad()
def prove_adapter(training: Training, base: Path, *files: Path) -> dict[str, float]:
    """Load each saved adapter into a fresh base and compare what the UNet predicts for captions.

    Returns {"effect", "difference"}: the root mean square change of the UNet's output by the
    adapter, and how far the worst loaded one is from the trained one, as a share of it (0 is
    equal). Raises UserError when the adapter has no effect, RuntimeError when it does not come
    back.
    """
    uncompile(training.pipe.unet)  # what is loaded is not compiled, and kernels round otherwise
    with _as_loaded(training):
        trained = _output(training, training.pipe)
    with _all_off(training.models):
        effect = (trained - _output(training, training.pipe)).square().mean().sqrt().item()
    if effect == 0:
        raise UserError(
            "the trained adapter changes nothing: raise optimizer.learning_rate or steps, and look "
            "whether the targets differ from what the base does already"
        )
    differences = []
    for file in files:
        fresh = _fresh(training, base)
        load_adapter(fresh, file, "check")
        for name in training.models:
            model = getattr(fresh, name)
            for weight in _lora_weights(model):
                weight.data = weight.data.float()  # as the trained ones are
            speed_up(model)  # the same arithmetic: in bf16 its order may be 1 % of it
        difference = (trained - _output(training, fresh)).square().mean().sqrt().item() / effect
        if not difference <= MOST_DIFFERENCE:
            raise RuntimeError(
                f"{file}, loaded into a fresh base, differs from the trained adapter by "
                f"{difference:.1%} of its effect (allowed: {MOST_DIFFERENCE:.0%})"
            )
        differences.append(difference)
        del fresh, model
        gc.collect()  # its layers hold themselves, and the next one would be loaded beside them
    return {"effect": effect, "difference": max(differences)}


def _fresh(training: Training, base: Path) -> Any:
    """The base as it was trained on, without any adapter: UNet and text encoders, where trained."""
    device, quantization = training.accelerator.device, training.settings.memory.quantize
    idle = () if "text_encoder" in training.models else training.family.ENCODERS
    fresh = load_base(base, device, torch.float32, without=("unet", "vae", *idle))
    for name in training.family.ENCODERS:
        if name in training.models:
            quantize(getattr(fresh, name), quantization, device, training.dtype)
    fresh.unet = load_unet(base, device, training.dtype, quantization)
    return fresh


def _output(training: Training, pipe: Any) -> Tensor:
    """The UNet's predictions for a few captions, at noise from all to half."""
    device, encoded = training.accelerator.device, training.deal.encoded
    captions = sorted(encoded.texts)[:4]
    texts = list(training.texts(captions, pipe).values())
    shape = next(iter(encoded.posteriors.values())).shape[1:]
    noise_bchw = cell_noise([(caption, 0) for caption in captions], tuple(shape)).to(device)
    last = training.schedule.config.num_train_timesteps - 1
    timesteps_b = torch.linspace(last, last // 2, len(captions)).long().to(device)
    framing = next(iter(training.deal.framings.values()))
    time_ids_b6 = torch.tensor([framing.time_ids] * len(captions), dtype=torch.float, device=device)
    with training.autocast():
        told = training.family.told(stack_texts(texts, device), time_ids_b6)
        prediction: Tensor = pipe.unet(noise_bchw, timesteps_b, **told).sample
    return prediction.double()


def _lora_weights(model: Module) -> Iterator[Parameter]:
    return (weight for name, weight in model.named_parameters() if ".lora_" in name)


@contextmanager
def _as_loaded(training: Training) -> Iterator[None]:
    """Inside, the UNet's DoRA magnitudes are rounded to its precision, as loaders round them.

    Text encoders are in fp32.
    """
    kept = {
        weight: weight.data
        for name, weight in training.parameters.items()
        if name.startswith("unet.") and "lora_magnitude_vector" in name
    }
    try:
        for weight, exact in kept.items():
            weight.data = exact.to(training.dtype).float()
        yield
    finally:
        for weight, exact in kept.items():
            weight.data = exact


@contextmanager
def _all_off(models: Mapping[str, Module]) -> Iterator[None]:
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(adapter_off(model))
        yield
