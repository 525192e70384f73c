"""A finished study, as notebooks look at it: tables, figures, and itself in a cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from unskew.errors import UserError
from unskew.evaluate import report_words as words
from unskew.evaluate.figures import Picture, draw_imbalance, draw_shares
from unskew.evaluate.schema import RepresentationRow, Results

SHOWN = ["measured", "suite", "arm", "before", "after", "change", "low", "high", "verdict"]


@dataclass(frozen=True)
class StudyRun:
    """A study's folder and what was found. Tables are pandas DataFrames, a row a finding.

    Columns `low` and `high` are the ends of the 95 % interval of the change. In an audit all that
    speaks of a change is missing.
    """

    folder: Path
    """The run's folder, with `report.html`, `results.json` and the pictures."""
    results: Results = field(repr=False)
    """All of `results.json`, typed."""

    @property
    def report(self) -> Path:
        """The report, one HTML file."""
        return self.folder / "report.html"

    @property
    def representation(self) -> pd.DataFrame:
        """How each attribute is shown on each neutral suite: imbalance before, after, and change.

        Imbalance is 0 on target and 1 as far from it as possible; below 0 a change is better.
        """
        return pd.DataFrame([_representation(row) for row in self.results.representation])

    @property
    def shares(self) -> pd.DataFrame:
        """Share in [0, 1] of every value in every arm, with its interval and its target."""
        every = pd.DataFrame([s for row in self.results.representation for s in _shares(row)])
        return every.drop_duplicates(ignore_index=True)  # the baseline stands in each arm's row

    @property
    def prompts(self) -> pd.DataFrame:
        """Each prompt's imbalance before and after; `change` below 0 is better."""
        return pd.DataFrame(
            [
                {
                    "attribute": row.attribute,
                    "suite": row.suite,
                    "arm": row.arm,
                    "prompt_id": prompt.prompt_id,
                    "text": prompt.text,
                    "subject": prompt.subject,
                    "before": prompt.baseline.imbalance,
                    "after": prompt.treated.imbalance if prompt.treated else None,
                    "change": prompt.change,
                    "p_adjusted": prompt.p_adjusted,
                    "overshoot": prompt.overshoot,
                }
                for row in self.results.representation
                for prompt in row.per_prompt
            ]
        )

    @property
    def fidelity(self) -> pd.DataFrame:
        """How often pictures show what the words ask for, as rates in [0, 1]."""
        return pd.DataFrame(
            [
                {
                    "attribute": row.attribute,
                    "suite": row.suite,
                    "arm": row.arm,
                    "before": row.baseline_rate,
                    "after": row.treated_rate,
                    **_change(row.change.value if row.change else None, row.change),
                    "margin": row.margin,
                    "verdict": row.verdict,
                }
                for row in self.results.fidelity
            ]
        )

    @property
    def drift(self) -> pd.DataFrame:
        """How far control pictures moved beyond what other seeds would do; 0 is not at all."""
        return pd.DataFrame(
            [
                {
                    "suite": row.suite,
                    "arm": row.arm,
                    **_change(row.excess, row),
                    "margin": row.margin,
                    "verdict": row.verdict,
                }
                for row in self.results.drift
            ]
        )

    def readings(self) -> pd.DataFrame:
        """Every reading of every picture. Raises UserError where the folder has none."""
        file = self.folder / "readings.parquet"
        if not file.is_file():
            raise UserError(f"{file} does not exist: run the study again with the same settings")
        return pd.read_parquet(file)

    def plot_imbalance(self) -> Picture:
        """Imbalance of every attribute and suite, baseline and treated, with intervals."""
        return draw_imbalance(self.results)

    def plot_shares(self, attribute: str, suite: str) -> Picture:
        """Shares of an attribute's values in every arm, beside the target.

        Raises UserError where the study did not measure that.
        """
        rows = [
            r for r in self.results.representation if (r.attribute, r.suite) == (attribute, suite)
        ]
        if not rows:
            known = {f"{row.attribute} on {row.suite}" for row in self.results.representation}
            raise UserError(
                f"{attribute} on {suite} was not measured (measured: {', '.join(sorted(known))})"
            )
        return draw_shares(rows)

    def _repr_html_(self) -> str:
        """The finding in a sentence, the gate, and the table of verdicts."""
        headline = words.headline(self.results)
        said = words.sentence(headline, self.results) if headline else "Nothing neutral was drawn."
        gate = self.results.gate
        held = "" if gate.passed is None else f" Gate {'passed' if gate.passed else 'failed'}."
        table = self._verdicts().to_html(
            index=False, border=0, na_rep="", float_format="{:.3f}".format, escape=True
        )
        where = Markup("<p>{}</p>").format(f"Report: {self.report}")
        return f"<p><strong>{escape(said)}</strong>{escape(held)}</p>\n{table}\n{where}"

    def _verdicts(self) -> pd.DataFrame:
        parts = [
            self.representation.assign(measured=lambda t: "imbalance of " + t["attribute"])
            if self.results.representation
            else None,
            self.fidelity.assign(measured=lambda t: "right " + t["attribute"])
            if self.results.fidelity
            else None,
            self.drift.assign(measured="drift") if self.results.drift else None,
        ]
        rows = [row for part in parts if part is not None for row in part.to_dict("records")]
        table = pd.DataFrame(rows, columns=SHOWN)
        return table.dropna(axis="columns", how="all")


def _representation(row: RepresentationRow) -> dict[str, Any]:
    treated, change = row.treated, row.change
    fixed = row.corrected.imbalance if row.corrected else None
    return {
        "attribute": row.attribute,
        "suite": row.suite,
        "arm": row.arm,
        "prompts": row.n_prompts,
        "seeds": row.n_seeds,
        "before": row.baseline.imbalance,
        "before_low": row.baseline.imbalance_ci95[0],
        "before_high": row.baseline.imbalance_ci95[1],
        "after": treated.imbalance if treated else None,
        "after_low": treated.imbalance_ci95[0] if treated else None,
        "after_high": treated.imbalance_ci95[1] if treated else None,
        **_change(change.imbalance if change else None, change),
        "p_value": change.p_value if change else None,
        "p_adjusted": change.p_adjusted if change else None,
        "overshoot_rate": change.overshoot_rate if change else None,
        "corrected_change": fixed.change if fixed else None,
        "unreadable_before": row.baseline.unreadable_rate,
        "unreadable_after": treated.unreadable_rate if treated else None,
        "primary": row.primary,
        "verdict": row.verdict,
    }


def _change(value: float | None, interval: Any) -> dict[str, float | None]:
    low, high = interval.ci95 if interval is not None else (None, None)
    return {"change": value, "low": low, "high": high}


def _shares(row: RepresentationRow) -> Iterator[dict[str, Any]]:
    against = row.against if row.treated and row.against else row.arm
    for arm, shown in ((against, row.baseline), (row.arm, row.treated)):
        for value, share in shown.shares.items() if shown else ():
            low, high = shown.shares_ci95[value] if shown else (None, None)
            yield {
                "attribute": row.attribute,
                "suite": row.suite,
                "arm": arm,
                "value": value,
                "share": share,
                "low": low,
                "high": high,
                "target": row.target[value],
            }
