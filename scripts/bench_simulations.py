"""Studies made up with a known truth, many at once, for measuring what the statistics promise.

Axes: b studies, c units (prompts, or subjects with several wordings), p prompts, s seeds, k values.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from unskew.evaluate.spread import mean_sums
from unskew.evaluate.stats import (
    Estimates,
    Floats,
    Ints,
    cluster_estimates,
    cluster_means,
    count_values,
    farthest,
    imbalance,
    imbalance_without_each_seed,
    seed_estimates,
)

CELLS_AT_ONCE = 1_500_000
"""Pictures of an arm that are drawn together."""
WORDINGS = (1, 2, 3)
"""Prompts of the first, second, third subject and so on, in turn, where subjects have several."""
TRUTH_POINTS = 2**17
DIMENSIONS = 4


@dataclass(frozen=True)
class Situation:
    """How skewed a population of prompts is, and what an adapter makes of it.

    A picture shows a value by where a normal variable falls between the target's quantiles; a
    prompt's skew shifts that variable, 0 is on target. Before: normal over prompts, or two humps.
    """

    title: str
    spread: float = 1.2
    """Standard deviation of the prompts' skew; 1.2 makes a mean imbalance of about .4."""
    humps: float = 0.0
    """Where the two humps lie; 0 is one of them, at 0."""
    kept: float = 1.0
    """What a mended prompt keeps of its skew."""
    left: float = 0.0
    """Standard deviation of what is added to a mended prompt's skew."""
    mended: float = 1.0
    """Share of prompts that change at all."""
    wordings: bool = False
    """Whether units are subjects with one to three prompts each, skewed alike but not equally."""

    @property
    def null(self) -> bool:
        """Whether the arms are alike."""
        return self.kept == 1 and self.left == 0

    def skews(self, uniform: Floats) -> tuple[Floats, Floats]:
        """((...), (...)) skew before and after, from (..., 4) numbers uniform on (0, 1)."""
        z = stats.norm.ppf(np.clip(uniform, 1e-12, 1 - 1e-12))
        before = self.spread * z[..., 0] + np.where(uniform[..., 1] < 0.5, -1, 1) * self.humps
        after = self.kept * before + self.left * z[..., 2]
        return before, np.where(uniform[..., 3] < self.mended, after, before)


SITUATIONS = {
    "nothing": Situation("nothing changed"),
    "nothing, saturated": Situation("nothing changed, most prompts one-sided", 0.3, humps=1.6),
    "mended": Situation("mended", kept=0.3, left=0.2),
    "half": Situation("six of ten prompts mended", kept=0.2, mended=0.6),
    "round": Situation("turned round", kept=-0.5, left=0.2),
    "wordings": Situation("mended, one to three wordings", kept=0.3, left=0.2, wordings=True),
    "few": Situation("one of ten prompts mended", 0.3, humps=1.6, kept=0.1, mended=0.1),
    "certain": Situation("nothing changed, nearly certain", 0.2, humps=2.6),
}


@dataclass(frozen=True)
class Cell:
    """One kind of study."""

    situation: Situation
    target: tuple[float, ...]
    prompts: int
    """Units: subjects where they have several wordings."""
    seeds: int
    fixed: bool = False
    """Whether the seeds are the unit, and the truth is that of the study's own prompts."""
    correlation: float = 0.5
    """Of the two arms' noise."""
    unreadable: float = 0.1
    """Mean share of unreadable pictures; a prompt's own lies between 0 and three times it."""

    @property
    def clusters_p(self) -> Ints:
        """(p,) the unit of each prompt."""
        sizes = WORDINGS if self.situation.wordings else (1,)
        return np.repeat(np.arange(self.prompts), np.resize(sizes, self.prompts))

    def key(self, studies: int, seed: int) -> str:
        """A name that another cell, another number of studies or another seed does not share."""
        return hashlib.sha256(repr((asdict(self), studies, seed)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Coverage:
    """How often a cell's intervals held the truth, and found something."""

    studies: int
    truth: float
    """The true change; of fixed prompts its mean over studies."""
    covered: float
    missed_low: float
    """Share of intervals that lie below the truth."""
    width: float
    """Mean width."""
    found: float
    """Share of intervals without 0."""
    p_small: float
    """Share of p-values of at most .05."""


def coverage(cell: Cell, studies: int, seed: int) -> Coverage:
    """Draw studies of a kind, estimate each by `evaluate/stats.py`, and compare with the truth."""
    truth = true_change(cell.situation, cell.target)
    parts = []
    for codes_abps, skews_abp in draw(cell, studies, seed):
        found = estimate(cell, codes_abps, seed)
        held = own_truth(cell, skews_abp) if cell.fixed else np.full(len(found.value), truth)
        parts.append(
            np.stack([found.lo, found.hi, found.p_value, np.broadcast_to(held, found.lo.shape)])
        )
    lo, hi, p_value, held = np.concatenate(parts, axis=1)
    usable = np.isfinite(lo)  # fixed prompts of which one can hardly be read have no interval
    lo, hi, p_value, held = lo[usable], hi[usable], p_value[usable], held[usable]
    return Coverage(
        studies=len(lo),
        truth=float(held.mean()),
        covered=float(((lo <= held) & (held <= hi)).mean()),
        missed_low=float((hi < held).mean()),
        width=float((hi - lo).mean()),
        found=float(((lo > 0) | (hi < 0)).mean()),
        p_small=float((p_value <= 0.05).mean()),
    )


@lru_cache(maxsize=256)
def true_change(situation: Situation, target: tuple[float, ...]) -> float:
    """Mean true change in imbalance over the population, by Sobol points; exact to about 1e-5."""
    sobol = stats.qmc.Sobol(DIMENSIONS, rng=0).random(TRUTH_POINTS)
    before, after = situation.skews(sobol)
    target_k = np.array(target)
    return float((true_imbalance(after, target_k) - true_imbalance(before, target_k)).mean())


def true_imbalance(skew: Floats, target_k: Floats) -> Floats:
    """(...) imbalance of prompts of known skew."""
    return distance(shares_of(skew, target_k), target_k)


def distance(shares_pk: Floats, target_k: Floats) -> Floats:
    """(...) squared distance of known shares from a target, scaled as imbalance is."""
    found: Floats = ((shares_pk - target_k) ** 2).sum(-1) / farthest(target_k)
    return found


def shares_of(skew: Floats, target_k: Floats) -> Floats:
    """(..., K) shares of the values that pictures of a prompt of this skew show."""
    below = stats.norm.cdf(cuts(target_k) - skew[..., None])
    ends = np.zeros((*skew.shape, 1))
    return np.diff(np.concatenate([ends, below, ends + 1], axis=-1), axis=-1)


def cuts(target_k: Floats) -> Floats:
    """(K - 1,) the target's quantiles of a normal variable."""
    found: Floats = stats.norm.ppf(np.cumsum(target_k)[:-1])
    return found


def own_truth(cell: Cell, skews_abp: Floats) -> Floats:
    """(B,) true change of each study's own prompts."""
    before_bp, after_bp = true_imbalance(skews_abp, np.array(cell.target))
    truth_b: Floats = cluster_means((after_bp - before_bp).T, cell.clusters_p).mean(0)
    return truth_b


def draw(cell: Cell, studies: int, seed: int) -> Iterator[tuple[Ints, Floats]]:
    """Blocks of (a, b, p, s) readings, -1 where unreadable, and the (a, b, p) skew behind them."""
    clusters_p = cell.clusters_p
    situation, target_k = cell.situation, np.array(cell.target)
    rng = np.random.default_rng([seed, int(cell.key(studies, seed), 16)])
    at_once = CELLS_AT_ONCE // (len(clusters_p) * cell.seeds)
    if cell.fixed:
        at_once = min(at_once, 2 * CELLS_AT_ONCE // cell.seeds**2)
    at_once = max(1, at_once)
    slant = math.sqrt(1 - cell.correlation**2)
    for start in range(0, studies, at_once):
        shape = (min(at_once, studies - start), len(clusters_p))
        before, after = situation.skews(rng.random((shape[0], cell.prompts, DIMENSIONS)))
        skews_abp = np.stack([before, after])[..., clusters_p]
        noise_abps = rng.standard_normal((2, *shape, cell.seeds), dtype=np.float32)
        noise_abps[1] = cell.correlation * noise_abps[0] + slant * noise_abps[1]
        noise_abps += skews_abp[..., None].astype(np.float32)
        codes_abps = np.zeros(noise_abps.shape, np.int8)
        for cut in cuts(target_k):
            codes_abps += noise_abps > cut
        # Prompts are uneven: some are hardly ever unreadable, some often.
        rate_bp1 = 3 * cell.unreadable * rng.random((*shape, 1), dtype=np.float32) ** 2
        codes_abps[rng.random(codes_abps.shape, dtype=np.float32) < rate_bp1] = -1
        yield codes_abps.astype(np.int64), skews_abp


def estimate(cell: Cell, codes_abps: Ints, seed: int) -> Estimates:
    """The change of each study by the functions that a study's rows are made with."""
    target_pk = np.tile(np.array(cell.target), (codes_abps.shape[2], 1))
    clusters_p = cell.clusters_p
    counts_abpk = count_values(codes_abps, len(cell.target))
    change_bp = imbalance(counts_abpk[1], target_pk) - imbalance(counts_abpk[0], target_pk)
    change_bc = cluster_means(change_bp.T, clusters_p).T
    if not cell.fixed:
        return _by_prompts(change_bp, change_bc, clusters_p, seed)
    without_abps = [imbalance_without_each_seed(codes, target_pk) for codes in codes_abps]
    without_bs = cluster_means((without_abps[1] - without_abps[0]).swapaxes(0, 1), clusters_p).mean(
        0
    )
    weights_p = 1 / (np.bincount(clusters_p)[clusters_p] * cell.prompts)
    quadratic_b = mean_sums(codes_abps, target_pk, weights_p).quadratic
    return seed_estimates(change_bc.mean(1), without_bs, 1.0, quadratic_b)


def _by_prompts(change_bp: Floats, change_bc: Floats, clusters_p: Ints, seed: int) -> Estimates:
    """With the prompts that have two readable pictures in both arms: nearly always all of them."""
    found = cluster_estimates(np.nan_to_num(change_bc), seed, 1.0)
    for study in np.flatnonzero(np.isnan(change_bp).any(1)):
        read = np.isfinite(change_bp[study])
        units = np.unique(clusters_p[read], return_inverse=True)[1]
        one = cluster_estimates(cluster_means(change_bp[study][read], units)[None], seed, 1.0)
        for name in ("value", "lo", "hi", "p_value"):
            getattr(found, name)[study] = getattr(one, name)[0]
    return found
