"""Balancing by weights: every picture is taken, and the rare ones count more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unskew.data.balance import Cell
from unskew.data.balance_choice import Choice, cells_of, labelled
from unskew.data.raking import nearest_marginals, raked
from unskew.data.rows import Row
from unskew.data.shortfall import SHOWN_CELLS, SHOWN_SUBJECTS, marginals, rounded
from unskew.data.targets import Goal
from unskew.errors import UserError

HEAVY = 10.0
"""A weight over this is told: such a picture is seen as if it stood there that often."""


@dataclass(frozen=True)
class Weighed:
    """One subject's weights."""

    weight: Mapping[Cell, float]
    """Combination -> weight of each of its pictures; their mean over the pictures is 1."""
    combined: bool
    """Whether every combination has its share; else each attribute's own shares alone."""


def weigh(rows: Sequence[Row], goals: Mapping[str, Goal]) -> Choice:
    """Give every labelled row the weight at which its subject shows the target, to 1e-6.

    Where every wanted combination has a picture, each counts as wanted; where some have none, the
    attributes' own shares are met (raking). A subject's weights have the mean 1 over the rows that
    have one over 0; rows of a weight of 0 are left out. Raises UserError that shows the
    combinations that there are, where no weights have the wanted shares.
    """
    by_subject, left_out = labelled(rows, goals)
    weights: dict[int, float] = {}
    notes: list[str] = []
    refused: list[list[str]] = []
    for subject, numbers in by_subject.items():
        goal = goals[subject]
        if not goal.attributes or not numbers:
            weights |= dict.fromkeys(numbers, 1.0)
            continue
        cells = cells_of(rows, numbers, goal)
        weighed = weigh_subject(goal, {cell: len(own) for cell, own in cells.items()})
        if weighed is None:
            refused.append(_table(goal, cells))
            continue
        for cell, own in cells.items():
            weight = weighed.weight[cell]
            if weight > 0:
                weights |= dict.fromkeys(own, weight)
            else:
                left_out |= dict.fromkeys(own, "the target leaves no weight for what it shows")
        notes += _notes(subject, weighed, cells)
    if refused:
        tables = [line for table in refused[:SHOWN_SUBJECTS] for line in table]
        more = len(refused) - SHOWN_SUBJECTS
        raise UserError(
            f"no weights give {len(refused)} subjects their target:\n"
            + "".join(f"  {line}\n" for line in tables)
            + (f"  and {more} more subjects\n" if more > 0 else "")
            + "give the nearest as balance.subject_targets, leave the subjects out "
            "(balance.leave_out), or let the base draw what is missing: balance.by synthesis"
        )
    return Choice(tuple(sorted(weights.items())), left_out, (), tuple(notes))


def weigh_subject(goal: Goal, there: Mapping[Cell, int]) -> Weighed | None:
    """Weights of a subject's combinations; None where no weights have the wanted shares."""
    shares = goal.shares
    count_k = np.array([there[cell] for cell in shares], dtype=np.float64)
    wanted_k = np.array(list(shares.values()))
    combined = bool((count_k[wanted_k > 0] > 0).all())
    share_k = (
        wanted_k if combined else raked(count_k, _values(goal), [a.target for a in goal.attributes])
    )
    if share_k is None:
        return None
    used = float(count_k[share_k > 0].sum())
    weight_k = np.divide(share_k * used, count_k, out=np.zeros_like(count_k), where=count_k > 0)
    return Weighed(dict(zip(shares, weight_k.tolist(), strict=True)), combined)


def _values(goal: Goal) -> NDArray[np.int64]:
    """(K, A) number of each combination's value of each attribute."""
    sizes = [len(a.values) for a in goal.attributes]
    return np.stack(np.unravel_index(np.arange(int(np.prod(sizes))), sizes), axis=1)


def _notes(subject: str, weighed: Weighed, cells: Mapping[Cell, Sequence[int]]) -> list[str]:
    counts = {cell: len(own) for cell, own in cells.items() if weighed.weight[cell] > 0}
    total = sum(n * weighed.weight[cell] for cell, n in counts.items())
    squares = sum(n * weighed.weight[cell] ** 2 for cell, n in counts.items())
    heaviest = max(counts, key=lambda cell: weighed.weight[cell])
    said = []
    if not weighed.combined:
        said.append(
            f"{subject}: some combinations have no picture; each attribute has its shares, "
            "combinations need not"
        )
    if weighed.weight[heaviest] > HEAVY:
        said.append(
            f"{subject}: a picture of {', '.join(heaviest)} counts {weighed.weight[heaviest]:.1f} "
            f"times; its {sum(counts.values())} pictures are worth {total**2 / squares:.0f} equal "
            "ones"
        )
    return said


def _table(goal: Goal, cells: Mapping[Cell, Sequence[int]]) -> list[str]:
    has_k = np.array([bool(own) for own in cells.values()])
    near_k = nearest_marginals(has_k, _values(goal), [a.target for a in goal.attributes])
    nearest = dict(zip(cells, near_k.tolist(), strict=True))
    lines = [f"{goal.subject}: pictures of {int(has_k.sum())} of {len(cells)} combinations"]
    there = sorted((cell for cell in cells if cells[cell]), key=lambda cell: -len(cells[cell]))
    lines += [f"  {', '.join(cell)}: {len(cells[cell])}" for cell in there[:SHOWN_CELLS]]
    for attribute in goal.attributes:
        wanted = dict(zip(attribute.values, attribute.target.tolist(), strict=True))
        near = rounded(marginals(goal, nearest)[attribute.id])
        lines.append(
            f"  {attribute.id}: wanted {_said(wanted)}, nearest that can be met {_said(near)}"
        )
    return lines


def _said(shares: Mapping[str, float]) -> str:
    return "{" + ", ".join(f"{value}: {share:.4g}" for value, share in shares.items()) + "}"
