"""Have the pictures collapsed, and how much of each stayed? Statistics of pictures as pictures.

Pure functions on arrays. Axes: p prompts, s seeds, n pictures; the same seed is the same noise in
both arms. NaN, or -1 in codes, stands where a picture is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unskew.evaluate.stats import (
    Estimate,
    Floats,
    Ints,
    cluster_estimate,
    cluster_means,
    seed_estimate,
)

Bytes = NDArray[np.uint8]
LEAST = 1.0
"""Sharpness, contrast and colourfulness below this count as this: a blank picture has none, and
the ratio to none says nothing."""
WINDOW, SIGMA = 11, 1.5
"""Of SSIM's Gaussian window, in pixels."""
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


@dataclass(frozen=True)
class Stayed:
    """How much of the picture stayed; see `identity`."""

    value: Estimate
    same_noise: float
    other_noise: float


def paired_mean(values_ps: Floats, clusters_p: Ints, fixed: bool, seed: int) -> Estimate | None:
    """Mean over clusters of their prompts' means, with its 95 % interval; NaN is left out.

    None where too little is there: two clusters, or, where the seeds are the unit (`fixed`), two
    pictures of a prompt.
    """
    there_ps = ~np.isnan(values_ps)
    n_p1 = there_ps.sum(axis=1, keepdims=True)
    sums_p1 = np.nansum(values_ps, axis=1, keepdims=True)
    enough_p = n_p1[:, 0] >= (2 if fixed else 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        without_ps = (sums_p1 - np.nan_to_num(values_ps)) / (n_p1 - there_ps)
        columns = np.concatenate([sums_p1 / n_p1, without_ps], axis=1)
    return _estimate(columns[enough_p], clusters_p[enough_p], fixed, seed)


def _estimate(columns_ps: Floats, clusters_p: Ints, fixed: bool, seed: int) -> Estimate | None:
    """From (P, 1 + S) values of all seeds and without each; see `paired_mean`."""
    _, clusters_p = np.unique(clusters_p, return_inverse=True)
    n_clusters = int(clusters_p.max(initial=-1)) + 1
    if n_clusters < (1 if fixed else 2):
        return None
    columns_cs = cluster_means(columns_ps, clusters_p.astype(np.int64))
    if fixed:
        value, *without_s = columns_cs.mean(axis=0)
        return seed_estimate(float(value), np.array(without_s))
    return cluster_estimate(columns_cs[:, 0], seed)


def log_ratio(baseline_ps: Floats, treated_ps: Floats) -> Floats:
    """(P, S) logarithm of treated / baseline; 0 = as before, NaN where a picture is missing."""
    result: Floats = np.log(np.maximum(treated_ps, LEAST) / np.maximum(baseline_ps, LEAST))
    return result


def repeated(codes_ps: Ints) -> float:
    """Share of the pictures that another seed of their prompt shows too; equal codes are equal.

    0 = every seed shows a picture of its own, 1 = none does: the mode has collapsed. NaN without a
    picture.
    """
    there_ps = codes_ps >= 0
    again = 0
    for codes_s in codes_ps:
        _, times = np.unique(codes_s[codes_s >= 0], return_counts=True)
        again += int(times[times > 1].sum())
    return again / int(there_ps.sum()) if there_ps.any() else float("nan")


def identity(
    baseline_pshw: Bytes,
    treated_pshw: Bytes,
    there_ps: NDArray[np.bool_],
    clusters_p: Ints,
    fixed: bool,
    seed: int,
) -> Stayed | None:
    """How much of the picture stayed: SSIM of pairs, on a scale that the baseline's seeds set.

    (mean SSIM of the pairs from the same noise - o) / (1 - o), where o is the mean SSIM of the
    baseline's pictures of one prompt from different seeds. 1 = the same pictures; 0 = as unlike as
    other seeds are. `there_ps` says where both pictures are. None where too few are, or where the
    baseline's seeds all show the same.
    """
    fewest = 3 if fixed else 2
    enough_p = there_ps.sum(axis=1) >= fewest
    if not enough_p.any():
        return None
    kept = zip(baseline_pshw[enough_p], treated_pshw[enough_p], there_ps[enough_p], strict=True)
    found = [_similarities(base[there], treated[there], there) for base, treated, there in kept]
    same_ps, other_ps = (np.stack(part) for part in zip(*found, strict=True))
    clusters_p = clusters_p[enough_p]
    _, numbers_p = np.unique(clusters_p, return_inverse=True)
    same, other = (
        float(cluster_means(part[:, 0], numbers_p.astype(np.int64)).mean())
        for part in (same_ps, other_ps)
    )
    if 1 - other < 1e-6:
        return None
    value = _estimate((same_ps - other_ps) / (1 - other), clusters_p, fixed, seed)
    return Stayed(value, same, other) if value else None


def _similarities(
    base_nhw: Bytes, treated_nhw: Bytes, there_s: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Of a prompt, (1 + S) mean SSIM from the same noise and from others: of all, without each."""
    n = len(base_nhw)
    same_n = ssim(base_nhw, treated_nhw)
    pair_nn = np.zeros((n, n))
    for at in range(1, n):
        pair_nn[at, :at] = ssim(base_nhw[at:][:1], base_nhw[:at])
    pair_nn += pair_nn.T
    same = np.full(1 + len(there_s), same_n.mean())
    other = np.full(1 + len(there_s), pair_nn.sum() / (n * (n - 1)))
    without = np.flatnonzero(there_s) + 1
    same[without] = (same_n.sum() - same_n) / (n - 1)
    if n > 2:
        other[without] = (pair_nn.sum() - 2 * pair_nn.sum(axis=1)) / ((n - 1) * (n - 2))
    return same, other


def ssim(one_nhw: Bytes, other_nhw: Bytes) -> Floats:
    """(n,) mean structural similarity of grey pictures (Wang et al. 2004, equation 13).

    1 = the same, 0 = nothing in common, below 0 = reversed. A Gaussian window of 11 pixels, whole
    inside of the picture; one of the two may be a single picture.
    """
    one, other = one_nhw.astype(np.float64), other_nhw.astype(np.float64)
    mean_1, mean_2 = _blurred(one), _blurred(other)
    both = _blurred(one * other) - mean_1 * mean_2
    spread = _blurred(one**2) - mean_1**2 + _blurred(other**2) - mean_2**2
    alike = (2 * mean_1 * mean_2 + C1) * (2 * both + C2)
    result: Floats = (alike / ((mean_1**2 + mean_2**2 + C1) * (spread + C2))).mean(axis=(1, 2))
    return result


def _blurred(images_nhw: Floats) -> Floats:
    """Weighted by the window at every place where it fits."""
    rows, columns = (_window(size) for size in images_nhw.shape[1:])
    result: Floats = rows @ images_nhw @ columns.T
    return result


def _window(size: int) -> Floats:
    """(size - 10, size) the Gaussian window at each place along one side."""
    steps = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (steps / SIGMA) ** 2)
    placed = np.zeros((size - WINDOW + 1, size))
    for at, row in enumerate(placed):
        row[at : at + WINDOW] = weights / weights.sum()
    return placed
