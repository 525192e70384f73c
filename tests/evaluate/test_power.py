"""Power: what a study can see, and what would settle one that saw nothing."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from unskew.evaluate.power import (
    Outlook,
    Variance,
    expect,
    observed_variance,
    power,
    settling,
    skew_spread,
    smallest_change,
)
from unskew.evaluate.spread import prompt_sums
from unskew.evaluate.stats import cluster_estimates, count_values, imbalance

TWO = Outlook((0.5, 0.5))
FIVE = Outlook((0.3, 0.25, 0.2, 0.15, 0.1), baseline=0.2, correlation=0.8)


def draw(outlook, kept, n_studies, n_prompts, n_seeds, rng):
    """(a, studies, p, s) readings, drawn as the outlook says."""
    before = skew_spread(outlook) * rng.normal(size=(n_studies, n_prompts, 1))
    after = kept * before + outlook.unevenness * rng.normal(size=before.shape)
    noise = rng.normal(size=(2, n_studies, n_prompts, n_seeds))
    noise[1] = outlook.correlation * noise[0] + np.sqrt(1 - outlook.correlation**2) * noise[1]
    share = np.cumsum(outlook.target)[:-1]
    cuts = np.quantile(np.random.default_rng(0).normal(size=2_000_000), share)
    return np.searchsorted(cuts, np.stack([before, after]) + noise)


def changes(codes, outlook):
    target = np.tile(outlook.target, (codes.shape[2], 1))
    before, after = (imbalance(count_values(arm, len(outlook.target)), target) for arm in codes)
    return after - before


@pytest.mark.parametrize(("effect", "n"), [(0.2, 20), (0.5, 30), (1.0, 12)])
def test_power_is_that_of_students_test(effect, n):
    """The same as statsmodels' power of a paired t-test, for its one right side."""
    both = TTestPower().power(effect, n, 0.05, alternative="two-sided")
    wrong = TTestPower().power(-effect, n, 0.025, alternative="larger")
    assert power(-effect, 1 / np.sqrt(n), n) == pytest.approx(both - wrong, abs=1e-6)
    assert power(0.0, 1.0, n) == pytest.approx(0.025)
    assert power(-1.0, 1e-3, n) == 1


def test_skewed_changes_are_seen_more_often_when_the_tail_lies_beyond_them():
    """Of exponential changes, drawn 20,000 times, Student's test finds as many as was computed."""
    rng = np.random.default_rng(0)
    for sign in (1, -1):
        drawn = 0.45 + sign * (rng.exponential(size=(20_000, 30)) - 1)
        t = drawn.mean(1) / (drawn.std(1, ddof=1) / np.sqrt(30))
        found = (t > stats.t.ppf(0.975, 29)).mean()
        expected = power(0.45, 1 / np.sqrt(30), 30, 2.0 * sign, 6.0)
        assert expected == pytest.approx(found, abs=0.05)


@pytest.mark.parametrize("outlook", [TWO, FIVE])
@pytest.mark.parametrize("kept", [0.0, 0.6])
def test_the_expected_change_and_its_variance_are_those_of_drawn_studies(outlook, kept):
    """20,000 prompts drawn from the population change and vary as was computed."""
    expected = expect(outlook, skew_spread(outlook), kept)
    codes = draw(outlook, kept, 1, 20_000, 6, np.random.default_rng(0))
    found = changes(codes, outlook)[0]
    assert found.mean() == pytest.approx(expected.change, abs=4 * found.std() / 20_000**0.5)
    assert expected.variance.of_mean(1, 6) == pytest.approx(found.var(), rel=0.05)
    assert expected.shape(6) == pytest.approx((stats.skew(found), stats.kurtosis(found)), abs=0.5)


def test_the_baseline_is_as_skewed_as_was_said():
    """The spread of skews is chosen so that the mean imbalance is the given one."""
    codes = draw(TWO, 1.0, 1, 20_000, 10, np.random.default_rng(1))
    target = np.tile(TWO.target, (20_000, 1))
    assert imbalance(count_values(codes[0, 0], 2), target).mean() == pytest.approx(0.4, abs=0.01)


def test_a_baseline_that_cannot_be_is_told():
    """With a target of .9 / .1 half of the prompts are near it whatever they show."""
    with pytest.raises(ValueError, match=r"under 0\.5"):
        smallest_change(Outlook((0.9, 0.1), baseline=0.8), 20, 20)


def test_more_prompts_seeds_and_pairing_see_smaller_changes():
    """Each makes a study sharper; a tiny one sees nothing at all."""
    few = smallest_change(TWO, 20, 10)
    sharper = [
        smallest_change(TWO, 50, 10),
        smallest_change(TWO, 20, 40),
        smallest_change(Outlook((0.5, 0.5), correlation=0.9), 20, 10),
    ]
    assert all(few.change < other.change < 0 for other in sharper)
    assert few.share == pytest.approx(-few.change / 0.4)
    assert smallest_change(TWO, 4, 4) is None


@pytest.mark.slow
@pytest.mark.parametrize("outlook", [TWO, FIVE])
def test_the_smallest_change_is_seen_in_four_of_five_studies(outlook):
    """Of 1,000 studies with that change 74 to 86 % have an interval that excludes 0."""
    found = smallest_change(outlook, 30, 20)
    codes = draw(outlook, found.kept, 1_000, 30, 20, np.random.default_rng(2))
    estimates = cluster_estimates(changes(codes, outlook), 0, 1.0)
    assert estimates.value.mean() == pytest.approx(found.change, abs=0.01)
    assert 0.74 < (estimates.hi < 0).mean() < 0.86


def test_the_variance_of_a_study_is_told_apart():
    """On average over studies the parts are those of the population that they were drawn from."""
    expected = expect(TWO, skew_spread(TWO), 0.5).variance
    codes = draw(TWO, 0.5, 200, 40, 12, np.random.default_rng(3))
    found = [
        observed_variance(
            changes(codes[:, [n]], TWO)[0],
            prompt_sums(codes[:, n], np.tile(TWO.target, (40, 1))),
            np.arange(40),
            12,
        )
        for n in range(200)
    ]
    parts = np.array([(v.between, v.linear, v.quadratic) for v in found])
    # `between` is cut off at 0, so its mean lies a little above; its median does not.
    assert parts[:, 1:].mean(0) == pytest.approx((expected.linear, expected.quadratic), rel=0.1)
    assert np.median(parts[:, 0]) == pytest.approx(expected.between, abs=0.01)


def test_prompts_of_one_subject_share_their_variance():
    """Two wordings of a subject halve what seeds add to the subject's mean."""
    codes = draw(TWO, 0.5, 1, 40, 12, np.random.default_rng(4))
    sums = prompt_sums(codes[:, 0], np.tile(TWO.target, (40, 1)))
    alone = observed_variance(np.zeros(40), sums, np.arange(40), 12)
    paired = observed_variance(np.zeros(20), sums, np.arange(40) // 2, 12)
    assert paired.linear == pytest.approx(alone.linear / 2)


@pytest.mark.parametrize("value", [-0.2, -0.04, 0.0])
def test_what_is_said_to_settle_a_study_does(value):
    """With that many, four of five estimates exclude 0 or lie within the margin; with fewer not."""
    variance, margin = Variance(0.05, 1.0, 2.0), 0.05
    found = settling(value, variance, margin, 12, 10)

    def settled(n_prompts, n_seeds):
        rng = np.random.default_rng(0)
        error = variance.of_mean(n_prompts, n_seeds) ** 0.5
        drawn = value + error * rng.normal(size=40_000)
        half = stats.t.ppf(0.975, n_prompts - 1) * error
        return ((np.abs(drawn) > half) | (np.abs(drawn) + half <= margin)).mean()

    assert found.prompts > 12
    assert settled(found.prompts, 10) == pytest.approx(0.8, abs=0.03)
    assert settled(found.prompts // 2, 10) < 0.78


def test_more_seeds_do_not_make_up_for_prompts_that_differ():
    """Where the prompts' own differences are too large no number of seeds is given."""
    differ = settling(-0.05, Variance(0.2, 1.0, 1.0), 0.05, 15, 10)
    alike = settling(-0.05, Variance(0.0, 1.0, 1.0), 0.05, 15, 10)
    assert differ.seeds is None
    assert alike.seeds > 10
    fixed = settling(-0.05, Variance(0.0, 1.0, 1.0), 0.05, None, 10)
    assert fixed.prompts is None
    assert fixed.seeds > 10
