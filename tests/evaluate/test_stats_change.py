"""Change: its interval, its tests, its overshoot and its verdict."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from unskew.evaluate.rates import overshoot_p
from unskew.evaluate.stats import (
    Estimate,
    change_verdict,
    cluster_estimate,
    cluster_means,
    imbalance_without_each_seed,
    needed,
    overshoot,
    seed_estimate,
    sign_flip_p,
    unseen_change,
)
from unskew.evaluate.swaps import swap_p

ORACLES = Path(__file__).parents[1] / "oracles"
slow = SimpleNamespace(**runpy.run_path(str(ORACLES / "slow_statistics.py")))
UNIFORM = np.full((1, 2), 0.5)
differences = st.lists(st.integers(-20, 20).map(lambda n: n / 20), min_size=2, max_size=30)


def interval(estimate):
    return estimate.value, estimate.lo, estimate.hi, estimate.p_value


@given(differences)
@settings(max_examples=30, deadline=None)
def test_swapping_the_arms_flips_the_sign_of_everything_but_p(values):
    """Which arm is called the baseline must not decide how sure we are."""
    value, lo, hi, p = interval(cluster_estimate(np.array(values), seed=1))
    swapped = interval(cluster_estimate(-np.array(values), seed=1))
    assert swapped == pytest.approx((-value, -hi, -lo, p), abs=1e-9)


@given(differences, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_order_of_prompts_does_not_matter(values, random):
    """The same prompts in another order give the same row, to the last bit."""
    shuffled = random.sample(values, len(values))
    assert cluster_estimate(np.array(values), 1) == cluster_estimate(np.array(shuffled), 1)


def test_identical_arms_give_exactly_no_change():
    """A null study reads [0, 0] and p = 1, by prompts and by seeds."""
    for estimate in (cluster_estimate(np.zeros(20), 0), seed_estimate(0.0, np.zeros(8))):
        assert interval(estimate) == (0, 0, 0, 1)
        assert change_verdict(estimate, 0.05, 1.0) == "no_change"


def test_interval_is_students_or_wider_and_close_to_scipys_bca():
    """On well-behaved differences the bootstrap adds little, and BCa agrees within a tenth."""
    values = np.random.default_rng(3).normal(-0.3, 0.2, 60)
    found = cluster_estimate(values, 0)
    student = stats.t.interval(0.95, 59, values.mean(), stats.sem(values))
    assert found.lo <= student[0] + 1e-12
    assert found.hi >= student[1] - 1e-12
    bca = stats.bootstrap((values,), np.mean, method="BCa", rng=0).confidence_interval
    width = bca.high - bca.low
    assert (found.lo, found.hi) == pytest.approx(tuple(bca), abs=0.1 * width)


def test_interval_leans_to_the_side_of_the_long_tail():
    """Few prompts that changed much leave room for more of them: the side that Student's misses."""
    values = np.array([0.0] * 12 + [0.01, -0.01, 0.02] + [-0.9, -0.7, -1.0])
    found = cluster_estimate(values, 0)
    assert found.value - found.lo > 1.15 * (found.hi - found.value)


def test_with_many_prompts_the_interval_comes_back_to_students():
    """Past 15 prompts the bootstrap's reach counts 15/n: at 2,000 next to nothing."""
    values = np.random.default_rng(0).exponential(size=2_000)
    found = cluster_estimate(values, 0)
    student = stats.t.interval(0.95, 1_999, values.mean(), stats.sem(values))
    assert (found.lo, found.hi) == pytest.approx(student, abs=0.002 * (student[1] - student[0]))


def test_interval_stays_within_what_is_possible():
    """A mean of changes of at most 1 is never said to be beyond 1."""
    values = np.array([-1.0] * 9 + [0.0])
    assert cluster_estimate(values, 0).lo < -1
    assert cluster_estimate(values, 0, limit=1.0).lo == -1


def test_another_seed_moves_the_interval_little_and_the_same_seed_not_at_all():
    """Resampling is reproducible, and its own noise is small beside the interval."""
    values = np.random.default_rng(0).normal(-0.1, 0.3, 40)
    first, again, other = (cluster_estimate(values, seed) for seed in (0, 0, 1))
    assert first == again
    assert first.lo == pytest.approx(other.lo, abs=0.05 * (first.hi - first.lo))


@given(st.lists(st.integers(-10, 10), min_size=1, max_size=9))
def test_sign_flips_are_enumerated_for_few_prompts(values):
    """Up to 13 differences the p-value is exact: it equals listing every combination."""
    assert sign_flip_p(np.array([values], float), 0)[0] == pytest.approx(slow.sign_flip_p(values))


def test_drawn_sign_flips_agree_with_scipys_permutation_test():
    """Beyond that, draws come within their own error of scipy's, and are never 0."""
    values = np.random.default_rng(1).normal(0.12, 0.3, 30)
    scipys = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=9999, rng=0
    ).pvalue
    assert sign_flip_p(values[None], 0)[0] == pytest.approx(scipys, abs=0.006)
    assert sign_flip_p(np.full((1, 40), 0.5), 0)[0] == pytest.approx(1e-4)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=7))
@settings(deadline=None)
def test_a_prompts_p_value_is_that_of_swapping_every_seed(pairs):
    """Skipping the seeds that read alike loses nothing against swapping all of them."""
    baseline, treated = zip(*pairs, strict=True)
    target = [0.5, 0.3, 0.2]
    found = swap_p(np.array([baseline]), np.array([treated]), np.array([target]), 0)
    assert found[0] == pytest.approx(slow.swap_p(baseline, treated, target))


def test_a_prompt_without_pictures_has_no_evidence():
    """Unreadable pictures make no small p-value."""
    nothing = np.array([[-1, -1, 0]])
    assert swap_p(nothing, np.array([[0, 0, 0]]), UNIFORM, 0)[0] == 1


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 4), min_size=4, max_size=10))
def test_seed_jackknife_is_leaving_out_one_seed_after_another(rows):
    """The fixed-prompt interval has the error of deleting seed by seed and Student's quantile."""
    seeds = list(range(len(rows)))
    arms = np.array(rows).T.reshape(2, 2, -1)  # arm, prompt, seed
    target = np.array([[0.7, 0.3]] * 2)

    def change(kept):
        parts = [
            [slow.imbalance(arms[a, p][kept].tolist(), [0.7, 0.3]) for p in (0, 1)] for a in (0, 1)
        ]
        return float(np.mean(parts[1]) - np.mean(parts[0]))

    without = [imbalance_without_each_seed(arm, target) for arm in arms]
    found = seed_estimate(change(seeds), (without[1] - without[0]).mean(0))
    error = slow.jackknife_error(change, seeds)
    assume(error > 1e-6)
    assert found.hi - found.value == pytest.approx(stats.t.ppf(0.975, len(seeds) - 1) * error)


def test_an_excess_of_the_jackknife_narrows_the_interval_and_never_closes_it():
    """However large the quadratic part reads, at most a quarter of its excess comes off."""
    without = np.random.default_rng(0).normal(size=10)
    widths = [
        (lambda e: e.hi - e.lo)(seed_estimate(0.0, without, quadratic=part))
        for part in (0.0, 1e-3, 1e9)
    ]
    assert widths[0] > widths[1] > widths[2]
    times = 2 * 9 / 8
    assert widths[2] == pytest.approx(widths[0] * np.sqrt(1 - 0.25 * (1 - 1 / times)))


def test_seeds_without_spread_prove_no_more_than_their_number():
    """Eight seeds that all show the same change are eight coins, not certainty."""
    assert seed_estimate(-1.0, np.full(8, -1.0)).p_value == 2**-7


def test_prompts_of_one_subject_count_once():
    """Four wordings of one subject weigh as much as one wording of another."""
    means = cluster_means(np.array([1.0, 1, 1, 1, 0, 0.5]), np.array([0, 0, 0, 0, 1, 2]))
    np.testing.assert_array_equal(means, [1, 0, 0.5])


@pytest.mark.parametrize(
    ("baseline", "treated", "crossed"),
    [
        ([18, 2], [7, 13], True),  # .90 -> .35: through the target and out by 15 points
        ([18, 2], [8, 12], False),  # .40 is 10 points out, not more
        ([18, 2], [13, 7], False),  # still on its side
        ([10, 10], [20, 0], False),  # was on target: worse, but crossed nothing
        ([2, 18], [14, 6], True),
        ([0, 0], [14, 6], False),  # nothing readable before
    ],
)
def test_overshoot_is_leaving_the_target_on_the_other_side(baseline, treated, crossed):
    """Only prompts that crossed and left by more than the margin of ten points count."""
    found = overshoot(np.array([baseline]), np.array([treated]), UNIFORM, 0.10)
    assert found.crossed_p[0] == crossed


def test_overshoot_follows_the_value_that_was_farthest_off():
    """With many values, noise in the minor ones is no overshoot; the leading one's reversal is."""
    target = np.full((1, 5), 0.2)
    baseline = np.array([[16, 1, 1, 1, 1]])
    assert not overshoot(baseline, np.array([[4, 7, 1, 4, 4]]), target, 0.1).crossed_p[0]
    assert overshoot(baseline, np.array([[1, 5, 5, 5, 4]]), target, 0.1).crossed_p[0]


def test_overshoot_by_chance_is_what_an_arm_on_target_shows():
    """The stated chance equals how often drawn pictures at exactly the target read as crossed."""
    rng = np.random.default_rng(0)
    drawn = rng.binomial(10, 0.5, 20_000)
    baseline = np.tile([9, 1], (20_000, 1))
    found = overshoot(baseline, np.stack([drawn, 10 - drawn], 1), np.full((20_000, 2), 0.5), 0.1)
    assert found.crossed_p.mean() == pytest.approx(found.by_chance_p[0], abs=0.01)
    assert found.by_chance_p[0] == pytest.approx(stats.binom.cdf(3, 10, 0.5))


@pytest.mark.parametrize(
    ("lo", "hi", "p_adjusted", "verdict"),
    [
        (-0.5, -0.1, None, "improved"),
        (-0.5, -0.1, 0.05, "improved"),
        (-0.5, -0.1, 0.051, "inconclusive"),
        (-0.04, -0.01, 0.2, "no_change"),
        (0.1, 0.2, 0.01, "worsened"),
        (-0.05, 0.05, None, "no_change"),
        (-0.06, 0.01, None, "inconclusive"),
        (-0.01, 0.0501, None, "inconclusive"),
    ],
)
def test_verdicts_say_no_more_than_the_interval(lo, hi, p_adjusted, verdict):
    """Improved and worsened exclude 0 (and pass Holm); no change lies within the margin."""
    assert change_verdict(Estimate((lo + hi) / 2, lo, hi), 0.05, p_adjusted) == verdict


def test_needed_scales_the_half_width_by_the_root_of_n():
    """Half the room wants four times the prompts; no room wants no number at all."""
    assert needed(Estimate(0.1, -0.1, 0.3), room=0.1, n=20) == 80
    assert needed(Estimate(0.1, 0.05, 0.15), room=0.1, n=20) == 21
    assert needed(Estimate(0.05, -0.1, 0.2), room=0.0, n=20) is None


def test_agreement_of_few_pictures_leaves_room_for_change():
    """No disagreement in 1,000 pairs leaves under .02 of imbalance, in 20 pairs more than .5."""
    assert unseen_change(1000, UNIFORM) == pytest.approx(4 * 3.8415 / 1003.84, rel=1e-3)
    assert unseen_change(20, UNIFORM) > 0.5


def test_overshoot_is_named_by_chance_as_seldom_as_its_p_says():
    """Arms on target, prompts with chances of their own: p at most .01 in at most 1 % of them."""
    rng = np.random.default_rng(0)
    chance_p = rng.uniform(0.02, 0.3, 40)
    crossed = (rng.random((20_000, 40)) < chance_p).sum(1)
    p = np.array([overshoot_p(k, 40, float(chance_p.mean())) for k in range(41)])[crossed]
    assert 0 < (p <= 0.01).mean() <= 0.01
    assert overshoot_p(0, 40, 0.1) == 1
    assert overshoot_p(40, 40, 0.2) == pytest.approx(0.2**40)
