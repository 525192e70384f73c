"""Calibration: intervals cover as often as they say, and nothing is found where nothing is."""

import numpy as np
import pytest
from scipy import stats

from unskew.evaluate.rates import paired_rate_change
from unskew.evaluate.stats import (
    cluster_estimate,
    count_values,
    imbalance,
    imbalance_without_each_seed,
    seed_estimate,
)

STUDIES = 300
SEED = 77  # of its own: what is drawn with fewer resamples is cached by its seed
UNIFORM = np.array([[0.5, 0.5]])


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch):
    monkeypatch.setattr("unskew.evaluate.stats.RESAMPLES", 1_999)


def draw(rng, baseline_p, treated_p, n_seeds):
    """(arm, p, s) readings of two values; the same seeds' noise is correlated by a half."""
    noise = rng.normal(size=(2, len(baseline_p), n_seeds))
    noise[1] = 0.5 * noise[0] + 0.75**0.5 * noise[1]
    return (np.stack([baseline_p, treated_p])[..., None] + noise > 0).astype(int)


def skew(rng, kind, n):
    """Latent skew of n prompts drawn from a population, before and after."""
    z = rng.normal(size=n)
    if kind == "null":
        return 1.5 * z, 1.5 * z
    if kind == "null, saturated":
        return np.sign(z) * 2.2 + 0.2 * z, np.sign(z) * 2.2 + 0.2 * z
    if kind == "most prompts mended":
        return 1 + z, np.where(rng.random(n) < 0.7, 0.2 * z, 1 + z)
    return 1.5 * z, 0.3 * z + 0.2 * rng.normal(size=n)


def true_change(kind):
    before, after = stats.norm.cdf(skew(np.random.default_rng(1), kind, 1_000_000))
    return ((2 * after - 1) ** 2 - (2 * before - 1) ** 2).mean()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["null", "null, saturated", "mended", "most prompts mended"])
@pytest.mark.parametrize(("n_prompts", "n_seeds"), [(12, 20), (20, 10), (50, 20)])
def test_prompt_intervals_cover_the_population(kind, n_prompts, n_seeds):
    """Of 300 studies at least 92 % of 95 % intervals hold the truth; null p-values are honest."""
    rng = np.random.default_rng(n_prompts)
    truth, covered, found = true_change(kind), 0, 0
    for _ in range(STUDIES):
        codes = draw(rng, *skew(rng, kind, n_prompts), n_seeds)
        change = np.diff(imbalance(count_values(codes, 2), UNIFORM), axis=0)[0]
        estimate = cluster_estimate(change, SEED, limit=1.0)
        covered += estimate.lo <= truth <= estimate.hi
        found += estimate.p_value <= 0.05
    assert covered >= 0.92 * STUDIES
    if kind.startswith("null"):
        assert found <= 0.08 * STUDIES


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [8, 20])
@pytest.mark.parametrize("treated", [[1.0, 0.5, -1.0], [0.2, 0.0, -0.4]])
def test_seed_intervals_cover_these_prompts(treated, n_seeds):
    """With three prompts the interval speaks of them, and covers their own truth."""
    rng = np.random.default_rng(n_seeds)
    before, after = np.array([1.0, 0.5, -1.0]), np.array(treated)
    truth = np.subtract(*((2 * stats.norm.cdf(z) - 1) ** 2 for z in (after, before))).mean()
    covered = 0
    for _ in range(STUDIES):
        codes = draw(rng, before, after, n_seeds)
        read = imbalance(count_values(codes, 2), UNIFORM).mean(-1)
        without = [imbalance_without_each_seed(arm, UNIFORM).mean(0) for arm in codes]
        estimate = seed_estimate(float(read[1] - read[0]), without[1] - without[0], 1.0)
        covered += estimate.lo <= truth <= estimate.hi
    assert covered >= 0.92 * STUDIES


@pytest.mark.slow
@pytest.mark.parametrize(("n_subjects", "n_seeds"), [(12, 20), (50, 10)])
def test_a_loss_at_the_margin_is_rarely_called_kept(n_subjects, n_seeds):
    """A true loss of exactly 3 points passes as kept in at most 5 % of studies (2.5 % nominal)."""
    rng = np.random.default_rng(0)
    kept = 0
    for _ in range(STUDIES):
        baseline = rng.random((n_subjects, n_seeds)) < 0.98
        treated = baseline & (rng.random((n_subjects, n_seeds)) >= 0.03 / 0.98)
        change = paired_rate_change(baseline, treated, np.arange(n_subjects), fixed=False)
        kept += change.lo > -0.03
    assert kept <= 0.05 * STUDIES
