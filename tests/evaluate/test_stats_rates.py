"""Rates: fidelity's paired change, its honest ends, and its verdict."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from unskew.evaluate.rates import paired_rate_change, preservation_verdict, rate_interval

ORACLES = Path(__file__).parents[1] / "oracles"
slow = SimpleNamespace(**runpy.run_path(str(ORACLES / "slow_statistics.py")))


def arms(both, lost, won, neither):
    """(1, n) hits of baseline and treated with these numbers of pairs."""
    pairs = [(1, 1)] * both + [(1, 0)] * lost + [(0, 1)] * won + [(0, 0)] * neither
    baseline, treated = np.array(pairs, dtype=bool).T
    return baseline[None], treated[None]


def fixed_change(*cells):
    return paired_rate_change(*arms(*cells), np.zeros(1, int), fixed=True)


@given(st.tuples(*[st.integers(0, 30)] * 4).filter(lambda cells: sum(cells) > 4))
@settings(deadline=None, max_examples=60)
def test_interval_inverts_tangos_score_test(cells):
    """The closed form equals inverting the test with the likelihood maximised numerically."""
    both, lost, won, neither = cells
    n = sum(cells)
    if abs(won - lost) == n:  # the likelihood has no inside to search there
        return
    found = fixed_change(both, lost, won, neither)
    assert found.value == pytest.approx((won - lost) / n)
    assert (found.lo, found.hi) == pytest.approx(slow.tango(both, lost, won, neither), abs=2e-4)


@pytest.mark.parametrize("cells", [(400, 0, 0, 0), (0, 0, 0, 400), (200, 0, 0, 200)])
def test_perfect_agreement_is_not_certainty(cells):
    """With no pair lost in 400, about 1 % of pairs could still be: z^2 / (n + z^2)."""
    found = fixed_change(*cells)
    assert found.value == 0
    assert found.lo == pytest.approx(-3.8415 / 403.84, rel=1e-3)
    assert found.hi == pytest.approx(3.8415 / 403.84, rel=1e-3)


def test_everything_lost_is_lost():
    """The other end of the scale has an interval too, within [-1, 1]."""
    found = fixed_change(0, 30, 0, 0)
    assert found.lo == -1
    assert -0.95 < found.hi < -0.7


def test_swapping_the_arms_flips_the_sign():
    """A gain read backwards is the same loss."""
    rng = np.random.default_rng(0)
    baseline, treated = rng.random((2, 24, 10)) < 0.9
    clusters = np.repeat(np.arange(12), 2)
    there = paired_rate_change(baseline, treated, clusters, fixed=False)
    back = paired_rate_change(treated, baseline, clusters, fixed=False)
    assert (back.value, back.lo, back.hi) == pytest.approx((-there.value, -there.hi, -there.lo))


def test_losses_gathered_in_few_subjects_leave_more_doubt():
    """The same 40 lost pairs widen the interval when 2 of 20 subjects hold them all."""
    baseline = np.ones((20, 20), bool)
    spread, gathered = baseline.copy(), baseline.copy()
    spread[:, :2] = False
    gathered[:2] = False
    widths = [
        (lambda e: e.hi - e.lo)(paired_rate_change(baseline, arm, np.arange(20), fixed=False))
        for arm in (spread, gathered)
    ]
    assert widths[1] > 2 * widths[0]


def test_rate_interval_is_clopper_pearson_for_fixed_prompts():
    """Without clustering it is statsmodels' exact interval, ends included."""
    for hits, n in ((0, 30), (30, 30), (7, 30)):
        found = rate_interval(np.array([hits / n]), n, fixed=True)
        assert found == pytest.approx(proportion_confint(hits, n, method="beta"), abs=1e-9)


def test_clustered_intervals_use_korn_and_graubards_effective_size():
    """Their formula by hand: n over the design effect, times (z / t)^2 for few clusters."""
    rates = np.array([0.9, 0.8, 1.0, 0.6, 1.0, 0.9, 0.7, 1.0, 0.8, 0.9])
    mean = rates.mean()
    design_effect = max(1.0, (rates.var(ddof=1) / 10) / (mean * (1 - mean) / 200))
    size = 200 / design_effect * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 9)) ** 2
    expected = proportion_confint(mean * size, size, method="beta")
    assert design_effect > 1
    assert rate_interval(rates, 200, fixed=False) == pytest.approx(expected)


def test_rate_interval_widens_with_clustering_and_never_closes():
    """Subjects that differ tell less than their pictures' number; a rate of 1 keeps a lower end."""
    even = rate_interval(np.full(20, 0.5), 400, fixed=False)
    split = rate_interval(np.repeat([0.0, 1.0], 10), 400, fixed=False)
    assert split[1] - split[0] > 3 * (even[1] - even[0])
    lo, hi = rate_interval(np.ones(20), 400, fixed=False)
    assert 0.98 < lo < 1
    assert hi == 1


@pytest.mark.parametrize(
    ("lo", "hi", "verdict"),
    [
        (-0.01, 0.02, "kept"),
        (0.01, 0.02, "kept"),  # a sure loss, smaller than what matters
        (-0.01, 0.03, "inconclusive"),
        (0.01, 0.05, "inconclusive"),
        (0.03, 0.05, "inconclusive"),
        (0.04, 0.05, "lost"),
        (0.0, 0.0, "kept"),
    ],
)
def test_preservation_is_a_non_inferiority_test(lo, hi, verdict):
    """Kept when the worst of the interval is under the margin, lost when the best is over it."""
    assert preservation_verdict(lo, hi, 0.03) == verdict
