"""The variance of an imbalance: its parts are unbiased, whatever is shown and however few seeds."""

from itertools import product

import numpy as np
import pytest

from unskew.evaluate.spread import mean_sums, prompt_sums
from unskew.evaluate.stats import count_values, imbalance, imbalance_without_each_seed

TARGET = np.array([[0.7, 0.3]])
JOINTS = {
    "skewed": [[0.5, 0.2], [0.1, 0.2]],
    "on target": [[0.5, 0.2], [0.2, 0.1]],
    "alike": [[0.6, 0.0], [0.0, 0.4]],
}


def every_outcome(joint_kl, n_seeds):
    """(a, outcomes, s) codes of every way that n seeds can come out, and its probability."""
    outcomes = np.array(list(product(range(4), repeat=n_seeds)))
    chance = np.prod(np.array(joint_kl).ravel()[outcomes], axis=1)
    return np.stack([outcomes // 2, outcomes % 2]), chance


@pytest.mark.parametrize("name", JOINTS)
@pytest.mark.parametrize("n_seeds", [4, 5])
def test_the_parts_add_up_to_the_variance(name, n_seeds):
    """Averaged over every outcome, linear + quadratic is the exact variance of the change."""
    codes, chance = every_outcome(JOINTS[name], n_seeds)
    target = np.repeat(TARGET, codes.shape[1], axis=0)
    before, after = (imbalance(count_values(arm, 2), target) for arm in codes)
    change = after - before
    variance = chance @ change**2 - (chance @ change) ** 2
    sums = prompt_sums(codes, target)
    # Within the rounding of `quadratic`, which is set to 0 where a sample reads below it.
    n = sums.n_seeds
    quadratic = 2 * (sums.pairs - 2 * sums.rows / (n - 2)) * (n - 1) / (n - 3)
    linear = sums.jackknife - 2 * (n - 1) / (n - 2) * quadratic
    assert chance @ (linear + quadratic) == pytest.approx(variance, abs=1e-12)


def test_on_target_all_is_quadratic():
    """Where the shown shares are the wanted ones, no seed's own value moves the imbalance."""
    codes, chance = every_outcome([[0.49, 0.21], [0.21, 0.09]], 5)
    sums = prompt_sums(codes[:1], np.repeat(TARGET, codes.shape[1], axis=0))
    n = sums.n_seeds
    quadratic = 2 * (sums.pairs - 2 * sums.rows / (n - 2)) * (n - 1) / (n - 3)
    linear = sums.jackknife - 2 * (n - 1) / (n - 2) * quadratic
    assert chance @ linear == pytest.approx(0, abs=1e-12)
    assert chance @ quadratic > 0.01


def test_the_jackknife_is_leaving_out_one_seed_after_another():
    """From the pairs or from the shortened lists, with every picture readable it is one number."""
    codes = np.random.default_rng(0).integers(0, 3, (2, 7, 9))
    target = np.tile([0.5, 0.3, 0.2], (7, 1))
    without = imbalance_without_each_seed(codes[1], target)
    without = without - imbalance_without_each_seed(codes[0], target)
    expected = 8 / 9 * ((without - without.mean(1, keepdims=True)) ** 2).sum(1)
    np.testing.assert_allclose(prompt_sums(codes, target).jackknife, expected)
    mean = mean_sums(codes, target, np.full(7, 1 / 7)).jackknife
    without = without.mean(0)
    assert mean == pytest.approx(8 / 9 * ((without - without.mean()) ** 2).sum())


def test_unreadable_pictures_add_no_variance_of_their_own():
    """A prompt of one value alone is certain, however many of its pictures cannot be read."""
    codes = np.zeros((1, 1, 12), np.int64)
    codes[..., ::3] = -1
    sums = prompt_sums(codes, TARGET)
    assert (sums.n_seeds, sums.jackknife, sums.quadratic) == (8, 0, 0)


def test_many_prompts_and_studies_at_once_are_each_by_itself():
    """Cutting the work into parts, or putting studies side by side, changes no number."""
    rng = np.random.default_rng(1)
    codes = rng.integers(-1, 2, (2, 5, 6, 10))
    target = np.tile(TARGET, (6, 1))
    weights = rng.dirichlet(np.ones(6))
    together = prompt_sums(codes, target), mean_sums(codes, target, weights)
    for study in range(5):
        alone = prompt_sums(codes[:, study], target), mean_sums(codes[:, study], target, weights)
        for one, all_of_them in zip(alone, together, strict=True):
            np.testing.assert_allclose(one.jackknife, all_of_them.jackknife[study])
            np.testing.assert_allclose(one.quadratic, all_of_them.quadratic[study])
