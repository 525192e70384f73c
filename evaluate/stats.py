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
EXCESS_TAKEN = 0.25
"""How much of the jackknife's excess is taken off: all of it leaves an error that is right on
average, but so uncertain with few seeds that intervals cover too little."""
STUDENT_FROM = 15
"""With more clusters than this, Student's interval is trusted the more, the more there are."""
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


@dataclass(frozen=True)
class Estimates:
    """`TestedEstimate` of b studies at once; every field is (b,)."""

    value: Floats
    lo: Floats
    hi: Floats
    p_value: Floats

    def one(self, n: int) -> TestedEstimate:
        """That of one study."""
        return TestedEstimate(*(float(f[n]) for f in (self.value, self.lo, self.hi, self.p_value)))


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
    result: Floats = distance / farthest(target_pk)
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

    `cluster_estimates` of one study.
    """
    return cluster_estimates(values_c[None], seed, limit).one(0)


def cluster_estimates(values_bc: Floats, seed: int, limit: float = np.inf) -> Estimates:
    """Of b studies of as many clusters each: the mean, its 95 % interval and p-value.

    The interval is Student's, and reaches farther on a side where bootstrap-t's does (Efron &
    Tibshirani 1993, ch. 12): up to 15 clusters as far, from there on 15/n of the way, as Student's
    own error shrinks. With few clusters either alone covers too little, the first where differences
    are skewed, the second where most are near 0; docs/statistics.md has how often this covers.
    All-equal values give an interval of no width, all-zero ones p = 1. The interval is clipped to
    +-`limit`, the range of what is estimated. Neither the order of the values nor the choice of
    sign moves it. Needs two clusters.
    """
    n = values_bc.shape[1]
    values_bc = np.sort(values_bc, axis=1)
    mean = values_bc.mean(axis=1)
    error = values_bc.std(axis=1, ddof=1) / np.sqrt(n)
    varied = np.ptp(values_bc, axis=1) >= ROUNDING
    error[~varied] = 0
    student = float(stats.t.ppf(0.975, n - 1))
    low, high = np.zeros((2, len(mean)))
    if varied.any():
        low[varied], high[varied] = bootstrap_t(values_bc[varied], seed)
    part = min(1.0, STUDENT_FROM / n)
    lo = mean - (student + part * np.maximum(high - student, 0)) * error
    hi = mean + (student + part * np.maximum(-low - student, 0)) * error
    return Estimates(
        mean,
        # Within the limit, but never without the estimate, which may read beyond it.
        np.maximum(lo, np.minimum(-limit, mean)),
        np.minimum(hi, np.maximum(limit, mean)),
        sign_flip_p(values_bc, seed),
    )


def clipped(estimate: TestedEstimate, limit: float) -> TestedEstimate:
    """The interval within +-limit, but never without the estimate, which may read beyond it."""
    lo = max(estimate.lo, min(-limit, estimate.value))
    return replace(estimate, lo=lo, hi=min(estimate.hi, max(limit, estimate.value)))


def bootstrap_t(values_bc: Floats, seed: int) -> tuple[Floats, Floats]:
    """((B,), (B,)) 2.5 % and 97.5 % points of the studentised means of resampled clusters.

    `values_bc` are sorted, and not all equal in any study. Resamples without spread have no
    studentised mean and are left out.
    """
    n = values_bc.shape[1]
    scale_b1 = values_bc.std(axis=1, keepdims=True)
    values_bc = (values_bc - values_bc.mean(axis=1, keepdims=True)) / scale_b1
    found = []
    for block in _blocks(RESAMPLES // 2, n):
        # How often each cluster is drawn, and its mirror image: negated values then give exactly
        # negated intervals.
        times_rc = _times_drawn(n, seed, block.start, block.stop)
        for times in (times_rc, times_rc[:, ::-1]):
            mean_br = values_bc @ times.T / n
            variance_br = (values_bc**2 @ times.T / n - mean_br**2) * n / (n - 1)
            with np.errstate(invalid="ignore", divide="ignore"):
                found.append(mean_br / np.sqrt(variance_br / n))
                found[-1][variance_br < 1e-12 * n] = np.nan
    studentised_br = np.sort(np.concatenate(found, axis=1), axis=1)  # NaN comes last
    last_b = np.isfinite(studentised_br).sum(axis=1) - 1
    return _quantile(studentised_br, last_b, 0.025), _quantile(studentised_br, last_b, 0.975)


def _quantile(sorted_br: Floats, last_b: Ints, share: float) -> Floats:
    """The linear quantile of each row's first `last_b` + 1 values."""
    at = share * last_b
    below = np.floor(at).astype(np.int64)
    rows = np.arange(len(sorted_br))
    low, high = sorted_br[rows, below], sorted_br[rows, np.minimum(below + 1, last_b)]
    result: Floats = low + (at - below) * (high - low)
    return result


def _blocks(n_draws: int, n: int) -> list[range]:
    """Draws cut so that a block of them over n things fits into memory."""
    step = max(1, 4_000_000 // n)
    return [range(start, min(start + step, n_draws)) for start in range(0, n_draws, step)]


@lru_cache(maxsize=2)
def _times_drawn(n: int, seed: int, start: int, stop: int) -> Floats:
    """(R, C) how often each cluster is in each of the resamples from start to stop."""
    draws = np.random.default_rng([seed, start]).integers(n, size=(stop - start, n))
    flat = (np.arange(stop - start)[:, None] * n + draws).ravel()
    return np.bincount(flat, minlength=draws.size).reshape(draws.shape).astype(np.float64)


def sign_flip_p(values_bc: Floats, seed: int) -> Floats:
    """(B,) two-sided p-values of a mean of 0, from flipping the sign of each cluster's value.

    Exact for up to 13 values; else 9,999 draws and the observed one, p = (1 + hits) / 10,000
    (Phipson & Smyth 2010), never 0. Assumes differences symmetric about 0 under the null.
    """
    # The flips' distribution depends on sizes only: sorted, neither order nor sign can matter.
    sizes_bc = np.sort(np.abs(values_bc), axis=1)
    n = sizes_bc.shape[1]
    observed_b1 = np.abs(values_bc.sum(axis=1, keepdims=True)) - ROUNDING
    n_draws = 2**n if n <= EXACT_UP_TO else RESAMPLES + 1
    hits_b = np.zeros(len(values_bc))
    for block in _blocks(n_draws, n):
        sums_br = np.abs(sizes_bc @ _signs(n, seed, block.start, block.stop).T)
        hits_b += (sums_br >= observed_b1).sum(axis=1)
    result: Floats = hits_b / n_draws
    return result


@lru_cache(maxsize=2)
def _signs(n: int, seed: int, start: int, stop: int) -> Floats:
    """(R, n) of +-1: every combination where there are few, else draws; row 0 flips nothing."""
    if n <= EXACT_UP_TO:
        bits = np.arange(start, stop)[:, None] >> np.arange(n) & 1
    else:
        bits = np.random.default_rng([seed, start]).integers(2, size=(stop - start, n))
        bits[: start == 0] = 0
    return np.asarray(1.0 - 2.0 * bits, dtype=np.float64)


def seed_estimate(
    value: float, without_s: Floats, limit: float = np.inf, quadratic: float = 0.0
) -> TestedEstimate:
    """Interval and p-value when the seeds are the unit: delete-one-seed jackknife, Student's t.

    `seed_estimates` of one study.
    """
    found = seed_estimates(np.array([value]), without_s[None], limit, np.array([quadratic]))
    return found.one(0)


def seed_estimates(
    value_b: Floats, without_bs: Floats, limit: float = np.inf, quadratic_b: Floats | float = 0.0
) -> Estimates:
    """Of b studies, the interval and p-value of values of which the seeds are the unit.

    `without_bs` holds the value with seed s left out of every prompt and arm (Tukey 1958). For
    U-statistics this variance counts the quadratic part 2(n-1)/(n-2) times (Efron & Stein 1981);
    `quadratic_b` is that part once (`spread.PairSums`), and a quarter of the excess is taken off.
    The p-value is never below 2^(1-S), what S signs could show at best. All-equal values have no
    spread: [value, value], and p = 1 where it is 0.
    """
    n = without_bs.shape[1]
    deviations_bs = without_bs - without_bs.mean(axis=1, keepdims=True)
    variance_b = (n - 1) / n * (deviations_bs**2).sum(axis=1)
    times = 2 * (n - 1) / max(n - 2, 1)
    # However large the quadratic part reads, it is in there no more than `times` times.
    excess_b = np.minimum((times - 1) * quadratic_b, (1 - 1 / times) * variance_b)
    error_b = np.sqrt(variance_b - EXCESS_TAKEN * excess_b)
    varied = error_b >= ROUNDING
    half_b = np.where(varied, float(stats.t.ppf(0.975, n - 1)) * error_b, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        p_b = np.where(
            varied,
            2 * stats.t.sf(np.abs(value_b) / error_b, n - 1),
            np.where(np.abs(value_b) < ROUNDING, 1.0, 0.0),
        )
    return Estimates(
        value_b,
        np.maximum(value_b - half_b, np.minimum(-limit, value_b)),
        np.minimum(value_b + half_b, np.maximum(limit, value_b)),
        np.maximum(p_b, 2.0 ** (1 - n)),
    )


def imbalance_without_each_seed(codes_ps: Ints, target_pk: Floats) -> Floats:
    """(..., P, S) imbalance without each seed in turn. NaN where that leaves fewer than two."""
    n_values = target_pk.shape[-1]
    one_hot_psk = codes_ps[..., None] == np.arange(n_values)
    counts_psk = count_values(codes_ps, n_values)[..., None, :] - one_hot_psk
    return imbalance(counts_psk, target_pk[..., None, :])


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


def overshoot_p(crossed: int, prompts: int, by_chance: float) -> float:
    """p-value of at least so many prompts crossing, were the treated arm exactly on target.

    `by_chance` is the mean of `Overshoot.by_chance_p`. Binomial: where that differs between
    prompts the true tail is the thinner one (Hoeffding 1956), so this errs towards silence.
    """
    return float(stats.binom.sf(crossed - 1, prompts, by_chance))


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
    return float((steepest / farthest(target_pk)).max() * z2 / (n_pairs + z2))


def farthest(target_pk: Floats) -> Floats:
    """(...) greatest squared distance from a target: that of its rarest value shown alone."""
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
