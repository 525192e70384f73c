"""Promises of shares by prediction-powered inference."""

from dataclasses import replace

import numpy as np
import pytest

from unskew.evaluate.labelled_shares import (
    LabelledArm,
    labelled_shares,
    labels_needed,
    share_shift,
)

PPI_PYTHON_SHARES = [0.260668, 0.613688, 0.125644]
PPI_PYTHON_CI95 = [[0.205830, 0.546880, 0.073989], [0.315506, 0.680495, 0.177299]]
"""ppi_mean_pointestimate and ppi_mean_ci of ppi-python 0.2.3 (lam=None) on `made_up`."""


def made_up(n_pictures=1000, n_labels=120):
    """1,000 pictures of three values read with 15 % errors, the first 120 labelled."""
    rng = np.random.default_rng(7)
    truth = rng.choice(3, n_pictures, p=[0.25, 0.6, 0.15])
    wrong = rng.random(n_pictures) < 0.15
    read = np.where(wrong, (truth + rng.integers(1, 3, n_pictures)) % 3, truth)
    labels = np.where(np.arange(n_pictures)[:, None] < n_labels, np.eye(3)[truth], np.nan)
    return LabelledArm(
        codes_n=read,
        weight_n=np.full(n_pictures, 1 / n_pictures),
        clusters_n=np.arange(n_pictures),
        labels_nk=labels,
        label_weight_n=np.ones(n_pictures),
    )


def test_shares_are_those_of_ppi_python():
    """Point and interval agree with the authors' package, up to its n - 1 and our allowance."""
    found = labelled_shares(made_up(), 1000, independent=True)
    assert [s.value for s in found.shares] == pytest.approx(PPI_PYTHON_SHARES, abs=2e-4)
    half = [(s.hi - s.lo) / 2 for s in found.shares]
    theirs = (np.array(PPI_PYTHON_CI95[1]) - PPI_PYTHON_CI95[0]) / 2
    allowance = 1.96 * np.sqrt(2) / 120
    assert np.hypot(theirs, allowance) == pytest.approx(half, rel=0.03)


def test_shares_sum_to_one():
    """One lambda for all values keeps them a distribution."""
    found = labelled_shares(made_up(), 1000, independent=True)
    assert sum(s.value for s in found.shares) == pytest.approx(1)
    assert 0 < found.trust < 1


def test_all_labelled_is_the_labels_own_share():
    """With every picture labelled the readings do not matter."""
    arm = made_up(n_labels=1000)
    found = labelled_shares(arm, 1000, independent=True)
    assert [s.value for s in found.shares] == pytest.approx(arm.labels_nk.mean(0).tolist())


def test_cannot_tell_is_no_value():
    """Shares are of the pictures that can be told, and how many cannot is said."""
    arm = made_up(n_labels=1000)
    labels = arm.labels_nk.copy()
    labels[::4] = 0
    found = labelled_shares(replace(arm, labels_nk=labels), 1000, independent=True)
    told = np.delete(arm.labels_nk, np.s_[::4], axis=0).mean(0)
    assert [s.value for s in found.shares] == pytest.approx(told.tolist())
    assert found.cannot_tell == pytest.approx(0.25)


def test_labels_without_a_surprise_still_leave_room():
    """That none of 60 labels differs from its reading leaves about 3 / 60 possible."""
    arm = made_up(n_labels=60)
    labels = np.where(np.isfinite(arm.labels_nk), np.eye(3)[arm.codes_n], np.nan)
    found = labelled_shares(replace(arm, labels_nk=labels), 1000, independent=True)
    for share in found.shares:
        assert share.hi - share.value >= 0.045


def test_sampling_weights_are_used():
    """A stratum labelled twice as often does not count twice."""
    rng = np.random.default_rng(3)
    n = 4000
    stratum = np.arange(n) % 2
    truth = np.where(stratum == 0, 0, 1)
    labelled = rng.random(n) < np.where(stratum == 0, 0.2, 0.1)
    arm = LabelledArm(
        codes_n=np.zeros(n, np.int64),
        weight_n=np.full(n, 1 / n),
        clusters_n=np.arange(n),
        labels_nk=np.where(labelled[:, None], np.eye(2)[truth], np.nan),
        label_weight_n=1 / np.where(stratum == 0, 0.2, 0.1),
    )
    found = labelled_shares(arm, n, independent=True)
    assert found.shares[0].value == pytest.approx(0.5, abs=0.05)
    unweighted = labelled_shares(replace(arm, label_weight_n=np.ones(n)), n, independent=True)
    assert unweighted.shares[0].value > 0.6


def test_the_same_arm_twice_has_no_shift():
    """Its value is 0 and its interval holds only what too few labels allow."""
    found = labelled_shares(made_up(), 1000, independent=True)
    for shift in share_shift(found, found, independent=True):
        assert shift.value == 0
        assert -0.05 < shift.lo < 0 < shift.hi < 0.05


def test_too_few_labels_are_refused():
    """Nine labels are no sample."""
    with pytest.raises(ValueError, match="9 labels"):
        labelled_shares(made_up(n_labels=9), 1000)


def test_how_many_labels_a_precision_needs():
    """About 1,200 for +-2 points at Se .90 and Sp .85: 1.96 * .35 / sqrt(1200) = .0198."""
    assert labels_needed(0.35, 0.02) == 1177
