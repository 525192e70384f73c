"""Raking, also called iterative proportional fitting: cells' shares with the wanted marginals.

Deming and Stephan 1940, "On a Least Squares Adjustment of a Sampled Frequency Table When the
Expected Marginal Totals are Known", Annals of Mathematical Statistics 11(4). Of all shares with
those marginals it finds the ones nearest to the pictures' own (in relative entropy: Csiszar 1975).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, nnls

MOST_ROUNDS = 20_000
CLOSE = 1e-10
MARGINALS_WITHIN = 1e-6
HEAVY = 1e3
"""How much the sum of 1 counts against the marginals when the nearest are sought."""

Floats = NDArray[np.float64]


def raked(start_k: Floats, value_ka: NDArray[np.int64], targets: Sequence[Floats]) -> Floats | None:
    """(K,) shares of the cells whose marginals are the targets to 1e-6; None where there are none.

    `start_k` are the cells' own sizes, 0 for empty ones, which stay empty; `value_ka` is cell k's
    value of attribute a, `targets` each attribute's (V,) wanted shares. A cell that no shares with
    these marginals can give anything gets 0.
    """
    can_k = _supported(start_k > 0, value_ka, targets)
    if not can_k.any():
        return None
    share_k = np.where(can_k, start_k, 0.0)
    share_k /= share_k.sum()
    for _ in range(MOST_ROUNDS):
        worst = 0.0
        for a, target in enumerate(targets):
            sums = np.bincount(value_ka[:, a], weights=share_k, minlength=len(target))
            worst = max(worst, float(np.abs(sums - target).max()))
            share_k *= np.divide(target, sums, out=np.zeros_like(sums), where=sums > 0)[
                value_ka[:, a]
            ]
        if worst < CLOSE:
            break
    return share_k if off(share_k, value_ka, targets) <= MARGINALS_WITHIN else None


def off(share_k: Floats, value_ka: NDArray[np.int64], targets: Sequence[Floats]) -> float:
    """The largest distance of a marginal from its target; 0 is on target."""
    return max(
        float(np.abs(np.bincount(v, weights=share_k, minlength=len(t)) - t).max())
        for v, t in zip(value_ka.T, targets, strict=True)
    )


def nearest_marginals(
    has_k: NDArray[np.bool_], value_ka: NDArray[np.int64], targets: Sequence[Floats]
) -> Floats:
    """(K,) shares of the cells that have pictures, with the marginals nearest to the targets.

    Nearest in the sum of squares over all values of all attributes.
    """
    sums, wanted = _marginal_rows(value_ka, targets)
    cells = np.flatnonzero(has_k)
    rows = np.vstack([sums[:, cells], np.full(len(cells), HEAVY)])
    found, _ = nnls(rows, np.append(wanted, HEAVY))
    share_k = np.zeros(len(has_k))
    share_k[cells] = found / found.sum()
    return share_k


def _supported(
    has_k: NDArray[np.bool_], value_ka: NDArray[np.int64], targets: Sequence[Floats]
) -> NDArray[np.bool_]:
    """(K,) which cells are not 0 in some shares with these marginals; none where there are none.

    One linear program. Such shares times any scale are a cone, so all cells that can be more than 0
    can be at least 1 at once: the sum of what they are, each counted up to 1, is made the largest.
    Without this, raking would near such a 0 ever more slowly and never come within 1e-6.
    """
    k = len(has_k)
    sums, wanted = _marginal_rows(value_ka, targets)
    equal = np.hstack([sums, np.zeros((len(sums), k)), -wanted[:, None]])
    below = np.hstack([-np.eye(k), np.eye(k), np.zeros((k, 1))])
    found = linprog(
        np.concatenate([np.zeros(k), -np.ones(k), [0.0]]),
        A_ub=below,
        b_ub=np.zeros(k),
        A_eq=equal,
        b_eq=np.zeros(len(sums)),
        bounds=[(0, None if has else 0) for has in has_k] + [(0, 1)] * k + [(0, None)],
    )
    can_k: NDArray[np.bool_] = found.x[k : 2 * k] > 0.5
    return can_k


def _marginal_rows(value_ka: NDArray[np.int64], targets: Sequence[Floats]) -> tuple[Floats, Floats]:
    """(V, K) which cells sum to each value of each attribute, and (V,) what they should sum to."""
    rows = [
        (value_ka[:, a] == value).astype(np.float64)
        for a, target in enumerate(targets)
        for value in range(len(target))
    ]
    return np.array(rows), np.concatenate(list(targets))
