"""Splits: which rows are trained on, which are kept to look at, which subjects are held out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from unskew.data.balance import seeded
from unskew.data.rows import Row
from unskew.errors import UserError
from unskew.settings import Settings

Split = Literal["train", "validation", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "validation", "held_out")


class SplitSettings(Settings):
    """What is kept from training. Where the rows themselves say their split, that holds."""

    held_out: tuple[str, ...] = ()
    """Subjects that are never trained on, so that a study can ask what carries over to them."""
    validation_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the pictures of every subject and combination of values that is kept for looking
    at while training; 0 keeps none."""


def split_rows(
    rows: Sequence[Row], groups: Iterable[Collection[str]], settings: SplitSettings, seed: int
) -> tuple[Split, ...]:
    """Each row's split. Rows that look the same are never separated.

    `groups` are names of rows that look the same; rows of the same bytes do so anyway. A group with
    any row of a held-out subject is held out as a whole, then one with any row for validation is
    for validation. Raises UserError for a held-out subject that no row has, and for a row that says
    another split than there is.
    """
    known = {row.subject for row in rows}
    problems = [
        f"splits.held_out names {s!r}, and no picture has that subject"
        for s in settings.held_out
        if s not in known
    ]
    problems += [
        f"{row.name}: split is {row.split!r} (allowed: {', '.join(SPLITS)}, or none)"
        for row in rows
        if row.split is not None and row.split not in SPLITS
    ]
    if problems:
        raise UserError(
            "the pictures cannot be split:" + "".join(f"\n  {p}" for p in problems[:10])
        )
    found: list[Split | None] = [None] * len(rows)
    open_groups: dict[tuple[object, ...], list[list[int]]] = {}
    for members in _alike(rows, groups):
        asked = {
            "held_out" if rows[n].subject in settings.held_out else rows[n].split for n in members
        }
        split = next((s for s in reversed(SPLITS) if s in asked), None)
        if split is None and any(rows[n].drawn for n in members):
            split = "train"  # it was drawn because training lacked it
        if split is None:
            first = rows[members[0]]
            open_groups.setdefault((first.subject, *first.labels.items()), []).append(members)
        for number in members:
            found[number] = split
    for key, alike in open_groups.items():
        alike.sort(key=lambda members: rows[members[0]].name)  # whatever order they came in
        rng = seeded(seed, "validation", key)
        count = int(np.floor(len(alike) * settings.validation_share + rng.random()))
        # of a single picture there is nothing to spare
        count = min(count, len(alike) - 1)
        kept = set(rng.permutation(len(alike))[:count].tolist())
        for place, members in enumerate(alike):
            for number in members:
                found[number] = "validation" if place in kept else "train"
    return tuple(split or "train" for split in found)


def _alike(rows: Sequence[Row], groups: Iterable[Collection[str]]) -> list[list[int]]:
    """The rows' numbers, those that look the same together, in the order of their first."""
    numbers = {row.name: number for number, row in enumerate(rows)}
    parent = list(range(len(rows)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def join(together: Iterable[int]) -> None:
        first, *others = together
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low

    by_bytes: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if row.sha256:
            by_bytes.setdefault(row.sha256, []).append(number)
    for same in by_bytes.values():
        join(same)
    for group in groups:
        if present := [numbers[name] for name in group if name in numbers]:
            join(present)
    together: dict[int, list[int]] = {}
    for number in range(len(rows)):
        together.setdefault(root(number), []).append(number)
    return list(together.values())
