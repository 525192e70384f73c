"""Did the pictures that nothing should change move? Drift of control prompts between two arms.

Axes: p prompts, s seeds, d features of a picture; the same seed is the same noise in both arms.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from unskew.evaluate.stats import Floats

METRIC = "energy distance, in the baseline's mean energy distance between control prompts"


def excess_distance(baseline_psd: Floats, treated_psd: Floats) -> Floats:
    """(P, 1 + S) energy distance of the arms, beyond what other seeds of the baseline would show.

    Column 0 is from all seeds, column 1 + s without seed s. 0 = the arms draw a prompt alike, above
    0 = they do not; unbiased, so it may be slightly negative. Unit: that of the features.

    Split the seeds into halves B and B'. The treated arm on B lies at some energy distance (Szekely
    & Rizzo 2013, within-terms as U-statistics) from the baseline on B', and so does the baseline on
    B itself. Their difference, averaged over all ways to split, is
    2 mean|t_i - b_j| - mean|t_i - t_j| - mean|b_i - b_j| over i != j: a picture is never compared
    with the other arm's picture from the same noise, which is always close. Equal arms give 0.
    """
    n_seeds = baseline_psd.shape[1]
    result = np.empty((len(baseline_psd), 1 + n_seeds))
    for i, (base, treated) in enumerate(zip(baseline_psd, treated_psd, strict=True)):
        across = cdist(treated, base)
        pairs = across + across.T - cdist(treated, treated) - cdist(base, base)
        np.fill_diagonal(pairs, 0.0)
        total = pairs.sum()
        result[i, 0] = total / (n_seeds * (n_seeds - 1))
        with np.errstate(invalid="ignore"):
            result[i, 1:] = (total - 2 * pairs.sum(1)) / ((n_seeds - 1) * (n_seeds - 2))
    return result


def distance_between_prompts(baseline_psd: Floats) -> float:
    """Mean energy distance between the pictures of two different prompts: the unit of drift.

    0 where the features do not tell the prompts apart. Needs two prompts.
    """
    n_prompts, n_seeds, n_features = baseline_psd.shape
    flat = baseline_psd.reshape(-1, n_features)
    between = within = 0.0
    for i, pictures in enumerate(baseline_psd):
        sums = cdist(pictures, flat).sum(0).reshape(n_prompts, n_seeds).sum(1)
        within += sums[i]
        between += sums.sum() - sums[i]
    between /= n_prompts * (n_prompts - 1) * n_seeds**2
    within /= n_prompts * n_seeds * (n_seeds - 1)
    return float(max(2 * (between - within), 0.0))
