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
    enough_p = (~np.isnan(values_ps)).sum(axis=1) >= (2 if fixed else 1)
    columns_pc = _mean_and_without(values_ps[enough_p])
    return _estimate(columns_pc, clusters_p[enough_p], fixed, seed)


def _estimate(columns_pc: Floats, clusters_p: Ints, fixed: bool, seed: int) -> Estimate | None:
    """From (P, 1 + S) values of all seeds and without each; see `paired_mean`."""
    _, clusters_p = np.unique(clusters_p, return_inverse=True)
    n_clusters = int(clusters_p.max(initial=-1)) + 1
    if n_clusters < (1 if fixed else 2):
        return None
    columns_cc = cluster_means(columns_pc, clusters_p.astype(np.int64))
    if fixed:
        value, *without_s = columns_cc.mean(axis=0)
        return seed_estimate(float(value), np.array(without_s))
    return cluster_estimate(columns_cc[:, 0], seed)


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


def seeds_alike(images_pshw: Bytes, there_ps: NDArray[np.bool_]) -> Floats:
    """(P, S, S) SSIM of a prompt's pictures from two seeds each; 0 of one with itself, or none."""
    n_prompts, n_seeds = there_ps.shape
    found = np.zeros((n_prompts, n_seeds, n_seeds))
    for images_shw, there_s, found_ss in zip(images_pshw, there_ps, found, strict=True):
        seeds = np.flatnonzero(there_s)
        windowed = Windowed.of(images_shw[seeds])
        for n in range(1, len(seeds)):
            found_ss[seeds[n], seeds[:n]] = windowed[n : n + 1].ssim(windowed[:n])
        found_ss += found_ss.T.copy()
    return found


def identity(
    baseline_pshw: Bytes,
    treated_pshw: Bytes,
    alike_pss: Floats,
    there_ps: NDArray[np.bool_],
    clusters_p: Ints,
    fixed: bool,
    seed: int,
) -> Stayed | None:
    """How much of the picture stayed: SSIM of pairs, on a scale that the baseline's seeds set.

    (mean SSIM of the pairs from the same noise - o) / (1 - o), where o is the mean SSIM of the
    baseline's pictures of one prompt from different seeds, `seeds_alike`. 1 = the same pictures;
    0 = as unlike as other seeds are. `there_ps` says where both pictures are. None where too few
    are, or where the baseline's seeds all show the same.
    """
    there_ps = there_ps & (there_ps.sum(axis=1, keepdims=True) >= (3 if fixed else 2))
    enough_p = there_ps.any(axis=1)
    if not enough_p.any():
        return None
    same_ps = np.full(there_ps.shape, np.nan)
    for same_s, base, treated, there in zip(
        same_ps, baseline_pshw, treated_pshw, there_ps, strict=True
    ):
        same_s[there] = ssim(base[there], treated[there])
    same_pc = _mean_and_without(same_ps[enough_p])
    other_pc = _pairs_and_without(alike_pss[enough_p], there_ps[enough_p])
    _, numbers_p = np.unique(clusters_p[enough_p], return_inverse=True)
    same_cc, other_cc = (
        cluster_means(part, numbers_p.astype(np.int64)) for part in (same_pc, other_pc)
    )
    value = _ratio(same_cc - other_cc, 1 - other_cc, fixed, seed)
    if value is None:
        return None
    return Stayed(value, float(same_cc[:, 0].mean()), float(other_cc[:, 0].mean()))


def _ratio(above_cc: Floats, below_cc: Floats, fixed: bool, seed: int) -> Estimate | None:
    """Ratio of means over clusters, of (C, 1 + S) values of all seeds and without each.

    Where clusters are resampled, by the ratio's linear approximation (Cochran 1977, section 2.11).
    """
    above, below = above_cc.mean(axis=0), below_cc.mean(axis=0)
    if below.min() < 1e-6 or (len(above_cc) < 2 and not fixed):
        return None
    value, *without_s = above / below
    if fixed:
        return seed_estimate(float(value), np.array(without_s))
    return cluster_estimate(value + (above_cc[:, 0] - value * below_cc[:, 0]) / below[0], seed)


def _mean_and_without(values_ps: Floats) -> Floats:
    """(P, 1 + S) mean over the seeds that are there, and without each of them."""
    there_ps = ~np.isnan(values_ps)
    n_p1 = there_ps.sum(axis=1, keepdims=True)
    sums_p1 = np.nansum(values_ps, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        without_ps = (sums_p1 - np.nan_to_num(values_ps)) / (n_p1 - there_ps)
        columns: Floats = np.concatenate([sums_p1 / n_p1, without_ps], axis=1)
    return columns


def _pairs_and_without(values_pss: Floats, there_ps: NDArray[np.bool_]) -> Floats:
    """(P, 1 + S) mean over pairs of different seeds that are there, and without each of them."""
    values_pss = values_pss * (there_ps[:, :, None] & there_ps[:, None, :])
    of_seed_ps = values_pss.sum(axis=2)
    sums_p1, n_p1 = of_seed_ps.sum(axis=1, keepdims=True), there_ps.sum(axis=1, keepdims=True)
    left_ps = n_p1 - there_ps
    with np.errstate(invalid="ignore", divide="ignore"):
        without_ps = (sums_p1 - 2 * of_seed_ps) / (left_ps * (left_ps - 1))
    columns: Floats = np.concatenate([sums_p1 / (n_p1 * (n_p1 - 1)), without_ps], axis=1)
    return columns


@dataclass(frozen=True)
class Windowed:
    """Grey pictures, and their local means and mean squares, for comparing each with many."""

    images_nhw: Floats
    mean_nhw: Floats
    square_nhw: Floats

    @classmethod
    def of(cls, images_nhw: Bytes) -> Windowed:
        """From pictures of at least 11 pixels a side."""
        images = images_nhw.astype(np.float64)
        return cls(images, _blurred(images), _blurred(images**2))

    def __getitem__(self, part: slice) -> Windowed:
        """Some of the pictures."""
        return Windowed(self.images_nhw[part], self.mean_nhw[part], self.square_nhw[part])

    def ssim(self, other: Windowed) -> Floats:
        """See `ssim`."""
        mean_1, mean_2 = self.mean_nhw, other.mean_nhw
        product, squares = mean_1 * mean_2, mean_1**2 + mean_2**2
        both = _blurred(self.images_nhw * other.images_nhw) - product
        spread = self.square_nhw + other.square_nhw - squares
        alike = (2 * product + C1) * (2 * both + C2)
        result: Floats = (alike / ((squares + C1) * (spread + C2))).mean(axis=(1, 2))
        return result


def ssim(one_nhw: Bytes, other_nhw: Bytes) -> Floats:
    """(n,) mean structural similarity of grey pictures (Wang et al. 2004, equation 13).

    1 = the same, 0 = nothing in common, below 0 = reversed. A Gaussian window of 11 pixels, whole
    inside of the picture.
    """
    return Windowed.of(one_nhw).ssim(Windowed.of(other_nhw))


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
