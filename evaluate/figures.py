"""Figures of a study by matplotlib, which comes with the extra `[notebook]`.

They are drawn without pyplot, so no window opens and nothing is kept that must be closed.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from unskew.errors import UserError
from unskew.evaluate.report_words import suite_title
from unskew.evaluate.schema import ArmRepresentation, RepresentationRow, Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
COLOURS = ("#4c6a92", "#c8702a", "#3d8361", "#8a4f7d", "#b8a03a", "#5d5d5d")
"""Of arms, the baseline's first; apart in brightness too."""
TARGET = "#1a1a1a"


@dataclass(frozen=True)
class Picture:
    """A matplotlib figure that a notebook shows, with words for those who cannot see it."""

    figure: Figure
    """To change, or to save: `picture.figure.savefig("shares.pdf")`."""
    alt: str

    def png(self) -> bytes:
        """The figure as a PNG file."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png()).decode("ascii")
        return str(Markup('<img alt="{}" src="data:image/png;base64,{}">').format(self.alt, data))


def draw_imbalance(results: Results) -> Picture:
    """Every arm's imbalance with its 95 % interval, a line an attribute and suite."""
    lines: dict[tuple[str, str], list[tuple[str, ArmRepresentation]]] = {}
    for row in results.representation:
        found = lines.setdefault((row.attribute, row.suite), [])
        if row.treated and row.against and not found:
            found.append((row.against, row.baseline))
        found.append((row.arm, row.treated or row.baseline))
    if not lines:
        raise UserError("the study has no neutral suite, so there is no imbalance to draw")
    figure, axes = _figure(7.0, 1.0 + 0.28 * sum(len(found) + 1 for found in lines.values()))
    colours, said, place, ticks = _colours(results.arms), [], 0.0, []
    for (attribute, suite), found in lines.items():
        ticks.append((place + (len(found) - 1) / 2, f"{attribute}\n{suite_title(suite)}"))
        for arm, shown in found:
            low, high = shown.imbalance_ci95
            axes.hlines(place, low, high, color=colours[arm], linewidth=2)
            axes.plot(shown.imbalance, place, "o", color=colours[arm])
            said.append(f"{attribute} on {suite_title(suite)}, {arm}: {shown.imbalance:.2f}")
            place += 1
        place += 1
    axes.axvline(0, color=TARGET, linewidth=0.8)
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
    axes.invert_yaxis()
    axes.set_xlabel("imbalance: 0 on target, 1 as far from it as possible (95 % interval)")
    _legend(figure, axes, colours)
    return Picture(figure, f"Imbalance. {'; '.join(said)}.")


def draw_shares(rows: Sequence[RepresentationRow]) -> Picture:
    """Shares of one attribute's values on one suite, a group of bars a value, one bar an arm."""
    first = rows[0]
    arms = {row.arm: row.treated or row.baseline for row in rows}
    if first.treated and first.against:
        arms = {first.against: first.baseline, **arms}
    values, width = list(first.target), 0.8 / len(arms)
    figure, axes = _figure(max(4.0, 1.2 * len(values) + 1.5), 3.6)
    colours = _colours(arms)
    for number, (arm, shown) in enumerate(arms.items()):
        at = [place + (number + 0.5) * width - 0.4 for place in range(len(values))]
        share = [shown.shares[value] for value in values]
        ends = [shown.shares_ci95[value] for value in values]
        axes.bar(at, share, width=width, color=colours[arm])
        axes.vlines(at, [low for low, _ in ends], [high for _, high in ends], color=TARGET)
    for place, value in enumerate(values):
        axes.hlines(first.target[value], place - 0.45, place + 0.45, color=TARGET, linestyle="--")
    axes.set_xticks(range(len(values)), [value.replace("_", " ") for value in values])
    axes.set_ylim(0, 1)
    axes.set_ylabel("share (95 % interval; dashed: target)")
    axes.set_title(f"{first.attribute} on {suite_title(first.suite)} prompts")
    _legend(figure, axes, colours)
    said = "; ".join(
        f"{arm}: " + ", ".join(f"{value} {shown.shares[value]:.0%}" for value in values)
        for arm, shown in arms.items()
    )
    return Picture(figure, f"Shares of {first.attribute} on {suite_title(first.suite)}. {said}.")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            f"figures need matplotlib, which cannot be imported ({error}): "
            "pip install 'unskew[notebook]'"
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _colours(arms: Any) -> dict[str, str]:
    return {arm: COLOURS[number % len(COLOURS)] for number, arm in enumerate(arms)}


def _legend(figure: Any, axes: Any, colours: dict[str, str]) -> None:
    for arm, colour in colours.items():
        axes.plot([], [], "s", color=colour, label=arm)
    figure.legend(loc="outside lower center", ncols=min(4, len(colours)), frameon=False)
