"""What is missing where a target cannot be met, and the nearest one that can."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unskew.data.balance import Cell
from unskew.data.targets import Goal
from unskew.errors import UserError

SHOWN_SUBJECTS = 5
SHOWN_CELLS = 12
LARGEST_LISTED = 100


@dataclass(frozen=True)
class Shortfall:
    """A subject whose target cannot be met with the pictures that are there."""

    goal: Goal
    there: dict[Cell, int]
    """Pictures of each combination, those of none as well."""
    most: dict[Cell, int]
    """How often pictures of each combination may be used: `there` times the most repeats."""
    wanted: dict[Cell, int]
    """How many of each combination the target needs, at the size that is asked for."""

    @property
    def missing(self) -> dict[Cell, int]:
        """Combination -> pictures that are missing; only those that lack some."""
        return {c: n - self.most[c] for c, n in self.wanted.items() if n > self.most[c]}

    @property
    def nearest(self) -> dict[Cell, float]:
        """The shares nearest to the target that the pictures can show, at the size asked for."""
        size = sum(self.wanted.values())
        counts_k = nearest_counts(
            size, np.array(list(self.goal.shares.values())), np.array(list(self.most.values()))
        )
        total = max(1, int(counts_k.sum()))
        return {c: int(n) / total for c, n in zip(self.goal.shares, counts_k, strict=True)}


def largest_size(share_k: NDArray[np.float64], most_k: NDArray[np.int64]) -> int:
    """The most pictures that can show these shares when each cell has `most_k` to give.

    Every cell's count is then within one of size * share. 0 where a wanted cell has none.
    """
    wanted = share_k > 0
    return math.floor(float((most_k[wanted] / share_k[wanted]).min()) + 1e-9)


def least_size(share_k: NDArray[np.float64]) -> int:
    """The fewest pictures at which every wanted cell comes at least once."""
    return math.ceil(1 / float(share_k[share_k > 0].min()) - 1e-9)


def nearest_counts(
    size: int, share_k: NDArray[np.float64], most_k: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(K,) whole counts with the least sum of (count - size * share)^2, each at most `most_k`.

    They sum to `size`, or to all that there is. Cells of no share get nothing unless all others are
    used up. Exact: each picture in turn goes where it lessens the sum the most (the sum is convex
    and its cells are separate).
    """
    counts_k = np.minimum(np.floor(size * share_k + 1e-9).astype(np.int64), most_k)
    heap = [(int(counts_k[k]) - size * float(share_k[k]), k) for k in np.flatnonzero(most_k)]
    heapq.heapify(heap)
    left = min(size, int(most_k.sum())) - int(counts_k.sum())
    while left > 0:
        over, k = heapq.heappop(heap)
        if counts_k[k] < most_k[k]:
            counts_k[k] += 1
            left -= 1
            heapq.heappush(heap, (over + 1, k))
    return counts_k


def refuse(short: Sequence[Shortfall], least_repeats: int | None, largest: int) -> UserError:
    """The error that shows the cells, what is there, what is missing and what can be met.

    `least_repeats` is how often a picture would have to repeat, None where repeating does not help;
    `largest` the most pictures of each subject that show the target as it is, 0 for none.
    """
    cells = sum(len(s.missing) for s in short)
    tables = [line for s in short[:SHOWN_SUBJECTS] for line in _table(s)]
    if len(short) > SHOWN_SUBJECTS:
        others = ", ".join(s.goal.subject for s in short[SHOWN_SUBJECTS:LARGEST_LISTED])
        tables.append(f"and {len(short) - SHOWN_SUBJECTS} more subjects: {others}")
    ways = []
    if largest:
        ways.append(f"ask for fewer: balance.pictures_per_subject {largest}")
    if least_repeats:
        ways.append(f"let a picture repeat: balance.most_repeats {least_repeats}")
    ways += [
        "let the base draw what is missing: balance.by synthesis",
        "let rare pictures count more: balance.by weights (it asks for no combination, only for "
        "each attribute's own shares)",
        "give the nearest target as balance.subject_targets, or leave the subjects out: "
        "balance.leave_out",
    ]
    return UserError(
        "the target cannot be met, pictures are missing "
        f"(combinations: {cells}, subjects: {len(short)})\n"
        + "".join(f"  {line}\n" for line in tables)
        + "what you can do:\n"
        + "".join(f"  - {way}\n" for way in ways).rstrip("\n")
    )


def _table(short: Shortfall) -> list[str]:
    size, missing, nearest = sum(short.wanted.values()), short.missing, short.nearest
    names = {cell: ", ".join(cell) for cell in short.wanted}
    width = max(len(name) for name in names.values()) + 2
    lines = [
        f"{short.goal.subject}, {size} pictures:",
        f"  {'':<{width}}{'there':>8}{'usable':>8}{'wanted':>8}{'missing':>9}{'nearest':>9}",
    ]
    # the cells that lack most first, so that a cut list shows what matters
    order = sorted(names, key=lambda cell: -missing.get(cell, 0))
    for cell in order[:SHOWN_CELLS]:
        lines.append(
            f"  {names[cell]:<{width}}{short.there[cell]:>8}{short.most[cell]:>8}"
            f"{short.wanted[cell]:>8}{missing.get(cell, 0):>9}{nearest[cell]:>9.1%}"
        )
    if len(order) > SHOWN_CELLS:
        lines.append(f"  and {len(order) - SHOWN_CELLS} more combinations")
    for attribute, shares in marginals(short.goal, nearest).items():
        said = ", ".join(f"{value}: {share:.12g}" for value, share in rounded(shares).items())
        lines.append(f"  nearest {attribute} that can be met: {{{said}}}")
    return lines


def rounded(shares: dict[str, float]) -> dict[str, float]:
    """The shares in four digits, still summing to 1: the largest takes the rest."""
    near = {value: round(share, 4) for value, share in shares.items()}
    largest = max(near, key=lambda value: near[value])
    near[largest] = round(near[largest] + 1 - sum(near.values()), 4)
    return near


def marginals(goal: Goal, shares: dict[Cell, float]) -> dict[str, dict[str, float]]:
    """Attribute -> value -> share, summed over the combinations."""
    found: dict[str, dict[str, float]] = {}
    for place, attribute in enumerate(goal.attributes):
        sums: dict[str, float] = defaultdict(float)
        for cell, share in shares.items():
            sums[cell[place]] += share
        found[attribute.id] = dict(sums)
    return found
