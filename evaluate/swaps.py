"""Did this one prompt change? A test that swaps the arms, seed by seed."""

from __future__ import annotations

from functools import lru_cache, reduce
from itertools import combinations
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from unskew.evaluate.stats import (
    EXACT_UP_TO,
    RESAMPLES,
    ROUNDING,
    Floats,
    Ints,
    count_values,
    imbalance,
)


def swap_p(baseline_ps: Ints, treated_ps: Ints, target_pk: Floats, seed: int) -> Floats:
    """(P,) p-value of each prompt's change in imbalance, from swapping the arms seed by seed.

    The null is that the two arms draw this prompt alike. Seeds that read the same two values swap
    alike, so that only how many of them do matters: exact where that makes up to 8,192 outcomes,
    else 9,999 draws and the observed one (Phipson & Smyth 2010). Equal readings swap to themselves.
    Unreadable pictures are swapped too. 1 where an arm has fewer than two readable seeds.
    """
    n_values = target_pk.shape[-1]
    values = [*range(n_values), -1]
    kinds = list(combinations(values, 2))
    either_pm = np.stack(
        [((baseline_ps == a) & (treated_ps == b)).sum(-1) for a, b in kinds]
        + [((baseline_ps == b) & (treated_ps == a)).sum(-1) for a, b in kinds],
        axis=-1,
    )
    counts_pm = [count_values(codes_ps, n_values) for codes_ps in (baseline_ps, treated_ps)]
    # Prompts with the same counts have the same p-value: there are far fewer of those.
    rows = np.concatenate([either_pm, *counts_pm, target_pk], axis=-1)
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    moves_mk = np.array([[(b == k) - (a == k) for k in range(n_values)] for a, b in kinds])
    p_values = [
        _p_value(
            either_pm[i, : len(kinds)],
            either_pm[i, len(kinds) :],
            moves_mk,
            counts_pm[0][i],
            counts_pm[1][i],
            target_pk[i],
            seed,
        )
        for i in first
    ]
    return np.array(p_values, dtype=np.float64)[which.ravel()]


def _p_value(
    forth_m: Ints,
    back_m: Ints,
    moves_mk: Ints,
    baseline_k: Ints,
    treated_k: Ints,
    target_k: Floats,
    seed: int,
) -> float:
    """Of one prompt: `forth_m` seeds went a -> b and `back_m` b -> a, for each pair of values."""
    observed = float(imbalance(treated_k, target_k) - imbalance(baseline_k, target_k))
    some = np.flatnonzero(forth_m + back_m)
    if len(some) == 0 or not np.isfinite(observed):
        return 1.0
    n_m = (forth_m + back_m)[some]
    # Of the n seeds that read a in one arm and b in the other, how many go a -> b once swapped.
    if prod(int(n) + 1 for n in n_m) <= 2**EXACT_UP_TO:
        forth_mo = np.indices((n_m + 1).tolist()).reshape(len(n_m), -1)
        weights_o = reduce(np.multiply.outer, [_chances(int(n)) for n in n_m]).ravel()
    else:
        ends_m = np.cumsum(n_m)
        heads_so = _heads(int(ends_m[-1]) // 64 * 64 + 64, seed)
        forth_mo = heads_so[ends_m] - heads_so[ends_m - n_m]
        forth_mo[:, 0] = forth_m[some]
        weights_o = np.full(forth_mo.shape[1], 1 / forth_mo.shape[1])
    forth_om = forth_mo.T.astype(np.int64)
    # A seed that goes b -> a instead of a -> b takes a picture of b from one arm to the other.
    moved_ok = (forth_om - forth_m[some]) @ moves_mk[some]
    changes_o = imbalance(treated_k + moved_ok, target_k) - imbalance(
        baseline_k - moved_ok, target_k
    )
    # A swap that leaves too few readable pictures has no change: count it against us.
    extreme_o = ~(np.abs(changes_o) < abs(observed) - ROUNDING)
    return min(1.0, float(weights_o @ extreme_o))


@lru_cache(maxsize=256)
def _chances(n: int) -> Floats:
    """(n + 1,) chance of each number of heads in n tosses."""
    return np.asarray(stats.binom.pmf(np.arange(n + 1), n, 0.5), dtype=np.float64)


@lru_cache(maxsize=2)
def _heads(n: int, seed: int) -> NDArray[np.int32]:
    """(n + 1, 10,000) heads in the first 0 to n tosses, of 10,000 series of tosses."""
    tosses = np.random.default_rng(seed).integers(2, size=(n, RESAMPLES + 1), dtype=np.int32)
    return np.concatenate([np.zeros_like(tosses[:1]), np.cumsum(tosses, axis=0, dtype=np.int32)])
