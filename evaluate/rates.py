"""How often, and how much less often: rates of pictures, paired between arms.

Used for fidelity (does what was asked for come?), for subjects right, for shares and for unreadable
pictures. Axes: P prompts, C clusters of prompts, S seeds. Rates are in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from unskew.evaluate.stats import Estimate, Floats, Ints, cluster_means, sign_flip_p

Z = float(stats.norm.ppf(0.975))


def rate_interval(rates_C: Floats, n: int, fixed: bool) -> tuple[float, float]:
    """95 % interval of a mean rate over clusters that hold n pictures in all.

    Clopper & Pearson's at the effective number of pictures (Korn & Graubard 1998): what clustering
    leaves of n, so that a rate of 0 or 1 still has an honest interval. `fixed`: the prompts are no
    sample, and the n pictures count as independent.
    """
    rate = float(rates_C.mean())
    size = _effective_size(rate * (1 - rate), rates_C, n, fixed)
    hits = rate * size
    lo = stats.beta.ppf(0.025, hits, size - hits + 1) if hits > 0 else 0.0
    hi = stats.beta.ppf(0.975, hits + 1, size - hits) if hits < size else 1.0
    return float(lo), float(hi)


def paired_rate_change(
    baseline_PS: NDArray[np.bool_],
    treated_PS: NDArray[np.bool_],
    clusters_P: Ints,
    fixed: bool,
    seed: int,
) -> Estimate:
    """Change of a hit rate, treated - baseline, from the same cells in both arms; below 0 is worse.

    Mean over clusters of their prompts' means. Interval: Tango's score interval for paired
    proportions (1998) at the effective number of pairs (Korn & Graubard 1998). Pairs that all agree
    give about +-3.84 / n, not [0, 0]: that none of n pairs disagreed leaves that much possible.
    `fixed`: the prompts are no sample, and every pair counts.
    """
    lost_C = cluster_means((baseline_PS & ~treated_PS).mean(-1), clusters_P)
    won_C = cluster_means((treated_PS & ~baseline_PS).mean(-1), clusters_P)
    lost, won = float(lost_C.mean()), float(won_C.mean())
    change_C = won_C - lost_C
    spread = lost + won - (won - lost) ** 2
    size = _effective_size(spread, change_C, baseline_PS.size, fixed)
    lo, hi = _tango(lost, won, size)
    return Estimate(won - lost, lo, hi, sign_flip_p(change_C, seed))


def _effective_size(spread: float, values_C: Floats, n: int, fixed: bool) -> float:
    """How many independent pictures, each of variance `spread`, tell as much as the clusters do.

    At most n; shrunk as Student's t asks for few clusters.
    """
    if fixed:
        return float(n)
    n_clusters = len(values_C)
    error2 = float(values_C.var(ddof=1)) / n_clusters
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

    lo = -1.0 if change <= -1 else float(optimize.brentq(excess, -1.0, change))
    hi = 1.0 if change >= 1 else float(optimize.brentq(excess, change, 1.0))
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
