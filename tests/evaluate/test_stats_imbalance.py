"""Imbalance: against pair counting, against the truth, and against published counts."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unskew.evaluate.stats import (
    count_values,
    gap,
    imbalance,
    imbalance_without_each_seed,
    unreadable_bounds,
)

ORACLES = Path(__file__).parents[1] / "oracles"
slow = SimpleNamespace(**runpy.run_path(str(ORACLES / "slow_statistics.py")))


@st.composite
def targets(draw, n_values):
    weights = draw(st.lists(st.integers(1, 9), min_size=n_values, max_size=n_values))
    return [w / sum(weights) for w in weights]


@st.composite
def prompts(draw, least=2, most=9):
    """Answers to one prompt (None is unreadable) with at least `least` read, and its target."""
    n_values = draw(st.integers(2, 4))
    read = draw(st.lists(st.integers(0, n_values - 1), min_size=least, max_size=most))
    unread = [None] * draw(st.integers(0, 3))
    return draw(st.permutations(read + unread)), draw(targets(n_values))


def codes(answers):
    return np.array([-1 if answer is None else answer for answer in answers])


def read(answers, target):
    return float(imbalance(count_values(codes(answers), len(target)), np.array(target)))


@given(prompts())
def test_imbalance_is_what_counting_pairs_gives(prompt):
    """The formula equals the average over all pairs of different pictures, any K, any target."""
    answers, target = prompt
    assert read(answers, target) == pytest.approx(slow.imbalance(answers, target), abs=1e-12)


@given(st.integers(2, 3).flatmap(lambda k: st.tuples(targets(k), targets(k))), st.integers(2, 6))
def test_imbalance_is_unbiased(shares_and_target, n):
    """Over every possible sample, its mean is the squared distance of the true shares."""
    shares, target = shares_and_target
    mean = sum(
        probability * float(imbalance(np.array(counts), np.array(target)))
        for counts, probability in slow.outcomes(shares, n)
    )
    assert mean == pytest.approx(slow.true_imbalance(shares, target), abs=1e-12)


def test_imbalance_is_0_on_target_in_expectation_and_1_at_its_worst():
    """Its scale: 1 when only the least wanted value is shown, and no floor at parity.

    The plug-in |2p - 1| of ten pictures averages a quarter there.
    """
    target = np.array([0.5, 0.3, 0.2])
    assert imbalance(np.array([0, 0, 8]), target) == pytest.approx(1)
    assert imbalance(np.array([5, 5]), np.full(2, 0.5)) == pytest.approx(-1 / 9)
    parity = list(slow.outcomes([0.5, 0.5], 10))
    assert sum(p * abs(2 * c[0] / 10 - 1) for c, p in parity) == pytest.approx(0.246, abs=0.001)


def test_two_values_and_a_uniform_target_give_the_unbiased_square_of_2p_minus_1():
    """(n (2p - 1)^2 - 1) / (n - 1), the form that papers on binary attributes use."""
    for n, k in ((10, 10), (10, 7), (20, 3), (2, 1)):
        usual = (n * (2 * k / n - 1) ** 2 - 1) / (n - 1)
        assert imbalance(np.array([k, n - k]), np.full(2, 0.5)) == pytest.approx(usual)


@given(prompts(), st.randoms(use_true_random=False))
def test_names_of_values_and_order_of_seeds_do_not_matter(prompt, random):
    """Relabelling the values with their targets, and shuffling the seeds, change nothing."""
    answers, target = prompt
    names = random.sample(range(len(target)), len(target))
    renamed = [None if a is None else names.index(a) for a in answers]
    random.shuffle(renamed)
    assert read(renamed, [target[k] for k in names]) == pytest.approx(read(answers, target))


def test_too_few_readable_pictures_give_no_number():
    """With one readable picture or none there is no imbalance, and it does not pass for 0."""
    found = imbalance(np.array([[1, 0], [0, 0], [2, 0]]), np.full(2, 0.5))
    np.testing.assert_array_equal(np.isnan(found), [True, True, False])


def test_prompts_are_read_each_with_its_own_target():
    """Many prompts at once give what one prompt at a time gives."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, (50, 3))
    target = rng.dirichlet(np.ones(3), 50)
    one_by_one = [float(imbalance(c, q)) for c, q in zip(counts, target, strict=True)]
    np.testing.assert_allclose(imbalance(counts, target), one_by_one)


@given(prompts(least=3, most=6))
def test_leaving_out_a_seed_is_computing_without_it(prompt):
    """The vectorised leave-one-out values are those of the shortened lists."""
    answers, target = prompt
    found = imbalance_without_each_seed(codes(answers)[None], np.array(target)[None])[0]
    expected = [slow.imbalance(answers[:n] + answers[n + 1 :], target) for n in range(len(answers))]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@given(prompts(least=2, most=5))
def test_worst_case_bounds_are_the_extremes_over_every_answer(prompt):
    """Greedy filling of unreadable pictures finds what trying all answers finds."""
    answers, target = prompt
    read_codes = codes(answers)
    least, greatest = unreadable_bounds(
        count_values(read_codes, len(target))[None],
        np.array([(read_codes < 0).sum()]),
        np.array(target)[None],
    )
    expected = slow.unreadable_bounds(answers, target)
    assert (least[0], greatest[0]) == pytest.approx(expected, abs=1e-12)


def test_published_counts_give_the_published_gap_and_less_imbalance_than_its_square():
    """Fair Diffusion, 153 occupations: plug-in gap .623 -> .210, imbalance .490 -> .068."""
    counts = json.loads((ORACLES / "fair_diffusion_counts.json").read_text("utf-8"))
    for arm, plug_in, unbiased in (("generated", 0.623, 0.490), ("edited", 0.210, 0.068)):
        men_women = np.array([row[:2] for row in counts[arm].values()])
        shares = men_women / men_women.sum(1, keepdims=True)
        assert np.abs(2 * shares[:, 0] - 1).mean() == pytest.approx(plug_in, abs=0.0005)
        found = imbalance(men_women, np.full((len(men_women), 2), 0.5)).mean()
        assert found == pytest.approx(unbiased, abs=0.0005)


def test_gap_is_the_unsquared_figure_and_never_below_0():
    """A negative imbalance prints as no gap; .49 as .7."""
    assert gap(-0.02) == 0
    assert gap(0.49) == pytest.approx(0.7)
