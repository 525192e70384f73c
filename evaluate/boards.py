"""Many arms on one suite: each arm's imbalance, and every pair's difference on the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from unskew.evaluate.cells import StudyPlan, SuiteCells, Unit, unit_of
from unskew.evaluate.representation import adjust_p
from unskew.evaluate.schema_model import Verdict
from unskew.evaluate.spread import mean_sums
from unskew.evaluate.stats import (
    Estimates,
    Floats,
    Ints,
    TestedEstimate,
    change_verdict,
    clipped,
    cluster_estimates,
    cluster_means,
    count_values,
    imbalance,
    imbalance_without_each_seed,
    seed_estimates,
    unseen_change,
)
from unskew.prompts import Prompt


@dataclass(frozen=True)
class Board:
    """The imbalance of every arm on one suite, over one attribute or the mean of several."""

    suite: str
    attributes: tuple[str, ...]
    arms: tuple[str, ...]
    unit: Unit
    left_out: tuple[str, ...]
    """Prompts with too few readable pictures in an arm."""
    values_ac: Floats
    """(arms, clusters of prompts) imbalance."""
    without_as: Floats | None
    """(arms, seeds) the mean without each seed, where the seeds are the unit."""
    quadratic_aa: Floats | None
    """(arms, arms) quadratic part of a difference's variance, on the diagonal of the arm's own."""
    hidden_aa: Floats
    """(arms, arms) change that pairs without a surprise leave possible; 0 of equal pictures."""
    resampling_seed: int

    @property
    def n_prompts(self) -> int:
        """Prompts that count."""
        return len(self.unit.clusters_p)


@dataclass(frozen=True)
class Difference:
    """arm - against; below 0 the arm is nearer to the target."""

    arm: str
    against: str
    estimate: TestedEstimate
    p_adjusted: float
    """Holm (1979) over the pairs of the board."""
    verdict: Verdict
    """improved or worsened (settled), no_change (within the margin), inconclusive."""


def board_of(plan: StudyPlan, cells: SuiteCells, suite: str, attributes: Sequence[str]) -> Board:
    """The board of a neutral suite. A prompt's value is the mean over what it measures of these.

    Prompts count that have enough readable pictures in every arm, so that all arms are ranked on
    the same ones.
    """
    at = [n for n, p in enumerate(cells.prompts) if set(attributes) & set(p.attributes)]
    prompts = [cells.prompts[n] for n in at]
    fixed = plan.is_fixed(suite, prompts)
    least = 3 if fixed else 2
    unread = np.full((len(plan.arms), len(cells.prompts), plan.seeds[suite]), -1)
    asked_mp = np.array([[a in p.attributes for p in prompts] for a in attributes])
    codes_maps = np.stack([cells.codes.get(a, unread)[:, at] for a in attributes])
    enough_map = (codes_maps >= 0).sum(-1) >= least
    kept_p = (enough_map.all(1) | ~asked_mp).all(0)
    kept = [prompt for prompt, is_kept in zip(prompts, kept_p, strict=True) if is_kept]
    unit = unit_of(plan, suite, kept, fixed)
    codes_maps, asked_mp = codes_maps[:, :, kept_p], asked_mp[:, kept_p]
    targets = [_targets(plan, kept, attribute) for attribute in attributes]
    values_ap = _mean_over(
        asked_mp,
        [
            imbalance(count_values(codes_aps, t.shape[-1]), t)
            for codes_aps, t in zip(codes_maps, targets, strict=True)
        ],
    )
    return Board(
        suite=suite,
        attributes=tuple(attributes),
        arms=plan.arms,
        unit=unit,
        left_out=tuple(p.id for p, is_kept in zip(prompts, kept_p, strict=True) if not is_kept),
        values_ac=cluster_means(values_ap.T, unit.clusters_p).T,
        without_as=_without(codes_maps, targets, asked_mp, unit) if fixed else None,
        quadratic_aa=_quadratic(codes_maps[0], targets[0], unit)
        if fixed and len(attributes) == 1
        else None,
        hidden_aa=_hidden(codes_maps, targets, cells.pictures[:, at][:, kept_p]),
        resampling_seed=plan.resampling_seed,
    )


def levels(board: Board) -> Estimates:
    """Each arm's imbalance, as the rows of `results.json` have it."""
    numbers = np.arange(len(board.arms))
    return _estimates(board, board.values_ac, board.without_as, numbers, numbers)


def differences(board: Board, margin: float) -> tuple[Difference, ...]:
    """Every pair of arms: later against earlier, on the same cells, Holm over all of them."""
    pairs = list(combinations(range(len(board.arms)), 2))
    if not pairs:
        return ()
    first, second = np.array(pairs).T
    without = board.without_as
    found = _estimates(
        board,
        board.values_ac[second] - board.values_ac[first],
        None if without is None else without[second] - without[first],
        first,
        second,
    )
    adjusted = adjust_p(found.p_value, "holm")
    told = []
    for n, (a, b) in enumerate(pairs):
        estimate, hidden = found.one(n), float(board.hidden_aa[a, b])
        if estimate.lo == estimate.hi:
            estimate = clipped(
                TestedEstimate(
                    estimate.value, estimate.lo - hidden, estimate.hi + hidden, estimate.p_value
                ),
                1.0,
            )
        verdict = change_verdict(estimate, margin, adjusted[n])
        told.append(Difference(board.arms[b], board.arms[a], estimate, adjusted[n], verdict))
    return tuple(told)


def difference_of_differences(here: Board, arm: str, there: Board) -> TestedEstimate | None:
    """How much of an arm's effect is lost in another study of baseline and arm; above 0 is less.

    None where the two studies do not count the same prompts and seeds.
    """
    same = here.left_out == there.left_out and here.values_ac.shape[1] == there.values_ac.shape[1]
    if not same or here.unit.n_seeds != there.unit.n_seeds:
        return None
    a = here.arms.index(arm)

    def lost(here_a: Floats, there_a: Floats) -> Floats:
        found: Floats = (there_a[1] - there_a[0]) - (here_a[a] - here_a[0])
        return found

    value_c = lost(here.values_ac, there.values_ac)
    if here.without_as is None or there.without_as is None:
        return cluster_estimates(value_c[None], here.resampling_seed, limit=2.0).one(0)
    without_s = lost(here.without_as, there.without_as)
    return seed_estimates(value_c.mean(keepdims=True), without_s[None], 2.0).one(0)


def _estimates(
    board: Board, values_bc: Floats, without_bs: Floats | None, first: Ints, second: Ints
) -> Estimates:
    if without_bs is None:
        return cluster_estimates(values_bc, board.resampling_seed, limit=1.0)
    quadratic = board.quadratic_aa
    return seed_estimates(
        values_bc.mean(axis=1),
        without_bs,
        1.0,
        0.0 if quadratic is None else quadratic[first, second],
    )


def _targets(plan: StudyPlan, prompts: Sequence[Prompt], attribute: str) -> Floats:
    usual = plan.attributes[attribute].target
    return np.stack([prompt.targets.get(attribute, usual) for prompt in prompts])


def _mean_over(asked_mp: NDArray[np.bool_], values_m: Sequence[Floats]) -> Floats:
    """Mean over the attributes that a prompt measures; the prompts are axis 1 of each."""
    shape = (len(asked_mp), 1, asked_mp.shape[1], *[1] * (values_m[0].ndim - 2))
    asked = asked_mp.reshape(shape)
    summed = np.where(asked, np.stack(values_m), 0.0).sum(axis=0)
    result: Floats = summed / asked.sum(axis=0)
    return result


def _without(
    codes_maps: Ints, targets: Sequence[Floats], asked_mp: NDArray[np.bool_], unit: Unit
) -> Floats:
    without_m = [
        np.stack([imbalance_without_each_seed(codes_ps, target) for codes_ps in codes_aps])
        for codes_aps, target in zip(codes_maps, targets, strict=True)
    ]
    without_aps = _mean_over(asked_mp, without_m)
    return np.stack([cluster_means(own_ps, unit.clusters_p).mean(0) for own_ps in without_aps])


def _quadratic(codes_aps: Ints, target_pk: Floats, unit: Unit) -> Floats:
    """Of several attributes together it is not known, and then none is taken off."""
    n = len(codes_aps)
    parts = np.zeros((n, n))
    for a in range(n):
        for b in range(a, n):
            of = codes_aps[[a, b]] if b > a else codes_aps[[a]]
            parts[a, b] = parts[b, a] = mean_sums(of, target_pk, unit.weights_p).quadratic
    return parts


def _hidden(codes_maps: Ints, targets: Sequence[Floats], pictures_aps: Ints) -> Floats:
    n = codes_maps.shape[1]
    hidden = np.zeros((n, n))
    for a, b in combinations(range(n), 2):
        same = (pictures_aps[a] == pictures_aps[b]).all() and (pictures_aps[a] >= 0).all()
        for codes_aps, target_pk in zip(codes_maps, targets, strict=True):
            n_pairs = int((codes_aps[[a, b]] >= 0).all(0).sum())
            if not same:
                hidden[a, b] = max(hidden[a, b], unseen_change(n_pairs, target_pk))
    return hidden + hidden.T
