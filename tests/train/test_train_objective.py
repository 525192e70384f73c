"""What a row is trained towards, and that all its chance is its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from unskew.adapters import attach
from unskew.errors import UserError
from unskew.families import sd
from unskew.pipelines import load_base
from unskew.train.buckets import Framing
from unskew.train.cache import Encoded
from unskew.train.noise_levels import min_snr_weights, snr_b
from unskew.train.objective import (
    Deal,
    Part,
    adapter_off,
    base_prediction,
    draw_part,
    picture_target,
    row_losses,
    target_bchw,
    teacher_caption,
)
from unskew.train.options import ObjectiveSettings
from unskew.train.rows import Kind, Row
from unskew.train.siblings import Kin, Siblings, in_target

CPU = torch.device("cpu")


def row(line: int, kind: Kind, weight: float = 1.0, explicit: str | None = "explicit") -> Row:
    return Row(line, Path(f"{line % 3}.png"), f"text {line % 4}", kind, "s", {}, explicit, weight)


def settings(**changes: object) -> ObjectiveSettings:
    plain = {"target": "explicit", "timesteps": "high_noise"}
    shares = {"high_noise_share": 0.6, "high_noise_from": 0.7}
    return ObjectiveSettings.model_validate({**plain, **shares, **changes})


def encoded() -> Encoded:
    generator = torch.Generator().manual_seed(0)
    posteriors = {Path(f"{n}.png"): torch.rand(2, 8, 8, 8, generator=generator) for n in range(3)}
    texts = [*(f"text {n}" for n in range(4)), "explicit", ""]
    return Encoded(
        posteriors, {t: {"states": torch.randn(24, 16, generator=generator)} for t in texts}
    )


ROWS = [row(n, ("neutral", "explicit", "control")[n % 3], weight=n + 1) for n in range(12)]


def deal(seed: int = 1, siblings: dict[Kin, Siblings] | None = None, **changes: object) -> Deal:
    framing = Framing.of((64, 64), (64, 64))
    return Deal(
        seed=seed,
        encoded=encoded(),
        framings={Path(f"{n}.png"): framing for n in range(3)},
        siblings=siblings or {},
        settings=settings(**changes),
        schedule=DDIMScheduler(),
        device=CPU,
    )


def part_of(places: list[int], step: int = 5, seed: int = 1, **changes: object) -> Part:
    return draw_part(ROWS, places, step, deal(seed, **changes))


@pytest.fixture(scope="module")
def unet(tiny_base: Path) -> UNet2DConditionModel:
    """The tiny base's UNet with an adapter that does something."""
    unet = load_base(tiny_base, CPU, torch.float32).unet
    torch.manual_seed(0)
    lora = attach({"unet": unet}, rank=2, alpha=2, target_modules="attention")
    for parameter in lora.values():
        parameter.data = 0.2 * torch.randn_like(parameter)
    return unet


def test_chance_does_not_know_of_parts() -> None:
    """However a batch is split over parts and processes, a row has the same noise and timestep."""
    whole = part_of(list(range(12)))
    for ways in (2, 3):
        for first in range(ways):
            part = part_of(list(range(first, 12, ways)))
            assert torch.equal(part.noise_bchw, whole.noise_bchw[first::ways])
            assert torch.equal(part.latents_bchw, whole.latents_bchw[first::ways])
            assert torch.equal(part.timesteps_b, whole.timesteps_b[first::ways])
            assert torch.equal(part.weights_b, whole.weights_b[first::ways])


def test_chance_changes_with_step_seed_and_place() -> None:
    """No two rows, steps or seeds share their noise."""
    noises = [part_of([0, 1]), part_of([0, 1], step=6), part_of([0, 1], seed=2)]
    flat = torch.cat([part.noise_bchw.flatten(1) for part in noises])
    assert len({tuple(noise.tolist()) for noise in flat}) == 6


def test_latents_are_sampled_from_the_posterior() -> None:
    """Over many steps a row's latents have the cached mean and standard deviation."""
    mean, std = encoded().posteriors[ROWS[0].file]
    drawn = torch.stack([part_of([0], step=step).latents_bchw[0] for step in range(400)])
    np.testing.assert_allclose(drawn.mean(0), mean, atol=6 / 20)
    np.testing.assert_allclose(drawn.std(0).mean(), std.mean(), rtol=0.02)


def test_the_teacher_is_told_the_explicit_caption() -> None:
    """Neutral rows learn the explicit prediction; controls always keep the base's own."""
    neutral, explicit, control = (row(1, kind) for kind in ("neutral", "explicit", "control"))
    assert teacher_caption(neutral, "explicit") == "explicit"
    assert teacher_caption(explicit, "explicit") == explicit.text
    assert teacher_caption(neutral, "picture") is None
    assert teacher_caption(explicit, "picture") is None
    assert {teacher_caption(control, target) for target in ("picture", "explicit")} == {
        control.text
    }
    with pytest.raises(UserError, match=r"row 1 .* has no explicit_text"):
        teacher_caption(row(1, "neutral", explicit=None), "explicit")


def test_a_dropped_caption_is_dropped_for_the_teacher_too() -> None:
    """Without its caption a row learns what the base makes of none; a picture's target stays."""
    for target, taught in (("explicit", [0, 1, 2]), ("picture", [2])):
        kept, dropped = (
            draw_part(ROWS[:3], range(3), 0, deal(target=target, caption_dropout=share))
            for share in (0.0, 1.0)
        )
        empty = encoded().texts[""]["states"]
        assert kept.captions == ("text 0", "text 1", "text 2")
        assert dropped.captions == ("", "", "")
        assert dropped.taught_m.tolist() == taught
        assert all(torch.equal(states, empty) for states in dropped.texts["states"])
        assert all(torch.equal(t, empty) for t in dropped.teacher_texts["states"][taught])
        assert torch.equal(kept.noise_bchw, dropped.noise_bchw)


def test_noise_offset_moves_whole_channels() -> None:
    """The noise differs by one number a channel; everything else is as without it."""
    plain, moved = part_of([0, 1]), part_of([0, 1], noise_offset=0.5)
    shift = moved.noise_bchw - plain.noise_bchw
    torch.testing.assert_close(shift, shift.mean((2, 3), keepdim=True).expand_as(shift))
    assert shift.abs().min() > 0
    assert torch.equal(plain.timesteps_b, moved.timesteps_b)


def test_loss_weights_multiply_the_rows_own() -> None:
    """A row's weight is the dataset's times that of its noise."""
    plain, weighed = part_of([0, 1, 2]), part_of([0, 1, 2], loss_weights="min_snr")
    ratio = snr_b(DDIMScheduler().alphas_cumprod, plain.timesteps_b)
    torch.testing.assert_close(
        weighed.weights_b, plain.weights_b * min_snr_weights(ratio, 5.0, "epsilon")
    )


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_picture_target_is_what_the_scheduler_inverts(kind: str) -> None:
    """A UNet that predicts the target exactly gives the latents back in one step."""
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    part = part_of([0, 1, 2])
    for timestep in (10, 500, 900):
        t = torch.full((3,), timestep)
        noisy = scheduler.add_noise(part.latents_bchw, part.noise_bchw, t)
        target = picture_target(scheduler, part.latents_bchw, part.noise_bchw, t)
        scheduler.set_timesteps(1000)
        back = scheduler.step(target, timestep, noisy).pred_original_sample
        torch.testing.assert_close(back, part.latents_bchw, atol=1e-3, rtol=1e-3)


def test_an_unknown_prediction_type_is_refused() -> None:
    """A scheduler whose target is not known ends the run."""
    part = part_of([0])
    with pytest.raises(UserError, match="'sample'; allowed: epsilon, v_prediction"):
        picture_target(
            DDIMScheduler(prediction_type="sample"),
            part.latents_bchw,
            part.noise_bchw,
            part.timesteps_b,
        )


def test_the_teacher_is_the_bare_base(tiny_base: Path, unet: UNet2DConditionModel) -> None:
    """Its prediction is a fresh base's; afterwards the adapter is on and trains as before."""
    part = part_of([0, 1])
    inputs = (part.noise_bchw, part.timesteps_b)
    told = sd.told(part.texts, part.time_ids_b6)
    fresh = load_base(tiny_base, CPU, torch.float32).unet
    with torch.no_grad():
        adapted, bare = unet(*inputs, **told).sample, fresh(*inputs, **told).sample
    assert torch.equal(base_prediction(unet, *inputs, told), bare)
    assert torch.equal(unet(*inputs, **told).sample.detach(), adapted)
    assert all(p.requires_grad for n, p in unet.named_parameters() if "lora_" in n)
    with pytest.raises(ZeroDivisionError), adapter_off(unet):
        raise ZeroDivisionError
    assert torch.equal(unet(*inputs, **told).sample.detach(), adapted)


def test_only_taught_rows_follow_the_teacher(unet: UNet2DConditionModel) -> None:
    """Each row's target is its own: the picture's for some, the base's prediction for others."""
    scheduler = DDIMScheduler(prediction_type="epsilon")
    part = draw_part(ROWS, range(6), 0, deal(0, target="picture"))
    assert part.taught_m.tolist() == [2, 5]  # the controls
    noisy = scheduler.add_noise(part.latents_bchw, part.noise_bchw, part.timesteps_b)
    target = target_bchw(unet, sd, scheduler, part, noisy)
    told = sd.told(part.texts, part.time_ids_b6)
    base = base_prediction(unet, noisy, part.timesteps_b, told)
    torch.testing.assert_close(target[[2, 5]], base[[2, 5]])
    assert torch.equal(target[[0, 1, 3, 4]], part.noise_bchw[[0, 1, 3, 4]])


def test_siblings_move_the_neutral_rows_of_explicit_targets_alone(
    unet: UNet2DConditionModel,
) -> None:
    """Neutral rows' targets get their shifts; explicit rows, controls and picture targets none."""
    scheduler = DDIMScheduler(prediction_type="v_prediction")
    values = [{"presentation": value} for value in ("woman", "man", "person")]
    rows = [replace(row, text="text 0", values=values[n % 3]) for n, row in enumerate(ROWS[:6])]
    kin = Siblings.of([(replace(ROWS[n], values=values[n]), 1 / 3) for n in range(3)], encoded())

    def part_and_target(target: str, siblings: dict[Kin, Siblings]) -> tuple[Part, Tensor]:
        changes = {"target": target, "high_noise_share": 1.0, "high_noise_from": 0.99}
        part = draw_part(rows, range(6), 0, deal(0, siblings, **changes))
        noisy = scheduler.add_noise(part.latents_bchw, part.noise_bchw, part.timesteps_b)
        return part, target_bchw(unet, sd, scheduler, part, noisy)

    family = {("s", "text 0", (2, 8, 8, 8)): kin}
    part, moved = part_and_target("explicit", family)
    _, still = part_and_target("explicit", {})
    assert [row.kind for row in part.rows[:3]] == ["neutral", "explicit", "control"]
    noisy = scheduler.add_noise(part.latents_bchw, part.noise_bchw, part.timesteps_b)
    for place, row in enumerate(part.rows):
        if row.kind == "neutral":
            alpha_bar = scheduler.alphas_cumprod[part.timesteps_b[place]]
            shift = in_target(
                scheduler, kin.shift_chw(noisy[place], row.values, alpha_bar), alpha_bar
            )
            assert shift.abs().max() > 0
            torch.testing.assert_close(moved[place], still[place] + shift)
        else:
            assert torch.equal(moved[place], still[place])
    assert torch.equal(part_and_target("picture", family)[1], part_and_target("picture", {})[1])


def test_row_losses_are_weighted_means() -> None:
    """0 on target; else the row's mean squared error times its weight, whatever the others are."""
    target = torch.zeros(3, 2, 2, 2)
    prediction = torch.stack([torch.zeros(2, 2, 2), torch.ones(2, 2, 2), 2 * torch.ones(2, 2, 2)])
    losses = row_losses(prediction, target, torch.tensor([5.0, 0.5, 1.0]))
    assert losses.tolist() == [0.0, 0.5, 4.0]
