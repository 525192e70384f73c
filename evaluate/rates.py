"""How often, and how much less often: rates of pictures, paired between arms.

Used for fidelity (does what was asked for come?), for subjects right, for shares and for unreadable
pictures. Axes: p prompts, c clusters of prompts, s seeds. Rates are in [0, 1].
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from unskew.evaluate.stats import (
    ROUNDING,
    Estimate,
    Floats,
    Ints,
    cluster_means,
)

Z = float(stats.norm.ppf(0.975))


def rate_interval(rates_c: Floats, n: int, fixed: bool) -> tuple[float, float]:
    """95 % interval of a mean rate over clusters that hold n pictures in all.

    Clopper & Pearson's at the effective number of pictures (Korn & Graubard 1998): what clustering
    leaves of n, so that a rate of 0 or 1 still has an honest interval. `fixed`: the prompts are no
    sample, and the n pictures count as independent.
    """
    rate = float(rates_c.mean())
    size = _effective_size(rate * (1 - rate), rates_c, n, fixed)
    hits = rate * size
    lo = stats.beta.ppf(0.025, hits, size - hits + 1) if hits > 0 else 0.0
    hi = stats.beta.ppf(0.975, hits + 1, size - hits) if hits < size else 1.0
    return float(lo), float(hi)


def paired_rate_change(
    baseline_ps: NDArray[np.bool_],
    treated_ps: NDArray[np.bool_],
    clusters_p: Ints,
    fixed: bool,
) -> Estimate:
    """Change of a hit rate, treated - baseline, from the same cells in both arms; below 0 is worse.

    Mean over clusters of their prompts' means. Interval: Tango's score interval for paired
    proportions (1998) at the effective number of pairs (Korn & Graubard 1998). Pairs that all agree
    give about +-3.84 / n, not [0, 0]: that none of n pairs disagreed leaves that much possible.
    `fixed`: the prompts are no sample, and every pair counts.
    """
    lost_c = cluster_means((baseline_ps & ~treated_ps).mean(-1), clusters_p)
    won_c = cluster_means((treated_ps & ~baseline_ps).mean(-1), clusters_p)
    lost, won = float(lost_c.mean()), float(won_c.mean())
    change_c = won_c - lost_c
    spread = lost + won - (won - lost) ** 2
    size = _effective_size(spread, change_c, baseline_ps.size, fixed)
    lo, hi = _tango(lost, won, size)
    return Estimate(won - lost, lo, hi)


def _effective_size(spread: float, values_c: Floats, n: int, fixed: bool) -> float:
    """How many independent pictures, each of variance `spread`, tell as much as the clusters do.

    At most n; shrunk as Student's t asks for few clusters.
    """
    if fixed:
        return float(n)
    n_clusters = len(values_c)
    error2 = float(values_c.var(ddof=1)) / n_clusters
    size = min(float(n), spread / error2) if error2 > 0 else float(n)
    return size * (Z / float(stats.t.ppf(0.975, n_clusters - 1))) ** 2


def _tango(lost: float, won: float, n: float) -> tuple[float, float]:
    """The differences of paired proportions whose score statistic lies within +-1.96."""
    change = won - lost

    def excess(difference: float) -> float:
        # Tango's equations 7 and 8, per pair: `share` is the most likely share of lost pairs.
        b = (2 - won + lost) * difference - won - lost
        c = -lost * difference * (1 - difference)
        share = (np.sqrt(max(b * b - 8 * c, 0.0)) - b) / 4
        variance = max(2 * share + difference * (1 - difference), 0.0)
        return float((change - difference) ** 2 - Z**2 * variance / n)

    # At the estimate itself the variance may be 0, a root that bounds nothing: start beside it.
    low, high = change - ROUNDING, change + ROUNDING
    lo = float(optimize.brentq(excess, -1.0, low)) if low > -1 else -1.0
    hi = float(optimize.brentq(excess, high, 1.0)) if high < 1 else 1.0
    return lo, hi


def preservation_verdict(
    lo: float, hi: float, margin: float
) -> Literal["kept", "lost", "inconclusive"]:
    """What an interval of a loss allows to say; `lo` and `hi` bound the loss, above 0 is worse.

    A non-inferiority test: kept when even the worst of the interval is less than the margin, lost
    when even the best of it is more. A loss that is certain but smaller than the margin is kept:
    the margin says what matters, and was set before.
    """
    if hi < margin:
        return "kept"
    return "lost" if lo > margin else "inconclusive"


def overshoot_p(crossed: int, prompts: int, by_chance: float) -> float:
    """p-value of at least so many prompts crossing, were the treated arm exactly on target.

    `by_chance` is the mean of `stats.Overshoot.by_chance_p`. Binomial: where that differs between
    prompts the true tail is the thinner one (Hoeffding 1956), so this errs towards silence.
    """
    return float(stats.binom.sf(crossed - 1, prompts, by_chance))
