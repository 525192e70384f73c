"""Did the pictures that nothing should change move? Drift of control prompts between two arms.

By two distances between sets of pictures: the energy distance, which the verdict rests on, and the
kernel distance beside it. Both come from what lies between two pictures: `euclidean`, or
`negated_kernel`, with which the energy distance's formula is the squared maximum mean discrepancy
(Sejdinovic et al. 2013). With other features than those of the published networks it is neither
KID nor FID.

Axes: p prompts, s seeds, d features of a picture; the same seed is the same noise in both arms.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist

from unskew.evaluate.stats import Floats

Between = Callable[[Floats, Floats], Floats]
"""((n, d), (m, d)) features of pictures -> (n, m) what lies between each two."""


def metric(name: str, features: str) -> str:
    """What a row says it measured, such as of the "energy distance" of some features."""
    return f"{name} of {features}, in the baseline's mean {name} between control prompts"


def euclidean(one_nd: Floats, other_md: Floats) -> Floats:
    """(n, m) distances: those of the energy distance."""
    result: Floats = cdist(one_nd, other_md)
    return result


def negated_kernel(one_nd: Floats, other_md: Floats) -> Floats:
    """(n, m) -(x . y / d + 1)^3, the polynomial kernel of Binkowski et al. (2018), section 4."""
    # Of an array with itself numpy multiplies otherwise, and rounds otherwise: hence the copy.
    result: Floats = -((one_nd @ other_md.copy().T / one_nd.shape[1] + 1) ** 3)
    return result


def excess_distance(
    baseline_psd: Floats, treated_psd: Floats, between: Between = euclidean
) -> Floats:
    """(P, 1 + S) energy distance of the arms, beyond what other seeds of the baseline would show.

    Column 0 is from all seeds, column 1 + s without seed s. 0 = the arms draw a prompt alike, above
    0 = they do not; unbiased, so it may be slightly negative. Unit: that of the features.

    Split the seeds into halves B and B'. The treated arm on B lies at some energy distance (Szekely
    & Rizzo 2013, within-terms as U-statistics) from the baseline on B', and so does the baseline on
    B itself. Their difference, averaged over all ways to split, is
    2 mean|t_i - b_j| - mean|t_i - t_j| - mean|b_i - b_j| over i != j: a picture is never compared
    with the other arm's picture from the same noise, which is always close. Equal arms give 0.
    With `negated_kernel` it is the unbiased squared maximum mean discrepancy in the same way.
    """
    n_seeds = baseline_psd.shape[1]
    result = np.empty((len(baseline_psd), 1 + n_seeds))
    for i, (base, treated) in enumerate(zip(baseline_psd, treated_psd, strict=True)):
        across, own = between(treated, base), between(treated, treated) + between(base, base)
        # Both sides of each pair everywhere, so that of equal arms not even rounding is left.
        pairs = across + across.T - (own + own.T) / 2
        np.fill_diagonal(pairs, 0.0)
        total = pairs.sum()
        result[i, 0] = total / (n_seeds * (n_seeds - 1))
        with np.errstate(invalid="ignore"):
            result[i, 1:] = (total - 2 * pairs.sum(1)) / ((n_seeds - 1) * (n_seeds - 2))
    return result


def distance_between_prompts(baseline_psd: Floats, between: Between = euclidean) -> float:
    """Mean distance between the pictures of two different prompts: the unit of drift.

    0 where the features do not tell the prompts apart. Needs two prompts.
    """
    n_prompts, n_seeds, n_features = baseline_psd.shape
    flat = baseline_psd.reshape(-1, n_features)
    across = within = 0.0
    for i, pictures in enumerate(baseline_psd):
        found = between(pictures, flat).reshape(n_seeds, n_prompts, n_seeds)
        own = found[:, i]
        within += own.sum() - np.trace(own)
        across += found.sum() - own.sum()
    across /= n_prompts * (n_prompts - 1) * n_seeds**2
    within /= n_prompts * n_seeds * (n_seeds - 1)
    return float(max(2 * (across - within), 0.0))
