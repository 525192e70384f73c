"""What a classifier is, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unskew.errors import UserError

Images = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
"""(h, w, 3) RGB pictures whose sizes may differ; an (n, h, w, 3) array is one too."""


@dataclass(frozen=True)
class Readings:
    """What a classifier says of one attribute on n pictures."""

    values: tuple[str, ...]
    """The K values, in the attribute's order."""
    value_n: NDArray[np.int64]
    """(n,) index into `values`; -1 where unreadable."""
    probability_nk: NDArray[np.float32]
    """(n, K); zeros where unreadable."""
    warnings: Mapping[int, str] = field(default_factory=dict)
    """Number of a picture -> what makes its reading doubtful; most have none."""

    @property
    def readable_n(self) -> NDArray[np.bool_]:
        """(n,) whether the picture could be read."""
        return self.value_n >= 0


class Classifier(Protocol):
    """Reads attributes off pictures."""

    @property
    def name(self) -> str:
        """What readings.parquet says read them: the kind, the weights, their revision or sha256."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that it reads."""

    def read(self, images: Images, attributes: Sequence[str]) -> dict[str, Readings]:
        """Attribute -> readings of the n pictures. Raises UserError for one that it cannot read."""


def check_asked(name: str, known: Sequence[str], asked: Sequence[str], advice: str) -> None:
    """Raise UserError when a classifier is asked for an attribute that it does not read."""
    for attribute in asked:
        if attribute not in known:
            raise UserError(
                f"classifier {name} cannot read {attribute!r} (it reads: {', '.join(known)}): "
                f"{advice}"
            )


def most_probable(
    values: tuple[str, ...], score_nk: NDArray[np.float32], margin: float
) -> Readings:
    """The value with the highest score, unreadable where it leads the next by less than `margin`.

    `score_nk` is (n, C) with C >= K: scores in [0, 1] of the K values, then of answers that mean
    "unreadable". A picture whose highest score is one of those is unreadable too. Probabilities are
    the values' scores, scaled to sum to 1.
    """
    k = len(values)
    two_n2 = np.sort(score_nk, axis=1)[:, -2:]
    best_n = score_nk.argmax(axis=1)
    readable_n = (best_n < k) & (two_n2[:, 1] - two_n2[:, 0] >= margin)
    readable_n &= two_n2[:, 1] > 0
    total_n1 = score_nk[:, :k].sum(axis=1, keepdims=True)
    probability_nk = score_nk[:, :k] / np.where(total_n1 > 0, total_n1, 1)
    probability_nk[~readable_n] = 0
    return Readings(
        values, np.where(readable_n, best_n, -1).astype(np.int64), probability_nk.astype(np.float32)
    )


def unreadable(values: tuple[str, ...], n: int) -> Readings:
    """Readings of n pictures of which none could be read."""
    return Readings(
        values, np.full(n, -1, dtype=np.int64), np.zeros((n, len(values)), dtype=np.float32)
    )


def scattered(readings: Readings, at: Sequence[int], n: int) -> Readings:
    """Readings of n pictures, of which only those `at` these places were read."""
    whole = unreadable(readings.values, n)
    whole.value_n[list(at)] = readings.value_n
    whole.probability_nk[list(at)] = readings.probability_nk
    warnings = {at[k]: said for k, said in readings.warnings.items()}
    return Readings(readings.values, whole.value_n, whole.probability_nk, warnings)
