"""Promises of the correction of imbalance by a confusion matrix."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unskew.evaluate.correction import (
    Arm,
    corrected_change,
    corrected_imbalance,
    corrected_shares,
    information,
    inverse_of,
    moments,
    reading_rates,
    why_not,
)
from unskew.evaluate.stats import imbalance

ALIKE = np.array([[90.0, 10.0], [15.0, 85.0]])
THREE = np.array([[80.0, 15.0, 5.0], [10.0, 85.0, 5.0], [5.0, 20.0, 75.0]])


def one(counts, target, rates):
    """Corrected imbalance of one prompt's counts."""
    found = moments(np.array([counts]), np.array([target]), np.array([0]))
    return float(found.distance(inverse_of(rates))[0])


@given(
    counts=st.lists(st.integers(0, 20), min_size=2, max_size=5).filter(lambda c: sum(c) >= 2),
    seed=st.integers(0, 99),
)
def test_a_faultless_classifier_is_not_corrected(counts, seed):
    """With the identity matrix the corrected imbalance is the imbalance."""
    target = np.random.default_rng(seed).dirichlet(np.ones(len(counts)))
    expected = imbalance(np.array(counts), target)
    assert one(counts, target, np.eye(len(counts))) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("shares", "target", "calibration"),
    [
        ([0.2, 0.8], [0.5, 0.5], ALIKE),
        ([0.5, 0.5], [0.5, 0.5], ALIKE),
        ([0.1, 0.6, 0.3], [0.2, 0.3, 0.5], THREE),
    ],
)
def test_no_bias_when_the_matrix_is_known(shares, target, calibration):
    """Its mean over every possible reading of 4 pictures is exactly the true imbalance."""
    rates, p = reading_rates(calibration), np.array(shares)
    read = rates.T @ p
    n_values = len(p)
    mean = sum(
        float(np.prod(read[list(codes)]))
        * one(np.bincount(codes, minlength=n_values), target, rates)
        for codes in itertools.product(range(n_values), repeat=4)
    )
    q = np.array(target)
    truth = ((p - q) ** 2).sum() / (1 - 2 * q.min() + (q**2).sum())
    assert mean == pytest.approx(truth, abs=1e-12)


def test_two_values_are_rogan_and_gladen():
    """The corrected share is (p' + Sp - 1) / (Se + Sp - 1)."""
    codes = np.array([[0] * 11 + [1] * 9])
    target, clusters = np.array([[0.5, 0.5]]), np.array([0])
    share = corrected_shares(Arm(codes, ALIKE), target, clusters)[0]
    assert share == pytest.approx((0.55 + 0.85 - 1) / 0.75)


def test_information_of_two_values_is_youdens():
    """Se + Sp - 1; 1 for a faultless reader, 0 for one that says nothing or says the opposite."""
    assert information(reading_rates(ALIKE)) == pytest.approx(0.75)
    assert information(np.eye(4)) == pytest.approx(1.0)
    assert information(np.full((3, 3), 1 / 3)) == 0
    assert information(np.array([[0.1, 0.9], [0.8, 0.2]])) == 0


@given(seed=st.integers(0, 500))
def test_information_bounds_what_readings_keep(seed):
    """No difference of two distributions shrinks by more in the readings, and one by as much."""
    rng = np.random.default_rng(seed)
    rates = 0.6 * np.eye(4) + 0.4 * rng.dirichlet(np.ones(4), 4)
    kept = information(rates)
    x = rng.dirichlet(np.ones(4), 300) - rng.dirichlet(np.ones(4), 300)
    ratios = np.abs(x @ rates).sum(1) / np.abs(x).sum(1)
    assert ratios.min() >= kept - 1e-9
    inverse = inverse_of(rates)
    worst = max(
        (inverse[:, i] - inverse[:, j] for i, j in itertools.combinations(range(4), 2)),
        key=lambda d: np.abs(d).sum(),
    )
    assert np.abs(worst @ rates).sum() / np.abs(worst).sum() == pytest.approx(kept)


def test_a_matrix_that_says_nothing_is_refused():
    """Too few labels of a value, or Se + Sp - 1 under .3, is a reason in words."""
    assert why_not(ALIKE, ("woman", "man")) is None
    assert "only 3 labelled pictures show 'man'" in str(
        why_not(np.array([[90.0, 10], [1, 2]]), ("woman", "man"))
    )
    assert "keep 0.20" in str(why_not(np.array([[60.0, 40], [40, 60]]), ("woman", "man")))


def study(rng, n_prompts=20, n_seeds=12):
    """Two arms of readings, the second nearer to parity."""
    p = rng.beta(2, 6, (n_prompts, 1))
    arms = [p, 0.5 + (p - 0.5) * 0.3]
    return [(rng.random((n_prompts, n_seeds)) > 0.1 + 0.75 * a).astype(np.int64) for a in arms]


def change(base, treated, *calibrations, shared, fixed=False):
    """Corrected change against parity."""
    arms = [Arm(base, calibrations[0]), Arm(treated, calibrations[-1])]
    target = np.full((len(base), 2), 0.5)
    clusters = np.arange(len(base))
    return corrected_change(*arms, target, clusters, shared=shared, fixed=fixed, seed=0)


@pytest.mark.parametrize("fixed", [False, True])
def test_identical_arms_change_nothing(fixed):
    """With one matrix for both the interval is [0, 0]; with one each their errors are in it."""
    base, _ = study(np.random.default_rng(0))
    same = change(base, base, ALIKE, shared=True, fixed=fixed)
    assert (same.value, same.lo, same.hi) == pytest.approx((0, 0, 0), abs=1e-9)
    each = change(base, base, ALIKE, shared=False, fixed=fixed)
    assert each.lo < 0 < each.hi


@pytest.mark.parametrize("fixed", [False, True])
def test_fewer_labels_make_wider_intervals(fixed):
    """The calibration's own error is in the interval, and more labels shrink it."""
    base, treated = study(np.random.default_rng(1))
    widths = []
    for scale in (0.3, 1.0, 100.0):
        found = change(base, treated, ALIKE * scale, shared=True, fixed=fixed)
        assert found.lo < found.value < found.hi
        widths.append(found.hi - found.lo)
    assert widths[0] > widths[1] > widths[2]


def test_an_arm_alone_has_its_imbalance():
    """The level of one arm is far over the raw one, which errors shrink by (Se + Sp - 1)^2."""
    base, _ = study(np.random.default_rng(2), n_prompts=60)
    target = np.full((60, 2), 0.5)
    counts = np.stack([(base == 0).sum(1), (base == 1).sum(1)], 1)
    raw = float(imbalance(counts, target).mean())
    found = corrected_imbalance(Arm(base, ALIKE * 50), target, np.arange(60), fixed=False, seed=0)
    assert found.value > raw / 0.75**2 * 0.9 > raw
