"""The picture of imbalance against drift: every arm a point, a sweep of weights a curve.

Only numbers are laid out here; the page's template draws them as SVG.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unskew.evaluate.schema_comparison import Comparison, Place

WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 16, 52
"""Room around the plot, px; at the right for labels."""
LABEL_PX = 17
"""Least distance between the base lines of two labels."""
NEAR_PX = 170
"""Labels nearer than this side by side are kept apart."""
TICKS = 5
STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Spot:
    """An arm in the picture, in px."""

    place: Place
    x: float
    y: float
    x_ends: tuple[float, float]
    """The interval of its drift; of no width for the baseline, which drift is measured from."""
    y_ends: tuple[float, float]
    label_y: float


@dataclass(frozen=True)
class Tick:
    """A line of the grid."""

    at: float
    value: float


@dataclass(frozen=True)
class Picture:
    """All that is drawn."""

    spots: tuple[Spot, ...]
    curves: tuple[str, ...]
    """SVG points of each sweep, from the bare base on."""
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    margin_x: float | None
    """Where drift is as large as its margin; None outside of the picture."""


def picture(comparison: Comparison) -> Picture | None:
    """The picture of a comparison; None where drift was not measured."""
    places = [p for p in comparison.leaderboard if p.drift or p.arm == comparison.baseline]
    if len(places) < 2:
        return None
    x_low, x_high, x_step = _scale([end for p in places for end in (*_drift_ends(p), 0.0)])
    y_low, y_high, y_step = _scale([end for p in places for end in (*p.ci95, 0.0)])

    def x_of(value: float) -> float:
        return round(LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y_of(value: float) -> float:
        return round(TOP + (y_high - value) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    at = {place.arm: (x_of(_drift(place)), y_of(place.imbalance)) for place in places}
    labels = _apart([(place.arm, *at[place.arm]) for place in places])
    margins = [place.drift.margin for place in places if place.drift]
    base = at[comparison.baseline]
    return Picture(
        spots=tuple(
            Spot(
                place=place,
                x=at[place.arm][0],
                y=at[place.arm][1],
                x_ends=(x_of(_drift_ends(place)[0]), x_of(_drift_ends(place)[1])),
                y_ends=(y_of(place.ci95[0]), y_of(place.ci95[1])),
                label_y=labels[place.arm],
            )
            for place in places
        ),
        curves=tuple(
            " ".join(f"{x},{y}" for x, y in [base, *[at[p.arm] for p in points if p.arm in at]])
            for points in comparison.sweeps.values()
            if len(points) > 1
        ),
        x_ticks=tuple(Tick(x_of(value), value) for value in _ticks(x_low, x_high, x_step)),
        y_ticks=tuple(Tick(y_of(value), value) for value in _ticks(y_low, y_high, y_step)),
        margin_x=x_of(margins[0]) if margins[0] <= x_high else None,
    )


def _drift(place: Place) -> float:
    return place.drift.value if place.drift else 0.0


def _drift_ends(place: Place) -> tuple[float, float]:
    return place.drift.ci95 if place.drift else (0.0, 0.0)


def _scale(values: Sequence[float]) -> tuple[float, float, float]:
    """(low, high, step) of round numbers around these."""
    low, high = min(values), max(values)
    rough = max(high - low, 1e-3) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(step for step in STEPS if power * step >= rough - 1e-12)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return low, max(high, low + step), step


def _ticks(low: float, high: float, step: float) -> list[float]:
    return [round(low + n * step, 9) for n in range(round((high - low) / step) + 1)]


def _apart(points: Sequence[tuple[str, float, float]]) -> dict[str, float]:
    """Where each point's label stands: at its height, or below one that would cover it."""
    placed: list[tuple[float, float]] = []
    heights = {}
    for arm, x, y in sorted(points, key=lambda point: point[2]):
        label = y
        for other_x, other in sorted(placed, key=lambda spot: spot[1]):
            if abs(other_x - x) < NEAR_PX and abs(other - label) < LABEL_PX:
                label = other + LABEL_PX
        placed.append((x, label))
        heights[arm] = round(label, 1)
    return heights
