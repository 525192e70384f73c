"""Balancing by choosing: which rows are taken, how often, and which cells lack pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unskew.data.balance import Cell, apportion, seeded, spread
from unskew.data.balance_options import BalanceSettings
from unskew.data.rows import Row
from unskew.data.shortfall import Shortfall, largest_size, least_size, nearest_counts, refuse
from unskew.data.targets import Goal
from unskew.errors import UserError


@dataclass(frozen=True)
class Missing:
    """Pictures of one cell that the target lacks."""

    subject: str
    labels: Mapping[str, str]
    """The cell's value of each balanced attribute that applies; empty for a control."""
    count: int


@dataclass(frozen=True)
class Choice:
    """What is taken of the rows that were there."""

    uses: tuple[tuple[int, float], ...]
    """(number of the row, its weight) of every row of the dataset; a row's number stands here as
    often as it is repeated."""
    left_out: Mapping[int, str]
    """Number of each row that is not taken -> why."""
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What a person should know of the choice."""


def cells_of(rows: Sequence[Row], numbers: Sequence[int], goal: Goal) -> dict[Cell, list[int]]:
    """Combination -> numbers of the labelled rows that show it; every combination is there."""
    cells: dict[Cell, list[int]] = {cell: [] for cell in goal.shares}
    for number in numbers:
        cells[goal.cell(rows[number])].append(number)
    return cells


def labelled(
    rows: Sequence[Row], goals: Mapping[str, Goal]
) -> tuple[dict[str, list[int]], dict[int, str]]:
    """Subject -> numbers of its rows that can be balanced; number of every other row -> why not."""
    by_subject: dict[str, list[int]] = {subject: [] for subject in goals}
    left_out: dict[int, str] = {}
    for number, row in enumerate(rows):
        goal = goals.get(row.subject)
        if goal is None:
            left_out[number] = "its subject is in balance.leave_out"
        elif not goal.is_labelled(row):
            unknown = ", ".join(a.id for a in goal.attributes if row.labels[a.id] is None)
            left_out[number] = f"its label is unknown: {unknown}"
        else:
            by_subject[row.subject].append(number)
    return by_subject, left_out


def choose(
    rows: Sequence[Row],
    goals: Mapping[str, Goal],
    settings: BalanceSettings,
    seed: int,
    *,
    drawn: bool = False,
) -> Choice:
    """Take of every subject's rows what shows its target, each cell within one picture.

    With `by: synthesis` what lacks is in `missing`; once it was `drawn`, the most that show the
    target are taken. Which rows are taken is a function of the seed, the subject and the cell.
    Raises UserError that shows every cell that lacks pictures, where they are not to be drawn.
    """
    by_subject, left_out = labelled(rows, goals)
    uses: list[tuple[int, float]] = []
    missing: list[Missing] = []
    short: list[Shortfall] = []
    notes: list[str] = []
    ask = settings.by == "synthesis" and not drawn
    for subject, numbers in by_subject.items():
        goal = goals[subject]
        if not goal.attributes:  # nothing to balance: all of it, and as many as are asked for
            lacks = _wanted_of_a_control(settings, numbers, ask=ask)
            missing += [Missing(subject, {}, lacks)] * (lacks > 0)
            uses += [(number, 1.0) for number in numbers]
            continue
        cells = cells_of(rows, numbers, goal)
        shares = goal.shares
        there = {cell: len(cells[cell]) for cell in shares}
        most = {cell: n * settings.most_repeats for cell, n in there.items()}
        share_k = np.array(list(shares.values()))
        most_k = np.array(list(most.values()))
        largest = largest_size(share_k, most_k)
        all_count = settings.by != "synthesis"  # what was drawn asks for no more to be drawn
        given_k = np.array(
            [sum(all_count or rows[n].drawn is None for n in c) for c in cells.values()]
        )
        size = _size(settings, subject, share_k, given_k, largest)
        rng = seeded(seed, subject)
        wanted_k = _within_one(size, share_k, most_k, rng)
        if wanted_k is None and drawn and largest >= least_size(share_k):
            notes.append(f"{subject}: {largest} pictures, {size} were wanted: too few were drawn")
            wanted_k = apportion(largest, share_k, rng)
        if wanted_k is None:
            wanted_k = apportion(size, share_k, rng)
            wanted = dict(zip(shares, wanted_k.tolist(), strict=True))
            lacking = Shortfall(goal, there, most, wanted)
            if not ask:
                short.append(lacking)
                continue
            missing += [
                Missing(subject, goal.labels(cell), math.ceil(count / settings.most_repeats))
                for cell, count in lacking.missing.items()
            ]
        wanted = dict(zip(shares, wanted_k.tolist(), strict=True))
        for cell, count in wanted.items():
            taken = min(count, most[cell])
            if taken:
                uses += [(n, 1.0) for n in spread(cells[cell], taken, seeded(seed, subject, cell))]
    if short:
        raise _refusal(short, settings)
    used = {number for number, _ in uses}
    for number in range(len(rows)):
        if number not in used and number not in left_out:
            left_out[number] = "enough others show the same"
    return Choice(tuple(uses), left_out, tuple(missing), tuple(notes))


def _within_one(
    size: int,
    share_k: NDArray[np.float64],
    most_k: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64] | None:
    """(K,) counts within one of size * share that the cells can give; None where there are none."""
    counts_k = apportion(size, share_k, rng)
    if (counts_k <= most_k).all():
        return counts_k
    counts_k = nearest_counts(size, share_k, most_k)
    if counts_k.sum() == size and (np.abs(counts_k - size * share_k) < 1).all():
        return counts_k
    return None


def _size(
    settings: BalanceSettings,
    subject: str,
    share_k: NDArray[np.float64],
    given_k: NDArray[np.int64],
    largest: int,
) -> int:
    """How many pictures of a subject are wanted; `given_k` are those that were not drawn."""
    least = least_size(share_k)
    if settings.pictures_per_subject != "auto":
        if settings.pictures_per_subject < least:
            raise UserError(
                f"balance.pictures_per_subject must be >= {least} for {subject!r}, got "
                f"{settings.pictures_per_subject}: with fewer, a combination may be absent"
            )
        return settings.pictures_per_subject
    wanted = share_k > 0
    all_used = math.ceil(float((given_k[wanted] / share_k[wanted]).max()) - 1e-9)
    if settings.by == "synthesis":
        return max(least, all_used)
    # beyond the size at which the fullest cell is used up, only repeats would be added
    return max(least, min(largest, all_used))


def _wanted_of_a_control(settings: BalanceSettings, numbers: Sequence[int], *, ask: bool) -> int:
    if not ask:
        return 0
    wanted = settings.pictures_per_subject
    return max(0, (1 if wanted == "auto" else wanted) - len(numbers))


def _refusal(short: Sequence[Shortfall], settings: BalanceSettings) -> UserError:
    sizes, repeats = [], []
    for s in short:
        share_k = np.array(list(s.goal.shares.values()))
        largest = largest_size(share_k, np.array(list(s.most.values())))
        sizes.append(largest if largest >= least_size(share_k) else 0)
        ratios = [
            math.ceil(n / s.there[cell]) if s.there[cell] else None
            for cell, n in s.wanted.items()
            if n
        ]
        known = [r for r in ratios if r is not None]
        repeats.append(max(known) if len(known) == len(ratios) else None)
    whole = [r for r in repeats if r is not None]
    number = settings.pictures_per_subject != "auto"
    return refuse(
        short,
        max(whole) if len(whole) == len(repeats) else None,
        min(sizes) if number else 0,
    )
