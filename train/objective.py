"""What the UNet is trained towards, and at which noise.

Shape legend: b rows of a part, m rows of it that the base teaches, c latent channels, h w latent
height and width, l tokens, d text width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from unskew.errors import UserError
from unskew.noise import cell_generator
from unskew.train.cache import Encoded
from unskew.train.options import ObjectiveSettings
from unskew.train.rows import Row
from unskew.train.siblings import Caption, Siblings, in_target


@dataclass(frozen=True)
class Part:
    """The rows that one forward pass takes, with all that chance decides about them."""

    rows: tuple[Row, ...]
    latents_bchw: Tensor
    noise_bchw: Tensor
    timesteps_b: Tensor
    states_bld: Tensor
    """Text states of the rows' captions: what the UNet is told."""
    taught_m: Tensor
    """Places in the part whose target is the frozen base's prediction."""
    teacher_states_bld: Tensor
    """Text states of what the base is told; only those at `taught_m` are used."""
    siblings: tuple[Siblings | None, ...]
    """Each row's, where its target may be moved to what its siblings have in common."""
    weights_b: Tensor


def teacher_caption(row: Row, target: Literal["picture", "explicit"]) -> str | None:
    """The caption whose base prediction is the row's target; None when the picture is the target.

    A control keeps what the base makes of it. With target "explicit" a neutral row learns what the
    base makes of its picture's explicit caption, and an explicit row keeps its own. Raises
    UserError when a neutral row has no explicit caption.
    """
    if row.kind == "control":
        return row.text
    if target == "picture":
        return None
    if row.kind == "explicit":
        return row.text
    if not row.explicit_text:
        raise UserError(
            f"row {row.line} ({row.file}) has no explicit_text, which objective.target 'explicit' "
            "learns from: add it, or set the target to 'picture'"
        )
    return row.explicit_text


def draw_part(
    rows: Sequence[Row],
    places: Sequence[int],
    step: int,
    *,
    seed: int,
    encoded: Encoded,
    siblings: Mapping[Caption, Siblings],
    settings: ObjectiveSettings,
    num_timesteps: int,
    device: torch.device,
) -> Part:
    """The rows at these places of a step's batch, with their noise, timesteps and latents.

    Each row's chance is a function of (seed, step, place) alone: of no process, part or device.
    """
    chosen = tuple(rows[place] for place in places)
    chances = [
        _row_chance(seed, step, place, encoded.posteriors[rows[place].file]) for place in places
    ]
    latents, noise, uniforms = (torch.stack(parts) for parts in zip(*chances, strict=True))
    teachers = [teacher_caption(row, settings.target) for row in chosen]
    taught = [place for place, caption in enumerate(teachers) if caption is not None]
    told = [caption or row.text for caption, row in zip(teachers, chosen, strict=True)]
    return Part(
        rows=chosen,
        latents_bchw=latents.to(device),
        noise_bchw=noise.to(device),
        timesteps_b=timesteps(uniforms, settings, num_timesteps).to(device),
        states_bld=torch.stack([encoded.states[row.text] for row in chosen]).to(device),
        taught_m=torch.tensor(taught, dtype=torch.long, device=device),
        teacher_states_bld=torch.stack([encoded.states[caption] for caption in told]).to(device),
        siblings=tuple(
            siblings.get((row.subject, row.text)) if caption and row.kind == "neutral" else None
            for caption, row in zip(teachers, chosen, strict=True)
        ),
        weights_b=torch.tensor([row.weight for row in chosen], device=device),
    )


def _row_chance(
    seed: int, step: int, place: int, posterior: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One row's latents and noise, each (c, h, w), and two uniforms for its timestep."""
    generator = cell_generator(f"training step {step} place {place}", seed)
    mean, std = posterior
    latents = mean + std * torch.randn(mean.shape, generator=generator)
    noise = torch.randn(mean.shape, generator=generator)
    return latents, noise, torch.rand(2, generator=generator)


def timesteps(uniforms_b2: Tensor, settings: ObjectiveSettings, num_timesteps: int) -> Tensor:
    """(b,) timesteps 0 .. num_timesteps - 1 from two uniforms a row: the range, the place in it."""
    first = torch.zeros(len(uniforms_b2))
    if settings.timesteps == "high_noise":
        high = uniforms_b2[:, 0] < settings.high_noise_share
        first = torch.where(high, settings.high_noise_from * num_timesteps, first)
    drawn = first + uniforms_b2[:, 1] * (num_timesteps - first)
    return drawn.long().clamp(max=num_timesteps - 1)


def target_bchw(
    unet: UNet2DConditionModel, scheduler: SchedulerMixin, part: Part, noisy_bchw: Tensor
) -> Tensor:
    """What each row's prediction should be: the picture's own target, or the base's prediction.

    Where a row has siblings, that is moved by what else its noisy picture could have been.
    """
    target = picture_target(scheduler, part.latents_bchw, part.noise_bchw, part.timesteps_b)
    if len(part.taught_m):
        taught = part.taught_m
        target[taught] = base_prediction(
            unet, noisy_bchw[taught], part.timesteps_b[taught], part.teacher_states_bld[taught]
        )
    alpha_bars_b = scheduler.alphas_cumprod.to(target.device)[part.timesteps_b]
    for place, (row, kin) in enumerate(zip(part.rows, part.siblings, strict=True)):
        if kin is not None:
            shift_chw = kin.shift_chw(noisy_bchw[place], row.values, alpha_bars_b[place])
            target[place] += in_target(scheduler, shift_chw, alpha_bars_b[place])
    return target


def picture_target(
    scheduler: SchedulerMixin, latents_bchw: Tensor, noise_bchw: Tensor, timesteps_b: Tensor
) -> Tensor:
    """The noise (epsilon; Ho et al. 2020) or the velocity (v; Salimans and Ho 2022)."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise_bchw.clone()
    if kind == "v_prediction":
        velocity: Tensor = scheduler.get_velocity(latents_bchw, noise_bchw, timesteps_b)
        return velocity
    raise UserError(f"the base's scheduler predicts {kind!r}; allowed: epsilon, v_prediction")


@torch.no_grad()
def base_prediction(
    unet: UNet2DConditionModel, noisy_bchw: Tensor, timesteps_b: Tensor, states_bld: Tensor
) -> Tensor:
    """The frozen base's prediction: the same UNet with its adapter off, in fp32."""
    with adapter_off(unet):
        prediction: Tensor = unet(noisy_bchw, timesteps_b, states_bld).sample
    return prediction.float()


@contextmanager
def adapter_off(unet: UNet2DConditionModel) -> Iterator[None]:
    """Inside, the UNet is the bare base."""
    layers = [layer for layer in unet.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in layers:  # peft's own switch walks through every weight too: 3 % of a small step
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def row_losses(prediction_bchw: Tensor, target_bchw: Tensor, weights_b: Tensor) -> Tensor:
    """(b,) weighted mean squared error of each row, >= 0; 0 means on target.

    Weights are not normalised over the part, so that any split of a batch gives the same sum.
    """
    error_b = (prediction_bchw.float() - target_bchw).square().flatten(1).mean(1)
    return weights_b * error_b
