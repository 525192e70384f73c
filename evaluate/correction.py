"""What readings would say, had the classifier not erred: a confusion matrix turned round.

The readings of a prompt follow p' = R^T p, with R[t, r] the share of pictures that truly show t and
are read as r. So p = W p' with W = (R^T)^-1, and the squared distance of p from a target is a
quadratic in p' that counts estimate without bias. For two values this is Rogan & Gladen's (1978)
correction, inside the square.

Pure functions on arrays. Axes: p prompts, c clusters of prompts, t true value, r value read, k any
value, b draws of the calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from unskew.evaluate.stats import (
    Estimate,
    Floats,
    Ints,
    TestedEstimate,
    cluster_estimate,
    cluster_means,
    count_values,
    seed_estimate,
)

DRAWS = 4_000
"""Draws of the calibration; more move no end of an interval that is printed."""
LEAST_INFORMATION = 0.3
"""Under this (Se + Sp - 1 of two values) a matrix says too little to be turned round."""
FEWEST_PER_VALUE = 5
"""Labelled pictures that truly show a value, with fewer its row of the matrix is a guess."""


def reading_rates(calibration_tr: Floats) -> Floats:
    """(..., T, R) share of a true value's pictures that are read as each value; rows sum to 1."""
    rates: Floats = calibration_tr / calibration_tr.sum(-1, keepdims=True)
    return rates


def information(rates_tr: Floats) -> float:
    """The least part of a difference of shares that readings keep: 1 all of it, 0 nothing.

    Se + Sp - 1 for two values. For more, the smallest ratio of |R^T x|_1 to |x|_1 over differences
    of two distributions x, which is 1 over the largest half L1 distance between columns of the
    inverse. 0 where the matrix is singular, or where it mistakes two values for one another more
    often than it tells them apart.
    """
    diagonal = np.diag(rates_tr)
    apart = diagonal[:, None] + diagonal - rates_tr - rates_tr.T
    np.fill_diagonal(apart, 1.0)
    if (apart <= 0).any() or np.linalg.cond(rates_tr) > 1e9:
        return 0.0
    inverse = np.linalg.inv(rates_tr.T)
    spread = np.abs(inverse[:, :, None] - inverse[:, None, :]).sum(0).max() / 2
    return float(1 / spread)


def why_not(calibration_tr: Floats, values: Sequence[str]) -> str | None:
    """Why a confusion matrix of counts cannot correct anything; None where it can."""
    seen = calibration_tr.sum(-1)
    for value, n in zip(values, seen, strict=True):
        if n < FEWEST_PER_VALUE:
            return (
                f"only {n:g} labelled pictures show {value!r} (needed: {FEWEST_PER_VALUE}): "
                "label more pictures"
            )
    kept = information(reading_rates(calibration_tr))
    if kept < LEAST_INFORMATION:
        return (
            f"the readings keep {kept:.2f} of a difference in shares (Se + Sp - 1 of two values; "
            f"needed: {LEAST_INFORMATION}): take a better classifier"
        )
    return None


@dataclass(frozen=True)
class Moments:
    """All that the corrected distance of one arm needs to know, cluster by cluster.

    D2(W) = <W^T W, second> - 2 <W, first> + constant, each already over its largest value.
    """

    second_ckk: Floats
    """Unbiased p'_j p'_k."""
    first_ckk: Floats
    """target_j p'_k."""
    constant_c: Floats
    """Sum of the squared target."""
    share_ck: Floats
    """p'_k."""

    def distance(self, inverse_kk: Floats) -> Floats:
        """(C,) corrected imbalance of each cluster, with W = (R^T)^-1."""
        square = inverse_kk.T @ inverse_kk
        result: Floats = (
            (square * self.second_ckk).sum((-2, -1))
            - 2 * (inverse_kk * self.first_ckk).sum((-2, -1))
            + self.constant_c
        )
        return result

    def mean_distance(self, inverse_bkk: Floats) -> Floats:
        """(B,) mean over clusters of the corrected imbalance, for each inverse."""
        square = inverse_bkk.swapaxes(-1, -2) @ inverse_bkk
        result: Floats = (
            np.einsum("bjk,jk->b", square, self.second_ckk.mean(0))
            - 2 * np.einsum("bjk,jk->b", inverse_bkk, self.first_ckk.mean(0))
            + self.constant_c.mean()
        )
        return result


def moments(counts_pk: Ints, target_pk: Floats, clusters_p: Ints) -> Moments:
    """Of (P, K) counts of the values read; needs two readable pictures a prompt.

    n_j (n_k - [j = k]) / (n (n - 1)) is the unbiased p'_j p'_k (Hoeffding 1948): the sampling term
    within a prompt is gone before the correction could blow it up.
    """
    n_p = counts_pk.sum(-1).astype(np.float64)
    scale_p = 1 - 2 * target_pk.min(-1) + (target_pk**2).sum(-1)
    shares_pk = counts_pk / n_p[:, None]
    pairs = counts_pk[:, :, None] * (counts_pk[:, None, :] - np.eye(counts_pk.shape[-1]))
    second = pairs / (n_p * (n_p - 1) * scale_p)[:, None, None]
    first = target_pk[:, :, None] * shares_pk[:, None, :] / scale_p[:, None, None]
    return Moments(
        cluster_means(second, clusters_p),
        cluster_means(first, clusters_p),
        cluster_means((target_pk**2).sum(-1) / scale_p, clusters_p),
        cluster_means(shares_pk, clusters_p),
    )


def inverse_of(rates_tr: Floats) -> Floats:
    """(..., K, K) what turns shares of readings into shares of what is shown: p = W p'."""
    return np.asarray(np.linalg.inv(rates_tr.swapaxes(-1, -2)), dtype=np.float64)


def draw_inverses(calibration_tr: Floats, seed: int) -> tuple[Floats, Floats]:
    """((B, K, K), (B, K, K)) inverses of matrices that the labels allow, twice.

    Each row is drawn from its Dirichlet: the Bayesian bootstrap of a multinomial (Rubin 1981). The
    first keep what was never seen at 0, so that their mean shows the estimate's bias; in the second
    it draws as half a picture, for never seen in so many is not never.
    """
    rng = np.random.default_rng(seed)
    seen = rng.standard_gamma(calibration_tr, (DRAWS, *calibration_tr.shape))
    unseen = rng.standard_gamma(np.where(calibration_tr > 0, 0.0, 0.5), seen.shape)
    return inverse_of(reading_rates(seen)), inverse_of(reading_rates(seen + unseen))


@dataclass(frozen=True)
class Arm:
    """One arm's readings of a row, prompts with too few readable pictures left out."""

    codes_ps: Ints
    """Index of the value read, -1 where unreadable."""
    calibration_tr: Floats
    """Labelled pictures by true value and value read."""


def corrected_imbalance(
    arm: Arm, target_pk: Floats, clusters_p: Ints, *, fixed: bool, seed: int
) -> Estimate:
    """Corrected imbalance of one arm with its 95 % interval, calibration included."""
    return _estimate([arm], target_pk, clusters_p, shared=False, fixed=fixed, seed=seed)


def corrected_change(
    baseline: Arm,
    treated: Arm,
    target_pk: Floats,
    clusters_p: Ints,
    *,
    shared: bool,
    fixed: bool,
    seed: int,
) -> Estimate:
    """Corrected imbalance, treated - baseline; below 0 is better.

    `shared`: both arms have the same calibration, whose errors then largely cancel.
    """
    arms = [baseline, treated]
    return _estimate(arms, target_pk, clusters_p, shared=shared, fixed=fixed, seed=seed)


def _estimate(
    arms: Sequence[Arm],
    target_pk: Floats,
    clusters_p: Ints,
    *,
    shared: bool,
    fixed: bool,
    seed: int,
) -> Estimate:
    """The last arm less the first; or the only one.

    Two things vary: which prompts (or seeds) were drawn, as in `stats`, and which pictures were
    labelled. Each gives an interval; they are joined by square-and-add (MOVER, Zou & Donner 2008).
    What the calibration's draws say beyond the estimate itself, its bias, is taken off.
    """
    n_values = target_pk.shape[-1]
    signs = [-1.0, 1.0][-len(arms) :]
    inverses = [inverse_of(reading_rates(arm.calibration_tr)) for arm in arms]
    parts = [moments(count_values(arm.codes_ps, n_values), target_pk, clusters_p) for arm in arms]
    triples = list(zip(signs, parts, inverses, strict=True))
    value_c = sum((s * part.distance(w) for s, part, w in triples), np.zeros(1))
    if fixed:
        without_s = sum(
            (
                s * _without_each_seed(arm.codes_ps, target_pk, clusters_p, w)
                for arm, s, w in zip(arms, signs, inverses, strict=True)
            ),
            np.zeros(1),
        )
        sampled: TestedEstimate = seed_estimate(float(value_c.mean()), without_s)
    else:
        sampled = cluster_estimate(value_c, seed)
    seen_b, drawn_b = np.zeros(DRAWS), np.zeros(DRAWS)
    for number, (sign, part, arm) in enumerate(zip(signs, parts, arms, strict=True)):
        seen, drawn = draw_inverses(arm.calibration_tr, seed + (0 if shared else number))
        seen_b += sign * part.mean_distance(seen)
        drawn_b += sign * part.mean_distance(drawn)
    centre = float(stats.trim_mean(seen_b, 0.01))
    low, high = np.quantile(drawn_b, [0.025, 0.975])
    value = 2 * sampled.value - centre
    return Estimate(
        value,
        value - float(np.hypot(sampled.value - sampled.lo, max(centre - low, 0.0))),
        value + float(np.hypot(sampled.hi - sampled.value, max(high - centre, 0.0))),
    )


def _without_each_seed(
    codes_ps: Ints, target_pk: Floats, clusters_p: Ints, inverse_kk: Floats
) -> Floats:
    """(S,) corrected imbalance with each seed left out in turn."""
    left = (np.delete(codes_ps, s, axis=1) for s in range(codes_ps.shape[1]))
    n_values = target_pk.shape[-1]
    return np.array(
        [
            moments(count_values(codes, n_values), target_pk, clusters_p)
            .distance(inverse_kk)
            .mean()
            for codes in left
        ]
    )


def corrected_shares(arm: Arm, target_pk: Floats, clusters_p: Ints) -> Floats:
    """(K,) shares by the matrix alone: unbiased, so a small sample may read outside [0, 1]."""
    counts_pk = count_values(arm.codes_ps, target_pk.shape[-1])
    share_k = moments(counts_pk, target_pk, clusters_p).share_ck.mean(0)
    result: Floats = inverse_of(reading_rates(arm.calibration_tr)) @ share_k
    return result
