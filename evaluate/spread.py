"""Where the uncertainty of an imbalance, or of its change, comes from: seeds and prompts.

Axes: a arms (one, or baseline and treated), p prompts, s seeds, k attribute values. The unbiased
imbalance is a U-statistic of pairs of seeds, so with n seeds its sampling variance is

    linear / n + quadratic / (n (n - 1)),

the linear part from which values the seeds show, the quadratic from how they happen to pair
(Hoeffding 1948). On target the linear part is 0 and the quadratic is all there is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unskew.evaluate.stats import Floats, Ints, farthest

CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class PairSums:
    """What all pairs of seeds say of a change, every field (...,), one for each prompt or mean."""

    n_seeds: Floats
    """Seeds readable in any arm; below 4 the two parts cannot be told apart."""
    rows: Floats
    """Sum over seeds of the squared sum of a seed's pairs."""
    pairs: Floats
    """Sum over ordered pairs of their squared deviations."""

    @property
    def jackknife(self) -> Floats:
        """Delete-one-seed variance: the linear part, and more than twice the quadratic."""
        n = self.n_seeds
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = 4 * n * (n - 1) / (n - 2) ** 2 * self.rows
        return found

    @property
    def quadratic(self) -> Floats:
        """The quadratic part of the variance as it is; 0 with fewer than 4 seeds. Never below 0."""
        n = self.n_seeds
        with np.errstate(invalid="ignore", divide="ignore"):
            # What is left of the pairs once each seed's own share of them is taken out.
            left = self.pairs - 2 * self.rows / (n - 2)
            found = 2 * left * (n - 1) / (n - 3)
        return np.where(n < 4, 0.0, np.maximum(found, 0.0))

    @property
    def linear(self) -> Floats:
        """The linear part of the variance as it is, unbiased: in a sample it may be below 0."""
        n = self.n_seeds
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = self.jackknife - 2 * (n - 1) / (n - 2) * self.quadratic
        return found


def prompt_sums(codes_aps: Ints, target_pk: Floats) -> PairSums:
    """The sums of each prompt: fields (P,). With leading axes before p, (..., P)."""
    found = [
        _sums(_pairs(codes_aps[..., at, :], target_pk[at]), _n_seeds(codes_aps[..., at, :]))
        for at in _parts(codes_aps)
    ]
    return PairSums(
        *(
            np.concatenate([getattr(part, name) for part in found], axis=-1)
            for name in ("n_seeds", "rows", "pairs")
        )
    )


def mean_sums(codes_aps: Ints, target_pk: Floats, weights_p: Floats) -> PairSums:
    """The sums of a weighted mean over prompts in which the same seed is one draw: fields (...,).

    Noise that prompts share through the seed is so accounted for.
    """
    total_ss: Floats | float = 0.0
    for at in _parts(codes_aps):
        pairs_pss = _pairs(codes_aps[..., at, :], target_pk[at])
        total_ss = total_ss + np.einsum("...pst,p->...st", pairs_pss, weights_p[at])
    n_seeds = (codes_aps >= 0).any(axis=(0, -2)).sum(-1).astype(np.float64)
    return _sums(np.asarray(total_ss), n_seeds)


def _parts(codes_aps: Ints) -> list[slice]:
    n_prompts, n_seeds = codes_aps.shape[-2:]
    studies = codes_aps[0, ..., 0, 0].size
    step = max(1, CELLS_AT_ONCE // (n_seeds**2 * studies))
    return [slice(start, start + step) for start in range(0, n_prompts, step)]


def _n_seeds(codes_aps: Ints) -> Floats:
    seeds: Floats = (codes_aps >= 0).any(axis=0).sum(-1).astype(np.float64)
    return seeds


def _sums(pairs_ss: Floats, n_seeds: Floats) -> PairSums:
    rows = (pairs_ss.sum(-1) ** 2).sum(-1)
    return PairSums(n_seeds, rows, (pairs_ss**2).sum((-1, -2)))


def _pairs(codes_aps: Ints, target_pk: Floats) -> Floats:
    """(..., P, S, S) what each pair of seeds adds to treated - baseline, about its mean.

    The diagonal is 0; so are the pairs with an unreadable seed, as if they were at the mean, which
    is what dividing by the readable ones makes of them.
    """
    total: Floats | float = 0.0
    values = np.arange(target_pk.shape[-1])
    target_pk1 = target_pk[..., None]
    for codes_ps, sign in zip(codes_aps[::-1], (1.0, -1.0), strict=False):
        shown_psk = (codes_ps[..., None] == values).astype(np.float64)
        read_ps1 = shown_psk.sum(-1, keepdims=True)
        n_p11 = read_ps1.sum(-2, keepdims=True)
        wanted_ps1 = shown_psk @ target_pk1
        kernel_pss = shown_psk @ np.swapaxes(shown_psk, -1, -2)
        kernel_pss -= wanted_ps1 + np.swapaxes(wanted_ps1, -1, -2)
        both_pss = read_ps1 @ np.swapaxes(read_ps1, -1, -2)
        np.einsum("...ss->...s", both_pss)[:] = 0
        kernel_pss *= both_pss
        n_pairs_p11 = np.maximum(n_p11 * (n_p11 - 1), 1)
        mean_p11 = kernel_pss.sum((-1, -2), keepdims=True) / n_pairs_p11
        kernel_pss -= mean_p11 * both_pss
        total = total + sign * kernel_pss / n_pairs_p11
    return np.asarray(total) / farthest(target_pk)[..., None, None]
