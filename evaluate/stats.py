"""How skewed, how much did it change, and how sure are we: the statistics of representation.

Pure functions on arrays. Axes: p prompts, c clusters of prompts, s seeds, k attribute values.
`codes_ps` hold the index of the value read on each picture, -1 where it could not be read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 9_999
EXACT_UP_TO = 13
"""Sign flips of this many things (8,192) are enumerated, of more are drawn."""
FEWEST_CLUSTERS = 10
"""With fewer clusters the seeds are the unit and a row speaks of its own prompts only."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True)
class TestedEstimate(Estimate):
    """An estimate with the two-sided p-value of "it is 0"."""

    __test__ = False  # pytest takes what begins with "Test" for a test
    p_value: float


def count_values(codes_ps: Ints, n_values: int) -> Ints:
    """(..., K) pictures of each value from (..., S) codes; unreadable ones are not counted."""
    return np.stack([(codes_ps == k).sum(-1) for k in range(n_values)], axis=-1)


def imbalance(counts_pk: Ints, target_pk: Floats) -> Floats:
    """(...) unbiased squared distance of shown from wanted, scaled to [0, 1] in expectation.

    0 means that the expected share of every value is its target; 1 means that only the value with
    the smallest target is ever shown. D2 = sum_k [n_k(n_k-1)/(n(n-1)) - 2 q_k n_k/n + q_k^2], over
    its largest value 1 - 2 min q + sum q^2. The first term estimates p_k^2 without bias (Hoeffding
    1948, U-statistics), so a sample may read slightly below 0. NaN where n < 2.
    """
    n = counts_pk.sum(-1, keepdims=True).astype(np.float64)
    n = np.where(n < 2, np.nan, n)
    squared = counts_pk * (counts_pk - 1) / (n * (n - 1))
    distance = (squared - 2 * target_pk * counts_pk / n + target_pk**2).sum(-1)
    result: Floats = distance / _farthest(target_pk)
    return result


def gap(imbalance: float) -> float:
    """Unsquared imbalance, >= 0: what |2p - 1| would read without its noise floor."""
    return float(np.sqrt(max(imbalance, 0.0)))


def cluster_means(values_p: Floats, clusters_p: Ints) -> Floats:
    """(C, ...) mean over the prompts of each cluster, clusters in the order of their numbers."""
    n_clusters = int(clusters_p.max()) + 1
    sums = np.zeros((n_clusters, *values_p.shape[1:]))
    np.add.at(sums, clusters_p, values_p)
    sizes = np.bincount(clusters_p, minlength=n_clusters)
    result: Floats = sums / sizes.reshape(-1, *[1] * (values_p.ndim - 1))
    return result


def cluster_estimate(values_c: Floats, seed: int, limit: float = np.inf) -> TestedEstimate:
    """Mean over clusters; 95 % interval by resampling them; p-value by flipping their signs.

    The interval is bootstrap-t (Efron & Tibshirani 1993, ch. 12), on each side never narrower than
    Student's: with 10-20 clusters either alone covers too little, the first when most differences
    are near 0, the second when they are skewed. All-zero values give [0, 0] and p = 1. The interval
    is clipped to +-`limit`, the range of what is estimated. Neither the order of the values nor the
    choice of sign moves the result. Needs two clusters.
    """
    n = len(values_c)
    values = np.sort(values_c)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / np.sqrt(n)
    if np.ptp(values) < ROUNDING:
        return TestedEstimate(mean, mean, mean, sign_flip_p(values, seed))
    student = float(stats.t.ppf(0.975, n - 1))
    low, high = np.quantile(_bootstrap_t(values, seed), [0.025, 0.975])
    lo, hi = mean - max(student, float(high)) * error, mean - min(-student, float(low)) * error
    return clipped(TestedEstimate(mean, lo, hi, sign_flip_p(values, seed)), limit)


def clipped(estimate: TestedEstimate, limit: float) -> TestedEstimate:
    """The interval within +-limit, but never without the estimate, which may read beyond it."""
    lo = max(estimate.lo, min(-limit, estimate.value))
    return replace(estimate, lo=lo, hi=min(estimate.hi, max(limit, estimate.value)))


def _bootstrap_t(values_c: Floats, seed: int) -> Floats:
    """Studentised means of resamples; resamples without spread have none and are left out."""
    n = len(values_c)
    rng = np.random.default_rng(seed)
    draws = rng.integers(n, size=(RESAMPLES // 2, n))
    found = []
    for block in np.array_split(draws, 1 + draws.size // 1_000_000):
        # Each draw and its mirror image: negated values then give exactly negated intervals.
        sample = np.concatenate([values_c[block], values_c[n - 1 - block]])
        errors = sample.std(axis=1, ddof=1) / np.sqrt(n)
        varied = errors > 1e-6 * values_c.std()
        found.append((sample.mean(axis=1) - values_c.mean())[varied] / errors[varied])
    return np.concatenate(found)


def sign_flip_p(values_c: Floats, seed: int) -> float:
    """Two-sided p-value of a mean of 0, from flipping the sign of each cluster's value.

    Exact for up to 13 values; else 9,999 draws and the observed one, p = (1 + hits) / 10,000
    (Phipson & Smyth 2010), never 0. Assumes differences symmetric about 0 under the null.
    """
    # The flips' distribution depends on sizes only: sorted, neither order nor sign can matter.
    sizes = np.sort(np.abs(values_c))
    sums = np.abs(_signs(len(sizes), seed) @ sizes)
    return float((sums >= abs(values_c.sum()) - ROUNDING).mean())


@lru_cache(maxsize=64)
def _signs(n: int, seed: int) -> Floats:
    """(B, n) of +-1: every combination where there are few, else draws; row 0 flips nothing."""
    if n <= EXACT_UP_TO:
        bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        bits = np.random.default_rng(seed).integers(2, size=(RESAMPLES + 1, n))
        bits[0] = 0
    return np.asarray(1.0 - 2.0 * bits, dtype=np.float64)


def seed_estimate(value: float, without_s: Floats, limit: float = np.inf) -> TestedEstimate:
    """Interval and p-value when the seeds are the unit: delete-one-seed jackknife, Student's t.

    `without_s` holds the value with seed s left out of every prompt and arm (Tukey 1958; Efron &
    Stein 1981: conservative for U-statistics). The p-value is never below 2^(1-S), what S signs
    could show at best. All-equal values have no spread: [value, value], and p = 1 where it is 0.
    """
    n = len(without_s)
    error = float(np.sqrt((n - 1) / n * ((without_s - without_s.mean()) ** 2).sum()))
    if error < ROUNDING:
        return TestedEstimate(value, value, value, 1.0 if abs(value) < ROUNDING else 2.0 ** (1 - n))
    half = float(stats.t.ppf(0.975, n - 1)) * error
    p_value = max(2 * float(stats.t.sf(abs(value) / error, n - 1)), 2.0 ** (1 - n))
    return clipped(TestedEstimate(value, value - half, value + half, p_value), limit)


def imbalance_without_each_seed(codes_ps: Ints, target_pk: Floats) -> Floats:
    """(P, S) imbalance with each seed left out in turn. NaN where that leaves fewer than two."""
    n_values = target_pk.shape[-1]
    one_hot_psk = codes_ps[..., None] == np.arange(n_values)
    counts_psk = count_values(codes_ps, n_values)[:, None, :] - one_hot_psk
    return imbalance(counts_psk, target_pk[:, None, :])


def swap_p(baseline_ps: Ints, treated_ps: Ints, target_pk: Floats, seed: int) -> Floats:
    """(P,) p-value of each prompt's change in imbalance, from swapping the arms seed by seed.

    The null is that the two arms draw this prompt alike. Exact for up to 13 seeds that read
    differently (equal readings swap to themselves), else drawn as in `sign_flip_p`. Unreadable
    pictures are swapped too. 1 where an arm has fewer than two readable seeds.
    """
    n_values = target_pk.shape[-1]
    result = np.ones(len(baseline_ps))
    pairs = zip(baseline_ps, treated_ps, target_pk, strict=True)
    for i, (base, treated, target) in enumerate(pairs):
        order = np.lexsort((treated, base))
        order = order[base[order] != treated[order]]
        one_hot = np.arange(n_values)
        moves = 1.0 * (treated[order, None] == one_hot) - (base[order, None] == one_hot)
        swapped = ((_signs(len(order), seed) < 0) @ moves).astype(np.int64)
        changes = imbalance(count_values(treated, n_values) - swapped, target) - imbalance(
            count_values(base, n_values) + swapped, target
        )
        if np.isfinite(changes[0]):
            # A swap that leaves too few readable pictures has no change: count it against us.
            extreme = ~(np.abs(changes) < abs(changes[0]) - ROUNDING)
            result[i] = extreme.mean()
    return result


@dataclass(frozen=True)
class Overshoot:
    """Which prompts crossed their target, and how many would by sampling error alone."""

    crossed_p: NDArray[np.bool_]
    by_chance_p: Floats
    """Probability that a treated arm exactly on target reads as crossed."""


def overshoot(baseline_pk: Ints, treated_pk: Ints, target_pk: Floats, margin: float) -> Overshoot:
    """Prompts whose leading deviation changed sign and ended beyond the margin, from counts.

    The leading value is the one whose baseline share is farthest from its target (all of them when
    several are as far). Prompts without readable pictures in an arm have not crossed.
    """
    n_p1 = treated_pk.sum(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        before = baseline_pk / baseline_pk.sum(-1, keepdims=True) - target_pk
        after = treated_pk / n_p1 - target_pk
    far = np.abs(before)
    leading = (far >= far.max(-1, keepdims=True) - ROUNDING) & (far > ROUNDING)
    crossed = leading & (np.sign(after) == -np.sign(before)) & (np.abs(after) > margin + ROUNDING)
    below = stats.binom.cdf(np.ceil(n_p1 * (target_pk - margin) - ROUNDING) - 1, n_p1, target_pk)
    above = stats.binom.sf(np.floor(n_p1 * (target_pk + margin) + ROUNDING), n_p1, target_pk)
    chance = np.where(leading, np.where(before > 0, below, above), 0.0).max(-1)
    return Overshoot(crossed.any(-1), chance)


def unreadable_bounds(
    counts_pk: Ints, unreadable_p: Ints, target_pk: Floats
) -> tuple[Floats, Floats]:
    """((P,), (P,)) least and greatest imbalance, had every unreadable picture been read.

    Worst case over all answers (Manski 1990). Imbalance is convex in the counts: its greatest value
    gives all unreadable pictures to one value, its least adds them one by one where it costs least.
    """
    n = (counts_pk.sum(-1) + unreadable_p)[:, None]
    least = counts_pk.copy()
    for step in range(int(unreadable_p.max(initial=0))):
        cost = 2 * least / (n * (n - 1)) - 2 * target_pk / n
        rows = np.flatnonzero(unreadable_p > step)
        least[rows, cost.argmin(-1)[rows]] += 1
    to_one = counts_pk[:, None, :] + unreadable_p[:, None, None] * np.eye(
        target_pk.shape[-1], dtype=np.int64
    )
    greatest: Floats = imbalance(to_one, target_pk[:, None, :]).max(-1)
    return imbalance(least, target_pk), greatest


def unseen_change(n_pairs: int, target_pk: Floats) -> float:
    """Largest change in mean imbalance that pairs without any disagreement leave possible.

    With none of n pairs read differently, at most z^2 / (n + z^2) of all pairs are (score interval,
    Wilson 1927; 95 %), and a share d that moves from one value to another changes D2 by at most
    d (2 + 2 max q - 2 min q).
    """
    z2 = float(stats.norm.ppf(0.975)) ** 2
    steepest = 2 + 2 * (target_pk.max(-1) - target_pk.min(-1))
    return float((steepest / _farthest(target_pk)).max() * z2 / (n_pairs + z2))


def _farthest(target_pk: Floats) -> Floats:
    result: Floats = 1 - 2 * target_pk.min(-1) + (target_pk**2).sum(-1)
    return result


def change_verdict(
    estimate: Estimate, margin: float, p_adjusted: float | None
) -> Literal["improved", "worsened", "no_change", "inconclusive"]:
    """What an interval of a change in imbalance allows to say (below 0 is better).

    A primary passes its adjusted p-value, and is not called improved or worsened over .05.
    """
    if p_adjusted is None or p_adjusted <= 0.05:
        if estimate.hi < 0:
            return "improved"
        if estimate.lo > 0:
            return "worsened"
    return "no_change" if -margin <= estimate.lo and estimate.hi <= margin else "inconclusive"


def needed(estimate: Estimate, room: float, n: int) -> int | None:
    """About how many units instead of n would settle a verdict, were the estimate the truth.

    `room` is how far the estimate lies from what its interval must exclude; the half-width shrinks
    as 1/sqrt(n). At least n + 1; None when there is no room, so that no number would do.
    """
    if room <= 0:
        return None
    half = (estimate.hi - estimate.lo) / 2
    return max(n + 1, int(np.ceil(n * (half / room) ** 2)))
