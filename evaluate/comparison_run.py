"""A finished comparison, as notebooks look at it: the study of its arms, and how they rank."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from unskew.evaluate.schema import load_results
from unskew.evaluate.schema_comparison import Comparison, Place, load_comparison
from unskew.evaluate.study_run import StudyRun


@dataclass(frozen=True)
class ComparisonRun(StudyRun):
    """A comparison's folder and what was found: all of a `StudyRun`, the ranking, and the pairs."""

    comparison: Comparison = field(repr=False)
    """All of `comparison.json`, typed."""

    @property
    def page(self) -> Path:
        """The comparison's page, one HTML file."""
        return self.folder / "compare.html"

    @property
    def recommendation(self) -> str:
        """Which arm to take, in one sentence."""
        return self.comparison.recommendation.sentence

    @property
    def leaderboard(self) -> pd.DataFrame:
        """A row an arm, the least imbalance first, with the ranks that are left open to it.

        Imbalance is 0 on target and 1 as far as possible; `low` and `high` end its 95 % interval.
        """
        return pd.DataFrame([_place(place) for place in self.comparison.leaderboard])

    @property
    def pairs(self) -> pd.DataFrame:
        """Every arm against every other on the same cells; `difference` below 0 is better."""
        rows = []
        for row in self.comparison.pairs:
            low, high = row.ci95
            told = {"suite": row.suite, "attributes": " and ".join(row.attributes)}
            told |= {"arm": row.arm, "against": row.against}
            figures = {"difference": row.difference, "low": low, "high": high}
            rows.append({**told, **figures, "p_adjusted": row.p_adjusted, "verdict": row.verdict})
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        """The recommendation and the leaderboard."""
        table = self.leaderboard.to_html(
            index=False, border=0, na_rep="", float_format="{:.3f}".format, escape=True
        )
        where = Markup("<p>{}</p>").format(f"Page: {self.page}")
        return f"<p><strong>{escape(self.recommendation)}</strong></p>\n{table}\n{where}"


def load_run(folder: Path) -> ComparisonRun:
    """A comparison that was run before. Raises UserError where its files are not there."""
    results = load_results(folder / "results.json")
    return ComparisonRun(folder, results, load_comparison(folder))


def _place(place: Place) -> dict[str, Any]:
    low, high = place.ci95
    return {
        "rank_best": place.ranks[0],
        "rank_worst": place.ranks[1],
        "arm": place.title,
        "imbalance": place.imbalance,
        "low": low,
        "high": high,
        "ties": ", ".join(place.ties),
        "fidelity": place.fidelity.verdict if place.fidelity else None,
        "drift": place.drift.value if place.drift else None,
        "front": place.front,
    }
