"""A target that knows its siblings is the same in expectation, and at far less variance."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from unskew.attributes import load_attribute
from unskew.train.batches import build_decks
from unskew.train.cache import Encoded
from unskew.train.rows import Row
from unskew.train.siblings import MOST_SIBLINGS, Siblings, find_siblings, in_target

SHAPE = (2, 3, 3)


def row(picture: int, value: str, text: str = "a cook", weight: float = 1.0) -> Row:
    values = {"presentation": value}
    return Row(picture + 1, Path(f"{picture}.png"), text, "neutral", "cook", values, "x", weight)


def encoded(pictures: int, seed: int = 0) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    return Encoded(
        {Path(f"{n}.png"): torch.randn(2, *SHAPE, generator=generator) for n in range(pictures)}, {}
    )


def family(values: list[str], weights: list[float], seed: int = 0) -> Siblings:
    rows = [row(n, v, weight=w) for n, (v, w) in enumerate(zip(values, weights, strict=True))]
    return Siblings.of([(r, 1 / len(rows)) for r in rows], encoded(len(rows), seed))


def posterior(kin: Siblings, weights: list[float], noisy: torch.Tensor, alpha_bar: float):
    """p(picture | noisy) by scipy's Gaussian densities, in float64."""
    densities = [
        multivariate_normal.logpdf(
            noisy.flatten().double().numpy(),
            mean=alpha_bar**0.5 * latents.flatten().double().numpy(),
            cov=1 - alpha_bar,
        )
        for latents in kin.latents_n
    ]
    evidence = np.log(weights) + np.array(densities)
    shares = np.exp(evidence - evidence.max())
    return shares / shares.sum()


@given(
    values=st.lists(st.sampled_from(["woman", "man", "person"]), min_size=1, max_size=8),
    alpha_bar=st.floats(0, 0.999),
    seed=st.integers(0, 100),
)
def test_the_shift_has_mean_zero(values: list[str], alpha_bar: float, seed: int) -> None:
    """Averaged over the pictures that the noisy one could have been, nothing is moved."""
    weights = [1.0 + n % 3 for n in range(len(values))]
    kin = family(values, weights, seed)
    noisy = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed + 1))
    shares = posterior(kin, weights, noisy, alpha_bar)
    shifts = [kin.shift_chw(noisy, own, torch.tensor(alpha_bar)) for own in kin.values]
    mean = sum(share * shift.double() for share, shift in zip(shares, shifts, strict=True))
    np.testing.assert_allclose(mean, 0, atol=2e-4)


def test_siblings_that_are_drawn_as_they_are_have_one_target() -> None:
    """A base that draws each picture exactly gives one target: the mean of what it could be."""
    values, weights = ["woman", "man", "person"], [1.0, 2.0, 0.5]
    kin = family(values, weights)
    for alpha_bar in (0.0, 0.05, 0.3):
        noisy = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))
        shares = posterior(kin, weights, noisy, alpha_bar)
        expected = sum(s * x.double() for s, x in zip(shares, kin.latents_n, strict=True))
        for own, latents in zip(kin.values, kin.latents_n, strict=True):
            target = latents + kin.shift_chw(noisy, own, torch.tensor(alpha_bar))
            np.testing.assert_allclose(target.double(), expected, atol=1e-4)


def test_an_only_child_is_left_alone() -> None:
    """A caption that no other picture shares keeps its target to the bit, at any noise."""
    kin = family(["woman"], [1.0])
    for alpha_bar in (0.0, 0.5, 0.999):
        shift = kin.shift_chw(torch.ones(SHAPE), {"presentation": "woman"}, torch.tensor(alpha_bar))
        assert torch.equal(shift, torch.zeros(SHAPE))


def test_clear_pictures_are_left_alone() -> None:
    """Where little noise is left, the picture itself is the only one it could have been."""
    kin = family(["woman", "man"], [1.0, 1.0])
    alpha_bar = torch.tensor(0.999)
    shift = kin.shift_chw(alpha_bar.sqrt() * kin.latents_n[0], kin.values[0], alpha_bar)
    np.testing.assert_allclose(shift, 0, atol=1e-6)


def test_a_row_without_weight_harms_no_one() -> None:
    """Weight 0 takes a picture out of what the others could have been, and makes no NaN."""
    noisy, alpha_bar = torch.ones(SHAPE), torch.tensor(0.1)
    with_it = family(["woman", "man", "person"], [1.0, 1.0, 0.0])
    without = family(["woman", "man"], [1.0, 1.0])
    for own in without.values:
        expected = without.shift_chw(noisy, own, alpha_bar)
        torch.testing.assert_close(with_it.shift_chw(noisy, own, alpha_bar), expected)
    assert with_it.shift_chw(noisy, with_it.values[2], alpha_bar).isfinite().all()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_shift_of_the_picture_is_one_of_the_prediction(kind: str) -> None:
    """A prediction moved by `in_target` gives a picture that is moved by the shift."""
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    scheduler.set_timesteps(1000)
    generator = torch.Generator().manual_seed(0)
    noisy, prediction, shift = (torch.randn(SHAPE, generator=generator) for _ in range(3))
    for timestep in (10, 500, 900):
        alpha_bar = scheduler.alphas_cumprod[timestep]
        moved = prediction + in_target(scheduler, shift, alpha_bar)
        before, after = (
            scheduler.step(p, timestep, noisy).pred_original_sample for p in (prediction, moved)
        )
        torch.testing.assert_close(after - before, shift, atol=1e-3, rtol=1e-3)


def test_siblings_share_subject_and_words_at_the_decks_rates() -> None:
    """Rates are the target's, however many pictures a value has; other words are other siblings."""
    attribute = load_attribute("presentation")
    values = ["woman", "man", "person", "person"]
    rows = [
        row(picture, value, text)
        for text, (picture, value) in itertools.product(["a cook", "one"], enumerate(values))
    ]
    decks = build_decks(rows, {"presentation": attribute}, seed=0)
    found = find_siblings(decks, encoded(4))
    assert set(found) == {("cook", text, (2, *SHAPE)) for text in ("a cook", "one")}
    rates = found["cook", "one", (2, *SHAPE)].log_rates_n.softmax(0)
    by_value = {
        v: sum(
            r
            for k, r in zip(found["cook", "one", (2, *SHAPE)].values, rates, strict=True)
            if k["presentation"] == v
        )
        for v in values
    }
    assert {v: pytest.approx(float(s)) for v, s in by_value.items()} == dict.fromkeys(values, 1 / 3)


def test_captions_of_too_many_pictures_and_pictures_not_encoded_are_left_out() -> None:
    """What would cost too much has no siblings; a dry run encodes a few pictures only."""
    values = ["woman", "man", "person"]
    many = [row(n, values[n % 3]) for n in range(MOST_SIBLINGS + 1)]
    decks = build_decks(many, {"presentation": load_attribute("presentation")}, seed=0)
    assert find_siblings(decks, encoded(len(many))) == {}
    assert len(find_siblings(decks, encoded(7))["cook", "a cook", (2, *SHAPE)].values) == 7
