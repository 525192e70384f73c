"""Which value became which: the same cell in both arms, counted. A description, not a test.

Axes: p prompts, s seeds, k attribute values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from unskew.evaluate.stats import Floats, Ints


@dataclass(frozen=True)
class TransitionTable:
    """Cells by what the baseline and the treated arm read, over all prompts together."""

    counts_kk: Ints
    """(K, K) cells read in both arms: row the baseline's value, column the treated arm's."""
    lost_k: Ints
    """(K,) cells that the treated arm could not read, by the baseline's value."""
    gained_k: Ints
    """(K,) cells that only the treated arm could read, by its value."""
    unread: int
    """Cells that neither arm could read."""
    stuart_maxwell_p: float | None
    """p-value of "each value is as frequent in both arms"; None where no cell changed. It takes
    pictures of one prompt for independent, so it is too small where prompts differ; and it tells a
    shift from none, not an imbalance: shifts that balance one another between prompts cancel."""


def transitions(baseline_ps: Ints, treated_ps: Ints, n_values: int) -> TransitionTable:
    """Count what became what. Codes are value numbers, -1 where unreadable.

    The p-value is that of Stuart (1955) and Maxwell (1970).
    """
    flat = (baseline_ps + 1) * (n_values + 1) + treated_ps + 1
    size = n_values + 1
    table = np.bincount(flat.ravel(), minlength=size**2).reshape(size, size)
    counts_kk = table[1:, 1:].astype(np.int64)
    return TransitionTable(
        counts_kk=counts_kk,
        lost_k=table[1:, 0].astype(np.int64),
        gained_k=table[0, 1:].astype(np.int64),
        unread=int(table[0, 0]),
        stuart_maxwell_p=_homogeneity(counts_kk.astype(np.float64)),
    )


def _homogeneity(counts_kk: Floats) -> float | None:
    """Stuart and Maxwell's test; over the parts of the table between which cells moved at all."""
    difference_k = counts_kk.sum(1) - counts_kk.sum(0)
    both_kk = counts_kk + counts_kk.T
    np.fill_diagonal(both_kk, 0)
    covariance_kk = np.diag(both_kk.sum(1)) - both_kk
    df = int(np.linalg.matrix_rank(covariance_kk))
    if df == 0:
        return None
    statistic = difference_k @ np.linalg.pinv(covariance_kk, hermitian=True) @ difference_k
    return float(stats.chi2.sf(statistic, df))
