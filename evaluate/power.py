"""Before a study: how small a change can it see? After one that settled nothing: what would?

Pure functions. A change is a difference of imbalances, treated - baseline, below 0 better. Axes:
u prompts of the population that is thought of, w noise, k attribute values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from unskew.evaluate.spread import PairSums
from unskew.evaluate.stats import Floats, Ints, cluster_means, farthest

POWER = 0.8
MOST = 1_000_000
"""Prompts or seeds beyond which nobody goes."""
MOST_SPREAD = 100.0
"""With skews so far apart nearly every prompt shows one value only."""
NOISE_NODES = 48
PROMPT_NODES = 200
LEFT_NODES = 7


@dataclass(frozen=True)
class Variance:
    """What the variance of a mean change over prompts is made of; see `spread`."""

    between: float
    """Variance of the prompts' true changes; 0 where a study speaks of its own prompts."""
    linear: float
    """Per seed; divided by n."""
    quadratic: float
    """Per pair of seeds; divided by n (n - 1)."""

    def of_mean(self, n_prompts: float, n_seeds: float) -> float:
        """Variance of the mean over n prompts with n seeds each."""
        within = self.linear / n_seeds + self.quadratic / (n_seeds * (n_seeds - 1))
        return (self.between + within) / n_prompts


@dataclass(frozen=True)
class Outlook:
    """What a study is expected to meet, before there is a picture.

    A prompt's skew shifts a normal variable, from which the values are cut at the target's
    quantiles; skews are normal over prompts, and an adapter keeps a part of each.
    """

    target: tuple[float, ...]
    baseline: float = 0.4
    """Mean imbalance of the baseline, above 0; under 1, and under less where the target is uneven.
    """
    correlation: float = 0.5
    """Of the two arms' noise, in [0, 1): what the same seeds bring. 0 is pictures not paired."""
    unevenness: float = 0.2
    """How differently prompts respond: standard deviation of what the adapter adds to their skew,
    in that of one picture's noise. 0 is that all keep the same part."""


@dataclass(frozen=True)
class Detectable:
    """The smallest improvement that 80 of 100 studies see."""

    change: float
    """In imbalance, below 0."""
    share: float
    """Of the baseline's imbalance, in (0, 1]."""
    kept: float
    """The part of their skew that prompts then keep, in [0, 1)."""


@dataclass(frozen=True)
class Settling:
    """What would settle a row with 80 % probability, were its estimate the truth."""

    prompts: int | None
    """Prompts (or subjects) in all, at the present seeds. None where they are no sample."""
    seeds: int | None
    """Seeds a prompt in all, at the present prompts. None where no number would do."""


def smallest_change(outlook: Outlook, n_prompts: int, n_seeds: int) -> Detectable | None:
    """The smallest improvement seen with 80 % power. None where not even all skew gone would be.

    Seen is a 95 % interval that excludes 0. Needs two prompts and two seeds. Raises ValueError for
    a baseline that this target does not allow.
    """
    spread = skew_spread(outlook)

    def seen(kept: float) -> float:
        expected = expect(outlook, spread, kept)
        if expected.change >= 0:
            return 0.0
        error = np.sqrt(expected.variance.of_mean(n_prompts, n_seeds))
        return power(expected.change, error, n_prompts, *expected.shape(n_seeds))

    if seen(0.0) < POWER:
        return None
    kept = float(optimize.brentq(lambda part: seen(part) - POWER, 0.0, 1.0, xtol=1e-4))
    change = expect(outlook, spread, kept).change
    return Detectable(change, -change / outlook.baseline, kept)


def power(
    change: float, error: float, n_prompts: int, skewness: float = 0.0, kurtosis: float = 0.0
) -> float:
    """Probability that Student's 95 % interval lies wholly on the true change's side of 0.

    `error` is the standard error of the change. For a change of 0 it is .025. `skewness` and excess
    `kurtosis` of the prompts' changes enter by the first two moments of t (Cramer 1946, ch. 27):
    with a long tail on the side of the change, small changes come with small errors.
    """
    df, effect = n_prompts - 1, abs(change) / error
    bar = stats.t.ppf(0.975, df)
    if effect - bar > 30:  # where scipy's tail is NaN
        return 1.0
    plain = float(stats.nct.sf(bar, df, effect))
    tail = skewness * np.sign(change) / np.sqrt(n_prompts)
    shift = effect * 3 * kurtosis / (8 * n_prompts) - tail / 2
    variance = 1 + effect**2 / (2 * n_prompts)
    now = variance - effect * tail + effect**2 * kurtosis / (4 * n_prompts)
    z = (stats.norm.ppf(plain) * np.sqrt(variance) + shift) / np.sqrt(max(now, 0.25))
    return float(stats.norm.cdf(z))


def skew_spread(outlook: Outlook) -> float:
    """Standard deviation over prompts of the skew that makes the baseline's imbalance.

    Raises ValueError where no skew does: with an uneven target half of the prompts lean to a value
    that is wanted more, and are never far off.
    """
    target_k = np.array(outlook.target)
    skew_u, _, weight_u = _population()

    def excess(spread: float) -> float:
        off_u = ((_shown(spread * skew_u[:, None], target_k) - target_k) ** 2).sum(-1)
        return float(weight_u @ off_u) / float(farthest(target_k)) - outlook.baseline

    most = excess(MOST_SPREAD) + outlook.baseline
    if not 0 < outlook.baseline < most:
        raise ValueError(
            f"baseline must be > 0 and under {most:.2f} with the target {outlook.target}, got "
            f"{outlook.baseline}"
        )
    return float(optimize.brentq(excess, 1e-6, MOST_SPREAD))


@dataclass(frozen=True)
class Expected:
    """What prompts of a population change by; fields (u,), weights sum to 1."""

    weight_u: Floats
    change_u: Floats
    """True change of each."""
    linear_u: Floats
    """Parts of the sampling variance; see `Variance`."""
    quadratic_u: Floats

    @property
    def change(self) -> float:
        """Mean true change."""
        return float(self.weight_u @ self.change_u)

    @property
    def variance(self) -> Variance:
        """Of the changes that are read."""
        return Variance(
            between=float(self.weight_u @ (self.change_u - self.change) ** 2),
            linear=float(self.weight_u @ self.linear_u),
            quadratic=float(self.weight_u @ self.quadratic_u),
        )

    def shape(self, n_seeds: int) -> tuple[float, float]:
        """Skewness and excess kurtosis of the changes that are read, sampling error as normal."""
        off_u = self.change_u - self.change
        within_u = self.linear_u / n_seeds + self.quadratic_u / (n_seeds * (n_seeds - 1))
        variance = self.variance.of_mean(1, n_seeds)
        third = self.weight_u @ (off_u**3 + 3 * off_u * within_u)
        fourth = self.weight_u @ (off_u**4 + 6 * off_u**2 * within_u + 3 * within_u**2)
        return float(third / variance**1.5), float(fourth / variance**2 - 3)


def expect(outlook: Outlook, spread: float, kept: float) -> Expected:
    """What is to be expected where prompts keep a part of their skew.

    The linear part of prompt u is 4 Var(g) for one seed's g = p1 - q of what treated shows less
    p0 - q of what baseline shows, the quadratic one twice the squared sizes of their covariances.
    """
    target_k = np.array(outlook.target)
    far = float(farthest(target_k))
    skew_u, left_u, weight_u = _population()
    before_u = spread * skew_u
    after_u = kept * before_u + outlook.unevenness * left_u
    # What the arms' noise has in common is w; given it they are independent.
    noise_w, weight_w = _normal(NOISE_NODES)
    common = np.sqrt(outlook.correlation)
    given = [
        _shown(skew_u[:, None] + common * noise_w, target_k, 1 - outlook.correlation)
        for skew_u in (before_u, after_u)
    ]
    p0_uk, p1_uk = (np.einsum("uwk,w->uk", shares_uwk, weight_w) for shares_uwk in given)
    joint_ukl = np.einsum("uwk,uwl,w->ukl", *given, weight_w, optimize=True)
    off0_uk, off1_uk = p0_uk - target_k, p1_uk - target_k
    change_u = ((off1_uk**2).sum(-1) - (off0_uk**2).sum(-1)) / far
    covariances = [
        _covariance(p0_uk[:, :, None] * np.eye(len(target_k)), p0_uk, p0_uk),
        _covariance(p1_uk[:, :, None] * np.eye(len(target_k)), p1_uk, p1_uk),
        _covariance(joint_ukl, p0_uk, p1_uk),
    ]
    times = (1, 1, -2)
    linear_u = sum(
        n * np.einsum("uk,ukl,ul->u", a, c, b)
        for n, c, (a, b) in zip(
            times,
            covariances,
            ((off0_uk, off0_uk), (off1_uk, off1_uk), (off0_uk, off1_uk)),
            strict=True,
        )
    )
    quadratic_u = sum(n * (c**2).sum((1, 2)) for n, c in zip(times, covariances, strict=True))
    return Expected(weight_u, change_u, 4 * linear_u / far**2, 2 * quadratic_u / far**2)


def _covariance(joint_ukl: Floats, p_uk: Floats, p_ul: Floats) -> Floats:
    found: Floats = joint_ukl - p_uk[:, :, None] * p_ul[:, None, :]
    return found


def _population() -> tuple[Floats, Floats, Floats]:
    """Skew, what is added to it, and weight of the points that stand for all prompts."""
    # Evenly spaced quantiles: shares level off, which Gauss' nodes do not follow.
    skew_u = stats.norm.ppf((np.arange(PROMPT_NODES) + 0.5) / PROMPT_NODES)
    left_u, weight_u = _normal(LEFT_NODES)
    return (
        np.repeat(skew_u, LEFT_NODES),
        np.tile(left_u, PROMPT_NODES),
        np.tile(weight_u, PROMPT_NODES) / PROMPT_NODES,
    )


def _normal(n: int) -> tuple[Floats, Floats]:
    """Gauss-Hermite nodes and weights of a standard normal variable."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return nodes, weights / weights.sum()


def _shown(skew: Floats, target_k: Floats, variance: float = 1.0) -> Floats:
    """(..., K) shares that a normal variable about `skew` shows; (n, 1) skew gives (n, K)."""
    cuts = stats.norm.ppf(np.cumsum(target_k)[:-1])
    shape = skew.shape[:-1] if skew.shape[-1] == 1 else skew.shape
    below = stats.norm.cdf((cuts - skew.reshape(*shape, 1)) / np.sqrt(variance))
    end = np.zeros((*shape, 1))
    return np.diff(np.concatenate([end, below, end + 1], axis=-1), axis=-1)


def observed_variance(change_c: Floats, sums: PairSums, clusters_p: Ints, n_seeds: int) -> Variance:
    """The parts of the variance of a study's mean change, from its own prompts.

    `change_c` is each cluster's change, `sums` are those of its prompts, drawn with `n_seeds`
    seeds. Unreadable pictures are taken to be as frequent with more seeds.
    """
    size_c = np.bincount(clusters_p)
    linear, quadratic = (
        max(0.0, float((cluster_means(part_p, clusters_p) / size_c).mean()))
        for part_p in (sums.linear, sums.quadratic)
    )
    between = max(0.0, float(change_c.var(ddof=1)) - linear - quadratic)
    return Variance(between, linear * n_seeds, quadratic * n_seeds * (n_seeds - 1))


def seeds_variance(sums: PairSums, n_seeds: int) -> Variance:
    """The same where the prompts are no sample; `sums` are those of their mean."""
    linear, quadratic = (max(0.0, float(part)) for part in (sums.linear, sums.quadratic))
    return Variance(0.0, linear * n_seeds, quadratic * n_seeds * (n_seeds - 1))


def settling(
    value: float, variance: Variance, margin: float, n_prompts: int | None, n_seeds: int
) -> Settling:
    """How many prompts, or seeds, would settle an inconclusive row with 80 % probability.

    Settled is an interval that excludes 0 or lies within +-margin. `n_prompts` is None where the
    prompts are no sample and `variance` is that of their mean. The numbers are more than there are
    now.
    """

    def prompts_do(n: int) -> bool:
        return _settled(value, variance.of_mean(n, n_seeds), n - 1, margin) >= POWER

    def seeds_do(n: int) -> bool:
        df = n - 1 if n_prompts is None else n_prompts - 1
        return _settled(value, variance.of_mean(n_prompts or 1, n), df, margin) >= POWER

    return Settling(
        prompts=None if n_prompts is None else _least(prompts_do, n_prompts),
        seeds=_least(seeds_do, n_seeds),
    )


def _settled(value: float, variance: float, df: float, margin: float) -> float:
    """Probability that an estimate of this true value and variance is not inconclusive."""
    error = max(np.sqrt(variance), 1e-12)
    half = float(stats.t.ppf(0.975, df)) * error
    within = np.array([half, max(0.0, margin - half)])
    at_most = stats.norm.cdf((within - value) / error) - stats.norm.cdf((-within - value) / error)
    return 1.0 - max(0.0, float(at_most[0] - at_most[1]))


def _least(does: Callable[[int], bool], now: int) -> int | None:
    """The smallest number over `now` that does, if one up to MOST does."""
    low, high = now, now + 1
    while not does(high):
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if does(middle) else (middle, high)
    return high
