"""Transitions: which value became which."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import SquareTable

from unskew.evaluate.transitions import transitions


def test_every_cell_is_counted_once():
    """Pairs that were read, that only one arm could read, and that neither could."""
    baseline = np.array([[0, 0, 1, 2], [-1, -1, 2, 1]])
    treated = np.array([[0, 1, 1, -1], [0, -1, 0, -1]])
    found = transitions(baseline, treated, 3)
    assert found.counts_kk.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert found.lost_k.tolist() == [0, 1, 1]
    assert found.gained_k.tolist() == [1, 0, 0]
    assert found.unread == 1


@given(st.lists(st.integers(1, 30), min_size=9, max_size=9))
def test_the_p_value_is_stuart_and_maxwells(counts):
    """The same as statsmodels' for tables in which all values mix."""
    table = np.array(counts).reshape(3, 3)
    baseline, treated = (np.repeat(at, counts) for at in np.indices((3, 3)).reshape(2, 9))
    expected = SquareTable(table, shift_zeros=False).homogeneity(method="stuart_maxwell")
    found = transitions(baseline[None], treated[None], 3).stuart_maxwell_p
    assume(expected.pvalue > 1e-12)
    assert found == pytest.approx(expected.pvalue)


def test_for_two_values_it_is_mcnemars_test():
    """12 one way and 4 the other: (12 - 4)^2 / 16 = 4 on one degree of freedom."""
    baseline = np.array([[0] * 12 + [1] * 4 + [0, 1]])
    treated = np.array([[1] * 12 + [0] * 4 + [0, 1]])
    assert transitions(baseline, treated, 2).stuart_maxwell_p == pytest.approx(0.0455, abs=1e-4)


def test_values_that_do_not_mix_are_two_tests_in_one():
    """Moves within {0, 1} and within {2, 3} add up: 4 + 4 on two degrees of freedom."""
    baseline = np.array([[0] * 4 + [2] * 4])
    treated = baseline + 1
    assert transitions(baseline, treated, 4).stuart_maxwell_p == pytest.approx(np.exp(-4))


def test_nothing_changed_is_no_test():
    """Equal readings leave nothing to test, and say so."""
    codes = np.array([[0, 1, -1]])
    assert transitions(codes, codes, 2).stuart_maxwell_p is None
