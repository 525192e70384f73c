"""Balancing: which pictures to take, so that every subject shows the wanted shares.

Labels in, row numbers out; nothing here knows where pictures come from. A subject's cells are the
combinations of its attributes' values, and a cell's wanted share is the product of its values'.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unskew.attributes import Attribute
from unskew.errors import UserError

Cell = tuple[str, ...]
"""One value of each attribute that a subject has, in the attributes' order."""

MOST_REPEATS = 1000
"""`auto` gives up on a target that is not whole within this many more pictures than there are."""


@dataclass(frozen=True)
class Share:
    """One line of the balance table."""

    attribute: str
    value: str
    target: float
    share: float
    """Share of the value among the pictures that have the attribute."""
    lowest: float
    """Share of the value in the subject that shows it least."""
    highest: float
    """Share of the value in the subject that shows it most."""
    count: int
    """Pictures with the value, counted with repeats."""


def seeded(*key: object) -> np.random.Generator:
    """A generator that is a function of the key alone, in every process."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def choose_balanced(
    subjects: Sequence[str],
    values: Sequence[Mapping[str, str]],
    attributes: Sequence[Attribute],
    size: int | Literal["auto"],
    seed: int,
) -> NDArray[np.int64]:
    """Numbers of the rows to take, rising within a subject; a repeated number is a repeated row.

    `subjects` and `values` (attribute -> value) have one entry a row. Of every subject `size` rows
    are taken, every cell within one of its wanted number, and so is every value of a subject's
    first attribute. "auto" is the fewest rows at which all is exact, and at least as many as the
    subject has in wanted cells. Rows of a cell are used equally often, within one; which ones are
    used once more is a function of (seed, subject, cell).

    Raises UserError for a value that its attribute does not have, a subject whose rows differ in
    their attributes, a wanted cell without a row, and a size that leaves a wanted cell empty.
    """
    rows_of: dict[str, list[int]] = {}
    for row, subject in enumerate(subjects):
        rows_of.setdefault(subject, []).append(row)
    chosen: list[int] = []
    for subject, rows in rows_of.items():
        own = _attributes_of(subject, [values[row] for row in rows], attributes)
        by_cell: dict[Cell, list[int]] = {}
        for row in rows:
            by_cell.setdefault(tuple(values[row][a.id] for a in own), []).append(row)
        shares = cell_shares(own)
        _check_cells(subject, by_cell, shares)
        wanted = np.array(list(shares.values()))
        usable = sum(len(by_cell[cell]) for cell, share in shares.items() if share > 0)
        n = whole_size(wanted, usable, subject) if size == "auto" else size
        _check_size(subject, n, shares)
        for cell, count in zip(shares, apportion(n, wanted, seeded(seed, subject)), strict=True):
            if count:
                chosen += spread(by_cell[cell], int(count), seeded(seed, subject, cell))
    return np.array(chosen, dtype=np.int64)


def cell_shares(attributes: Sequence[Attribute]) -> dict[Cell, float]:
    """Cell -> wanted share: the product of its values' targets. Sums to 1."""
    targets = [a.target.tolist() for a in attributes]
    cells = itertools.product(*(a.values for a in attributes))
    return {
        cell: math.prod(shares)
        for cell, shares in zip(cells, itertools.product(*targets), strict=True)
    }


def apportion(
    size: int, share_k: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """(K,) counts that sum to `size`, each less than one from size * share, as is any run of them.

    Systematic sampling: a random start, then the running total cut at whole numbers. Over many
    subjects the mean count is exact, so no cell is always the one that is rounded down.
    """
    total_k = np.append(0, np.round(size * np.cumsum(share_k), 9))
    total_k[-1] = size
    counts: NDArray[np.int64] = np.diff(np.floor(total_k + rng.random())).astype(np.int64)
    return counts


def whole_size(share_k: NDArray[np.float64], at_least: int, subject: str) -> int:
    """The smallest size >= `at_least` at which every size * share is a whole number.

    Raises UserError when there is none near.
    """
    for size in range(at_least, at_least + MOST_REPEATS + 1):
        if np.allclose(size * share_k, np.round(size * share_k), rtol=0, atol=1e-6):
            return size
    raise UserError(
        f"targets: no number of pictures up to {at_least + MOST_REPEATS} of {subject!r} has the "
        "wanted shares exactly: round them (0.25, 1/3), or give pictures_per_subject a number"
    )


def balance_table(
    subjects: Sequence[str],
    values: Sequence[Mapping[str, str]],
    attributes: Sequence[Attribute],
) -> list[Share]:
    """What share of the rows shows each value, over all and in the subjects furthest apart."""
    table = []
    for attribute in attributes:
        by_subject: dict[str, list[str]] = {}
        for subject, row in zip(subjects, values, strict=True):
            if attribute.id in row:
                by_subject.setdefault(subject, []).append(row[attribute.id])
        all_shown = list(itertools.chain.from_iterable(by_subject.values()))
        for value, target in zip(attribute.values, attribute.target.tolist(), strict=True):
            within = [shown.count(value) / len(shown) for shown in by_subject.values()] or [0.0]
            count = all_shown.count(value)
            share = count / max(1, len(all_shown))
            lowest, highest = min(within), max(within)
            table.append(Share(attribute.id, value, target, share, lowest, highest, count))
    return table


def _attributes_of(
    subject: str, values: Sequence[Mapping[str, str]], attributes: Sequence[Attribute]
) -> list[Attribute]:
    """The attributes that all of a subject's rows have."""
    own = [a for a in attributes if a.id in values[0]]
    for row in values:
        if [a.id for a in attributes if a.id in row] != [a.id for a in own]:
            raise UserError(
                f"{subject!r} has rows with {sorted(row)} and rows with {sorted(values[0])}; all "
                "rows of a subject must have the same attributes: complete the labels"
            )
        for attribute in own:
            if row[attribute.id] not in attribute.values:
                raise UserError(
                    f"{subject!r} has a row with {attribute.id} = {row[attribute.id]!r} "
                    f"(allowed: {', '.join(attribute.values)})"
                )
    return own


def _check_cells(
    subject: str, by_cell: Mapping[Cell, Sequence[int]], shares: Mapping[Cell, float]
) -> None:
    missing = [cell for cell, share in shares.items() if share > 0 and cell not in by_cell]
    if missing:
        raise UserError(
            f"{subject!r} has no picture of {len(missing)} of the {len(shares)} combinations that "
            f"the targets ask for (first: {', '.join(missing[0])}): add such pictures, leave the "
            "subject out, or give that value a target of 0"
        )


def _check_size(subject: str, size: int, shares: Mapping[Cell, float]) -> None:
    rarest = min((cell for cell in shares if shares[cell] > 0), key=lambda cell: shares[cell])
    if size * shares[rarest] < 1 - 1e-9:
        raise UserError(
            f"pictures_per_subject must be >= {math.ceil(1 / shares[rarest] - 1e-9)}, got {size}: "
            f"with fewer, {subject!r} may lack {', '.join(rarest)}"
        )


def spread(rows: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """`count` of these rows, each used equally often within one."""
    times, more = divmod(count, len(rows))
    extra = rng.choice(np.array(rows), size=more, replace=False).tolist()
    return sorted([*list(rows) * times, *extra])
