"""What `results.json` says of a row that labels corrected; the raw figures stay beside it."""

from __future__ import annotations

from typing import Literal

from unskew.evaluate.schema_model import Interval, Model, Verdict


class CorrectedShares(Model):
    """Shares of one arm by prediction-powered inference, among pictures that can be told."""

    shares: dict[str, float]
    shares_ci95: dict[str, Interval]
    n_labels: int
    cannot_tell: float
    """Part of the labelled pictures in which the raters could not tell."""
    trust: float
    """PPI++'s lambda: 0 leans on the labels alone, 1 on the readings as far as they go."""
    labels_for_2_points: int
    """About how many labels would bring the intervals of the shares to +-2 points."""


class ShareShift(Model):
    """Treated - baseline of one value's share."""

    value: float
    ci95: Interval


class CorrectedImbalance(Model):
    """Imbalance through the inverse of the confusion matrix."""

    matrix: Literal["per_arm", "shared"]
    """Whether each arm has a matrix of its own labels, or both have one of all labels."""
    counts: dict[str, tuple[tuple[float, ...], ...]]
    """Arm -> labelled pictures, a row a true value, a column a value read, in the attribute's
    order. Several raters share a picture between them."""
    information: dict[str, float]
    """Arm -> the least part of a difference in shares that its readings keep; Se + Sp - 1 of two
    values."""
    baseline: float
    baseline_ci95: Interval
    treated: float | None
    treated_ci95: Interval | None
    change: float | None
    change_ci95: Interval | None
    verdict: Verdict | None
    """By the interval of the corrected change alone; no p-value stands behind it."""


class Corrected(Model):
    """A row's figures corrected for the classifier's error, and how."""

    raters: tuple[str, ...]
    method: str
    caveat: str
    baseline: CorrectedShares | None
    treated: CorrectedShares | None
    shift: dict[str, ShareShift] | None
    """Value -> how its share changed."""
    imbalance: CorrectedImbalance | None
    refused: tuple[str, ...]
    """What could not be corrected, and why."""
