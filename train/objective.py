"""What the UNet is trained towards, and at which noise.

Shape legend: b rows of a part, m rows of it that the base teaches, c latent channels, h w latent
height and width, l tokens, d text width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from unskew.errors import UserError
from unskew.families import Family, stack_texts
from unskew.noise import cell_generator
from unskew.train.buckets import Framing, is_mirrored
from unskew.train.cache import Encoded
from unskew.train.noise_levels import dropped_b, loss_weights_b, offset_noise, timesteps
from unskew.train.options import ObjectiveSettings
from unskew.train.rows import Row
from unskew.train.siblings import Kin, Siblings, in_target, kin_of
from unskew.transfer import to_device


@dataclass(frozen=True)
class Part:
    """The rows that one forward pass takes, with all that chance decides about them."""

    rows: tuple[Row, ...]
    captions: tuple[str, ...]
    """What the UNet is told: the rows' captions, some left empty."""
    latents_bchw: Tensor
    noise_bchw: Tensor
    timesteps_b: Tensor
    texts: Mapping[str, Tensor]
    """The captions as the UNet is told them, of the bare text encoders."""
    taught_m: Tensor
    """Places in the part whose target is the frozen base's prediction."""
    teacher_texts: Mapping[str, Tensor]
    """What the base is told; only that at `taught_m` is used."""
    time_ids_b6: Tensor
    """Sizes and crops, which SDXL is told."""
    siblings: tuple[Siblings | None, ...]
    """Each row's, where its target may be moved to what its siblings have in common."""
    weights_b: Tensor


@dataclass(frozen=True)
class Deal:
    """What the parts of every step are drawn from."""

    seed: int
    encoded: Encoded
    framings: Mapping[Path, Framing]
    siblings: Mapping[Kin, Siblings]
    settings: ObjectiveSettings
    schedule: SchedulerMixin
    device: torch.device


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
    deal: Deal,
    timesteps_b: Tensor | None = None,
) -> Part:
    """The rows at these places of a step's batch, with their noise, timesteps and latents.

    Each row's chance is a function of (seed, step, place) alone: of no process, part or device.
    `timesteps_b`, on the CPU, takes the timesteps out of chance's hands. All these rows must have
    one size.
    """
    settings, encoded, device = deal.settings, deal.encoded, deal.device
    chosen = tuple(rows[place] for place in places)
    chances = [_row_chance(deal, step, place, rows[place]) for place in places]
    latents, noise, uniforms_b2, dropout_b = (torch.stack(c) for c in zip(*chances, strict=True))
    dropped = dropped_b(dropout_b, settings.caption_dropout).tolist()
    captions = tuple("" if no else row.text for no, row in zip(dropped, chosen, strict=True))
    own = [teacher_caption(row, settings.target) for row in chosen]
    teachers = ["" if no and t is not None else t for no, t in zip(dropped, own, strict=True)]
    taught = [place for place, caption in enumerate(teachers) if caption is not None]
    told = [own if t is None else t for t, own in zip(teachers, captions, strict=True)]
    schedule = deal.schedule
    if timesteps_b is None:
        timesteps_b = timesteps(uniforms_b2, settings, schedule.config.num_train_timesteps)
    timesteps_b = to_device(timesteps_b, device)
    own_weights_b = to_device(torch.tensor([row.weight for row in chosen]), device)
    time_ids_b6 = torch.tensor([deal.framings[row.file].time_ids for row in chosen]).float()
    return Part(
        rows=chosen,
        captions=captions,
        latents_bchw=to_device(latents, device),
        noise_bchw=to_device(noise, device),
        timesteps_b=timesteps_b,
        texts=stack_texts([encoded.texts[caption] for caption in captions], device),
        taught_m=to_device(torch.tensor(taught, dtype=torch.long), device),
        teacher_texts=stack_texts([encoded.texts[caption] for caption in told], device),
        time_ids_b6=to_device(time_ids_b6, device),
        siblings=tuple(
            deal.siblings.get(kin_of(row, encoded))
            if teacher is not None and row.kind == "neutral" and not no
            else None
            for teacher, row, no in zip(teachers, chosen, dropped, strict=True)
        ),
        weights_b=own_weights_b
        * loss_weights_b(
            schedule.alphas_cumprod, timesteps_b, schedule.config.prediction_type, settings
        ),
    )


def _row_chance(
    deal: Deal, step: int, place: int, row: Row
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One row's latents and noise, each (c, h, w), two uniforms for its timestep, one more."""
    mirrored = deal.encoded.mirrored and is_mirrored(deal.seed, step, place)
    mean, std = (deal.encoded.mirrored if mirrored else deal.encoded.posteriors)[row.file]
    generator = cell_generator(f"training step {step} place {place}", deal.seed)
    latents = mean + std * torch.randn(mean.shape, generator=generator)
    noise = torch.randn(mean.shape, generator=generator)
    uniforms_2 = torch.rand(2, generator=generator)
    # what came later is drawn last, so that runs without it keep their bits
    dropout = torch.rand((), generator=generator)
    offset_c11 = torch.randn((len(mean), 1, 1), generator=generator)
    return latents, offset_noise(noise, offset_c11, deal.settings.noise_offset), uniforms_2, dropout


def target_bchw(
    unet: UNet2DConditionModel,
    family: Family,
    scheduler: SchedulerMixin,
    part: Part,
    noisy_bchw: Tensor,
) -> Tensor:
    """What each row's prediction should be: the picture's own target, or the base's prediction.

    Where a row has siblings, that is moved by what else its noisy picture could have been.
    """
    target = picture_target(scheduler, part.latents_bchw, part.noise_bchw, part.timesteps_b)
    if len(part.taught_m):
        taught = part.taught_m
        texts = {name: tensor[taught] for name, tensor in part.teacher_texts.items()}
        told = family.told(texts, part.time_ids_b6[taught])
        target[taught] = base_prediction(unet, noisy_bchw[taught], part.timesteps_b[taught], told)
    alpha_bars_b = to_device(scheduler.alphas_cumprod, target.device)[part.timesteps_b]
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
    unet: UNet2DConditionModel, noisy_bchw: Tensor, timesteps_b: Tensor, told: Mapping[str, Any]
) -> Tensor:
    """The frozen base's prediction: the same UNet with its adapter off, in fp32."""
    with adapter_off(unet):
        prediction: Tensor = unet(noisy_bchw, timesteps_b, **told).sample
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
