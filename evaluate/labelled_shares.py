"""Shares of what is shown, from many readings and a few labels: prediction-powered inference.

Angelopoulos et al. 2023 (Science 382:669) and PPI++ (arXiv 2311.01453): the readings of all
pictures say where the share about is, and a random sample that a person labelled says how far off
that is. No matrix is turned round and nothing is assumed of the classifier, but the labels must be
a random sample of these very pictures. The package ppi-python needs numba and scikit-learn for more
than is asked here; its answers are held against these few lines in the tests.

Axes: n pictures, k values, c clusters of prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from unskew.evaluate.stats import Estimate, Floats, Ints

FEWEST_LABELS = 10
"""Labelled pictures, with fewer an interval would say nothing."""


@dataclass(frozen=True)
class LabelledArm:
    """One arm's pictures that the classifier could read."""

    codes_n: Ints
    """Index of the value read."""
    weight_n: Floats
    """The part of the row that each picture stands for; sums to 1."""
    clusters_n: Ints
    """What is independent: the number of the prompt's subject, or, for prompts that are no sample,
    of the picture itself."""
    labels_nk: Floats
    """Part of the raters who say each value; rows sum to 1, or to less where some could not tell.
    NaN where not labelled."""
    label_weight_n: Floats
    """`weight_n` over the chance of being labelled; any scale, not used where not labelled."""

    @property
    def labelled_n(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which pictures have a label."""
        labelled: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.isfinite(self.labels_nk[:, 0])
        return labelled


@dataclass(frozen=True)
class LabelledShares:
    """Shares of an arm among pictures that can be told, with what moves them."""

    shares: tuple[Estimate, ...]
    """One a value, within [0, 1]."""
    n_labels: int
    cannot_tell: float
    """Part of the labels that said so."""
    trust: float
    """PPI++'s lambda: 0 leans on the labels alone, 1 on the readings as far as they go."""
    deviation: float
    """Standard deviation of label - trust * reading, root mean square over values that occur: n
    labels give a standard error of about deviation / sqrt(n)."""
    influence_ck: Floats
    """How far each cluster pulls each share."""


def labelled_shares(
    arm: LabelledArm, n_clusters: int, *, independent: bool = False
) -> LabelledShares:
    """PPI++ shares of all values, with one lambda, that sums their variances to the least.

    The sum over values keeps shares summing to 1. Readings are averaged over all pictures, labelled
    ones too: the paper's estimate, whose lambda is this one times the part not labelled. Intervals
    are Student's over clusters (linearised, Binder 1983), widened by 2 / n^2 of variance: n labels
    without a surprise then leave about 2.8 / n possible, as the rule of three says. `independent`:
    clusters are single pictures. Raises ValueError for fewer than ten labels.
    """
    n_values = arm.labels_nk.shape[1]
    at = arm.labelled_n
    n = int(at.sum())
    if n < FEWEST_LABELS:
        raise ValueError(f"{n} labels, needed {FEWEST_LABELS}")
    read_nk = 1.0 * (arm.codes_n[:, None] == np.arange(n_values))
    weight_n = arm.weight_n / arm.weight_n.sum()
    label_weight_n = np.where(at, arm.label_weight_n, 0.0)
    label_weight_n /= label_weight_n.sum()
    labels_nk = np.where(at[:, None], arm.labels_nk, 0.0)
    trust = _trust(labels_nk[at], read_nk[at], label_weight_n[at], read_nk, weight_n)
    off_nk = labels_nk - trust * read_nk
    off_k = label_weight_n @ off_nk
    told_k = trust * (weight_n @ read_nk) + off_k
    pull_nk = weight_n[:, None] * trust * (read_nk - weight_n @ read_nk)
    pull_nk += label_weight_n[:, None] * (off_nk - off_k)
    influence_ck = np.zeros((n_clusters, n_values))
    np.add.at(influence_ck, arm.clusters_n, pull_nk)
    # Of pictures that can be told: a ratio, whose influence is linearised.
    told = float(told_k.sum())
    share_k = told_k / told
    influence_ck = (influence_ck - influence_ck.sum(1, keepdims=True) * share_k) / told
    freedom = (n if independent else n_clusters) - 1
    rows = _intervals(share_k, influence_ck, 2 / n**2, freedom)
    variance_k = label_weight_n @ (off_nk - off_k) ** 2
    return LabelledShares(
        shares=tuple(Estimate(*np.clip(row, 0.0, 1.0).tolist()) for row in rows),
        n_labels=n,
        cannot_tell=1 - float(label_weight_n @ labels_nk.sum(1)),
        trust=trust,
        deviation=float(np.sqrt(variance_k[(share_k > 0) | (variance_k > 0)].mean())),
        influence_ck=influence_ck,
    )


def share_shift(
    baseline: LabelledShares, treated: LabelledShares, *, independent: bool = False
) -> tuple[Estimate, ...]:
    """Signed change of every share, treated - baseline, with its 95 % interval; 0 is no change.

    Both arms' clusters are the same prompts, so that what moves both is in neither's way.
    """
    shift_k = np.array(
        [b.value - a.value for a, b in zip(baseline.shares, treated.shares, strict=True)]
    )
    counts = (baseline.n_labels, treated.n_labels)
    freedom = (min(counts) if independent else len(baseline.influence_ck)) - 1
    extra = sum(2 / n**2 for n in counts)
    rows = _intervals(shift_k, treated.influence_ck - baseline.influence_ck, extra, freedom)
    return tuple(Estimate(*np.clip(row, -1.0, 1.0).tolist()) for row in rows)


def labels_needed(deviation: float, half_width: float) -> int:
    """About how many labels give a share's 95 % interval this half-width.

    (1.96 deviation / half_width)^2. Of a classifier with Se .90 and Sp .85 an evenly shown value's
    label differs from its reading with a standard deviation of .35 (the root of .125 - .025^2), so
    that the standard error is about .35 / sqrt(n).
    """
    return int(np.ceil((float(stats.norm.ppf(0.975)) * deviation / half_width) ** 2))


def _trust(
    labels_nk: Floats, read_nk: Floats, weight_n: Floats, every_nk: Floats, every_weight_n: Floats
) -> float:
    """Slope of labels on readings, over all values together, within [0, 1]."""
    labels = labels_nk - weight_n @ labels_nk
    covariance = float((weight_n @ (labels * (read_nk - weight_n @ read_nk))).sum())
    variance = float((every_weight_n @ (every_nk - every_weight_n @ every_nk) ** 2).sum())
    return min(max(covariance / variance, 0.0), 1.0) if variance > 0 else 0.0


def _intervals(value_k: Floats, influence_ck: Floats, extra: float, freedom: int) -> Floats:
    """(K, 3) value, low, high."""
    n = len(influence_ck)
    error_k = np.sqrt((influence_ck**2).sum(0) * n / (n - 1) + extra)
    half_k = float(stats.t.ppf(0.975, freedom)) * error_k
    return np.stack([value_k, value_k - half_k, value_k + half_k], axis=1)
