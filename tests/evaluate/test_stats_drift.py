"""Drift: the distance that other seeds do not explain."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from unskew.evaluate.drift import distance_between_prompts, excess_distance, negated_kernel

ORACLES = Path(__file__).parents[1] / "oracles"
slow = SimpleNamespace(**runpy.run_path(str(ORACLES / "slow_statistics.py")))


@pytest.mark.parametrize("n_seeds", [4, 5, 6])
def test_excess_is_the_average_over_all_ways_to_halve_the_seeds(n_seeds):
    """The closed form equals: distance to the baseline's other half, less the baseline's own."""
    baseline, treated = np.random.default_rng(n_seeds).normal(size=(2, 3, n_seeds, 4))
    treated += 0.3
    expected = [slow.drift(b.tolist(), t.tolist()) for b, t in zip(baseline, treated, strict=True)]
    np.testing.assert_allclose(excess_distance(baseline, treated)[:, 0], expected)


def test_leaving_out_a_seed_is_computing_without_it():
    """The jackknife's columns are the excess of the shortened sets."""
    baseline, treated = np.random.default_rng(0).normal(size=(2, 2, 6, 3))
    found = excess_distance(baseline, treated)
    for s in range(6):
        shorter = [np.delete(arm, s, axis=1) for arm in (baseline, treated)]
        np.testing.assert_allclose(found[:, 1 + s], excess_distance(*shorter)[:, 0], atol=1e-12)


def test_identical_arms_have_exactly_no_drift():
    """Not nearly 0: 0, whatever the features."""
    baseline = np.random.default_rng(0).normal(size=(5, 7, 9))
    assert not excess_distance(baseline, baseline.copy()).any()


def test_other_seeds_of_the_same_model_are_no_drift_and_the_same_seeds_hide_none():
    """Redrawing every picture alike reads 0 on average; moving all by a step reads the step."""
    rng = np.random.default_rng(0)
    baseline = rng.normal(size=(400, 8, 3))
    redrawn = excess_distance(baseline, rng.normal(size=(400, 8, 3)))[:, 0]
    assert abs(redrawn.mean()) < 3 * redrawn.std() / 20
    assert redrawn.min() < 0
    far = excess_distance(baseline, baseline + np.array([100.0, 0, 0]))[:, 0]
    np.testing.assert_allclose(far.mean(), 200, rtol=0.1)


def test_unit_is_the_distance_between_two_prompts():
    """An arm that shows another prompt's pictures has drifted by about 1."""
    rng = np.random.default_rng(1)
    places = rng.normal(size=(12, 1, 6)) * 5
    baseline, other = places + rng.normal(size=(2, 12, 10, 6))
    shifted = np.roll(other, 1, axis=0)
    unit = distance_between_prompts(baseline)
    pairs = [
        slow.energy(baseline[i].tolist(), baseline[j].tolist())
        for i in range(12)
        for j in range(12)
        if i != j
    ]
    assert unit == pytest.approx(np.mean(pairs))
    assert excess_distance(baseline, shifted)[:, 0].mean() / unit == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("n_seeds", [4, 5])
def test_kernel_excess_is_the_unbiased_discrepancy_over_all_halves(n_seeds):
    """By the same closed form: between halves of the arms, less the baseline's own; seeds out."""
    baseline, treated = np.random.default_rng(n_seeds).normal(size=(2, 3, n_seeds, 4))
    treated += 0.3
    found = excess_distance(baseline, treated, negated_kernel)
    expected = [
        slow.drift(b.tolist(), t.tolist(), slow.kernel)
        for b, t in zip(baseline, treated, strict=True)
    ]
    np.testing.assert_allclose(found[:, 0], expected)
    shorter = [np.delete(arm, 1, axis=1) for arm in (baseline, treated)]
    np.testing.assert_allclose(found[:, 2], excess_distance(*shorter, negated_kernel)[:, 0])
    assert not excess_distance(baseline, baseline.copy(), negated_kernel).any()


def test_unit_of_the_kernel_distance_is_that_between_two_prompts():
    """The mean of the unbiased discrepancies, where it tells the prompts apart; else 0."""
    rng = np.random.default_rng(1)
    baseline = rng.normal(size=(4, 1, 5)) * 2 + rng.normal(size=(4, 6, 5))
    pairs = [
        slow.kernel(baseline[i].tolist(), baseline[j].tolist())
        for i in range(4)
        for j in range(4)
        if i != j
    ]
    unit = distance_between_prompts(baseline, negated_kernel)
    assert unit == pytest.approx(np.mean(pairs))
    assert distance_between_prompts(np.ones((3, 4, 5)), negated_kernel) == pytest.approx(0)
