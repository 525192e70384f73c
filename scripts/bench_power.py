"""Is the smallest change that a study is said to see seen in 80 of 100 simulated studies?"""

from __future__ import annotations

from typing import Any

from unskew.evaluate.power import Outlook, skew_spread, smallest_change
from unskew.scripts.bench_simulations import Cell, Situation, coverage


def power_row(
    outlook: Outlook, prompts: int, seeds: int, studies: int, seed: int
) -> dict[str, Any]:
    """The change said to be the smallest, and how often an interval excludes 0 where it is true.

    None for all where the study is said to see no change.
    """
    found = smallest_change(outlook, prompts, seeds)
    if found is None:
        return {"change": None, "share": None, "true_change": None, "seen": None}
    situation = Situation(
        "smallest change",
        spread=skew_spread(outlook),
        kept=found.kept,
        left=outlook.unevenness,
    )
    cell = Cell(
        situation,
        outlook.target,
        prompts,
        seeds,
        correlation=outlook.correlation,
        unreadable=0.0,
    )
    result = coverage(cell, studies, seed)
    return {
        "change": found.change,
        "share": found.share,
        "true_change": result.truth,
        "seen": result.found,
    }
