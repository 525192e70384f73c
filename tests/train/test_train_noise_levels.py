"""Noise levels and what depends on them: the papers' formulas, and nothing that is not finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
)
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from unskew.errors import UserError
from unskew.train.noise_levels import (
    check_schedule,
    dropped_b,
    loss_weights_b,
    min_snr_weights,
    offset_noise,
    rescaled,
    snr_b,
    soft_min_snr_weights,
    timesteps,
)
from unskew.train.objective import picture_target
from unskew.train.options import ObjectiveSettings

KINDS = ("epsilon", "v_prediction")
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ratios = st.floats(0, math.inf, width=32, allow_infinity=True)
gammas = st.floats(1e-3, 1e3)


def settings(**changes: object) -> ObjectiveSettings:
    plain = {"target": "picture", "timesteps": "uniform"}
    shares = {"high_noise_share": 0.6, "high_noise_from": 0.7}
    return ObjectiveSettings.model_validate({**plain, **shares, **changes})


def stable_diffusion_alpha_bars() -> NDArray[np.float64]:
    betas = np.linspace(math.sqrt(SD["beta_start"]), math.sqrt(SD["beta_end"]), 1000) ** 2
    return np.asarray(np.cumprod(1 - betas))


def scheduler(
    kind: str = "v_prediction", of: type[SchedulerMixin] = DDIMScheduler, **more: object
) -> SchedulerMixin:
    return of(**SD, prediction_type=kind, **more)


def test_snr_is_signal_over_noise_variance() -> None:
    """alpha_bar / (1 - alpha_bar) of each row's timestep, in the rows' order."""
    alpha_bars = stable_diffusion_alpha_bars()
    chosen = [999, 0, 500, 0]
    found = snr_b(scheduler().alphas_cumprod, torch.tensor(chosen))
    expected = alpha_bars[chosen] / (1 - alpha_bars[chosen])
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    ends = snr_b(torch.tensor([0.0, 1.0]), torch.tensor([0, 1]))
    assert ends.tolist() == [0.0, math.inf]


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
def test_min_snr_is_hangs_formula(gamma: float) -> None:
    """min(SNR, gamma) over SNR for the noise, over SNR + 1 for the velocity."""
    snr = np.geomspace(1e-4, 1e4, 50)
    on_noise = np.minimum(snr, gamma) / snr
    on_velocity = np.minimum(snr, gamma) / (snr + 1)
    given_b = torch.tensor(snr)
    np.testing.assert_allclose(min_snr_weights(given_b, gamma, "epsilon"), on_noise)
    np.testing.assert_allclose(min_snr_weights(given_b, gamma, "v_prediction"), on_velocity)


@pytest.mark.parametrize("gamma", [1.0, 4.0, 20.0])
def test_soft_min_snr_is_crowsons_formula(gamma: float) -> None:
    """1 / (sigma^2 + 1 / gamma) on the clean picture, carried over to noise and velocity."""
    sigma = np.geomspace(1e-2, 1e2, 50)
    on_picture = 1 / (sigma**2 + 1 / gamma)
    snr = 1 / sigma**2
    given_b = torch.tensor(snr)
    np.testing.assert_allclose(soft_min_snr_weights(given_b, gamma, "epsilon"), on_picture / snr)
    np.testing.assert_allclose(
        soft_min_snr_weights(given_b, gamma, "v_prediction"), on_picture / (snr + 1)
    )


@example(0.0, 5.0)
@example(math.inf, 5.0)
@given(ratios, gammas)
def test_weights_are_finite_at_every_ratio(ratio: float, gamma: float) -> None:
    """From no signal to no noise a weight is between 0 and 1, or gamma where that is more."""
    for weights in (min_snr_weights, soft_min_snr_weights):
        for kind in KINDS:
            (weight,) = weights(torch.tensor([ratio]), gamma, kind).tolist()
            assert 0 <= weight <= 1 + 1e-6


@given(ratios, gammas)
def test_soft_is_between_half_the_hard_one_and_it(ratio: float, gamma: float) -> None:
    """The harmonic sum of SNR and gamma is at most their minimum, and at least half of it."""
    for kind in KINDS:
        hard = min_snr_weights(torch.tensor([ratio]), gamma, kind).item()
        soft = soft_min_snr_weights(torch.tensor([ratio]), gamma, kind).item()
        assert hard / 2 * (1 - 1e-5) - 1e-30 <= soft <= hard * (1 + 1e-5)


@pytest.mark.parametrize("weighting", ["min_snr", "soft_min_snr"])
def test_without_signal_the_noise_counts_fully_and_the_velocity_nothing(weighting: str) -> None:
    """At the last step of a zero-terminal schedule weights are at their limits."""
    chosen = settings(loss_weights=weighting)
    alpha_bars, last = torch.tensor([0.9, 0.0]), torch.tensor([1])
    assert loss_weights_b(alpha_bars, last, "epsilon", chosen).tolist() == [1.0]
    assert loss_weights_b(alpha_bars, last, "v_prediction", chosen).tolist() == [0.0]


def test_no_weighting_is_one_for_every_row() -> None:
    """Weights of "none" change no bit of a loss, whatever the base predicts."""
    chosen = torch.tensor([0, 500, 999])
    weights = loss_weights_b(scheduler().alphas_cumprod, chosen, "sample", settings())
    assert weights.tolist() == [1.0, 1.0, 1.0]


def test_the_weighting_asked_for_is_the_one_taken() -> None:
    """Settings choose formula and gamma."""
    alpha_bars, places = scheduler().alphas_cumprod, torch.arange(0, 1000, 100)
    snr = snr_b(alpha_bars, places)
    for name, formula in (("min_snr", min_snr_weights), ("soft_min_snr", soft_min_snr_weights)):
        chosen = settings(loss_weights=name, snr_gamma=3.0)
        for kind in KINDS:
            found = loss_weights_b(alpha_bars, places, kind, chosen)
            assert torch.equal(found, formula(snr, 3.0, kind))


def test_weights_of_an_unknown_prediction_are_refused() -> None:
    """What formula a third kind would need is not known."""
    with pytest.raises(UserError, match="predicts 'sample': set it to 'none'"):
        loss_weights_b(
            torch.tensor([0.5]), torch.tensor([0]), "sample", settings(loss_weights="min_snr")
        )


def test_high_noise_timesteps_keep_their_bits() -> None:
    """Runs of before drew these timesteps of these uniforms."""
    uniforms = torch.rand(10, 2, generator=torch.Generator().manual_seed(0))
    flat = timesteps(uniforms, settings(), 1000)
    assert flat.tolist() == [768, 132, 634, 896, 632, 401, 168, 518, 800, 282]
    high = timesteps(uniforms, settings(timesteps="high_noise"), 1000)
    assert high.tolist() == [930, 739, 890, 968, 889, 820, 750, 855, 800, 784]


def test_timesteps_lie_where_they_are_asked() -> None:
    """The share over the threshold is high_noise_share plus the uniform draws' own."""
    uniforms = torch.rand(20000, 2, generator=torch.Generator().manual_seed(0))
    drawn = timesteps(uniforms, settings(timesteps="high_noise"), 1000)
    assert (drawn >= 700).float().mean().item() == pytest.approx(0.6 + 0.4 * 0.3, abs=0.01)
    flat = timesteps(uniforms, settings(), 1000)
    assert (flat >= 700).float().mean().item() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 0.5), (1.0, 2.0)])
def test_logit_normal_timesteps_have_normal_logits(mean: float, std: float) -> None:
    """Quantiles are the sigmoids of the normal distribution's, whatever the first uniform is."""
    quantiles = (np.arange(2000) + 0.5) / 2000
    expected = 1000 / (1 + np.exp(-stats.norm.ppf(quantiles, mean, std)))
    uniforms = torch.stack([torch.rand(2000), torch.tensor(quantiles)], 1)
    chosen = settings(timesteps="logit_normal", logit_mean=mean, logit_std=std)
    drawn = timesteps(uniforms, chosen, 1000)
    np.testing.assert_allclose(drawn, np.floor(expected), atol=1)
    assert (np.abs(drawn.numpy() - np.floor(expected)) > 0).mean() < 0.01


@given(
    st.floats(0, 1, exclude_max=True, width=32),
    st.floats(0, 1, exclude_max=True, width=32),
    st.sampled_from(["uniform", "high_noise", "logit_normal"]),
    st.floats(-20, 20),
    st.floats(1e-3, 20),
    st.integers(1, 2000),
)
def test_every_uniform_has_a_timestep(
    first: float, second: float, density: str, mean: float, std: float, steps: int
) -> None:
    """No uniform of [0, 1), 0 among them, leads out of the schedule."""
    chosen = settings(timesteps=density, logit_mean=mean, logit_std=std)
    (drawn,) = timesteps(torch.tensor([[first, second]]), chosen, steps).tolist()
    assert 0 <= drawn < steps


def test_offset_noise_moves_whole_channels() -> None:
    """Each channel of a row moves by strength times its normal; 0 gives the same noise back."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 4, 8, 8, generator=generator)
    normals = torch.randn(3, 4, 1, 1, generator=generator)
    moved = offset_noise(noise, normals, 0.1)
    np.testing.assert_array_equal(moved, noise.numpy() + np.float32(0.1) * normals.numpy())
    assert torch.equal(offset_noise(noise, normals, 0.0), noise)


def test_offset_noise_has_the_variance_of_its_parts() -> None:
    """A channel's mean has a variance of 1 / pixels + strength^2."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, 1, 4, 4, generator=generator)
    normals = torch.randn(4000, 1, 1, 1, generator=generator)
    means = offset_noise(noise, normals, 0.5).mean((1, 2, 3))
    assert means.var().item() == pytest.approx(1 / 16 + 0.25, rel=0.1)


def test_captions_are_dropped_at_their_share() -> None:
    """0 drops none, 1 drops all, and what is dropped at a share stays dropped at a larger one."""
    uniforms = torch.rand(20000, generator=torch.Generator().manual_seed(0))
    assert not dropped_b(uniforms, 0.0).any()
    assert dropped_b(uniforms, 1.0).all()
    some, more = dropped_b(uniforms, 0.1), dropped_b(uniforms, 0.2)
    assert some.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert more[some].all()


def lins_alpha_bars(alpha_bars: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lin et al. 2024, algorithm 1: shift the square roots to end at 0, scale the first back."""
    roots = np.sqrt(alpha_bars)
    return np.asarray(((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2)


@pytest.mark.parametrize(
    "of", [DDIMScheduler, DDPMScheduler, PNDMScheduler, EulerDiscreteScheduler]
)
def test_a_rescaled_schedule_ends_without_signal(of: type[SchedulerMixin]) -> None:
    """Whatever kind of scheduler the base has, its schedule becomes that of Lin's algorithm."""
    before = scheduler(of=of)
    kept = before.alphas_cumprod.clone()
    after = rescaled(before)
    expected = lins_alpha_bars(stable_diffusion_alpha_bars())
    np.testing.assert_allclose(after.alphas_cumprod, expected, rtol=2e-3, atol=1e-7)
    assert after.alphas_cumprod[-1] == 0
    after.set_timesteps(10)
    assert after.timesteps[0] == 999
    assert after.config.prediction_type == "v_prediction"
    assert not after.config.clip_sample
    assert torch.equal(before.alphas_cumprod, kept)


def test_rescaling_twice_is_rescaling_once() -> None:
    """A base that ends without signal already keeps its schedule."""
    once = rescaled(scheduler())
    assert torch.equal(rescaled(once).alphas_cumprod, once.alphas_cumprod)


def test_a_rescaled_schedule_can_be_trained_on() -> None:
    """At its last step there is noise alone, and the velocity is the clean picture, negated."""
    schedule = rescaled(scheduler())
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    last = torch.tensor([999])
    assert torch.equal(schedule.add_noise(latents, noise, last), noise)
    assert torch.equal(picture_target(schedule, latents, noise, last), -latents)


def test_noise_cannot_be_learned_without_signal() -> None:
    """A base that predicts epsilon is refused on any schedule that ends at SNR 0."""
    for schedule, chosen, message in (
        (scheduler("epsilon"), settings(zero_terminal_snr=True), "zero_terminal_snr is true"),
        (rescaled(scheduler("epsilon")), settings(), "ends without signal"),
        (
            scheduler("epsilon", EulerDiscreteScheduler, rescale_betas_zero_snr=True),
            settings(),
            "ends without signal",
        ),
    ):
        with pytest.raises(UserError, match=rf"{message}.*predicts the noise.*v_prediction"):
            check_schedule(schedule, chosen)


def test_schedules_that_can_be_learned_pass() -> None:
    """Epsilon with signal to the end, and the velocity on either schedule."""
    check_schedule(scheduler("epsilon"), settings())
    for zero in (False, True):
        check_schedule(scheduler(), settings(zero_terminal_snr=zero))
        check_schedule(rescaled(scheduler()), settings(zero_terminal_snr=zero))


def test_an_unknown_prediction_type_is_refused() -> None:
    """A scheduler whose target is not known ends the run before it begins."""
    with pytest.raises(UserError, match="'sample'; allowed: epsilon, v_prediction"):
        check_schedule(scheduler("sample"), settings())
