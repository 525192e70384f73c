"""One self-contained page of a comparison: what to take first, then the leaderboard and pictures.

It opens from disk without a network and has no script. Titles, prompts and names are untrusted
text: the template escapes everything. The same folder gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from unskew.evaluate import pareto
from unskew.evaluate.recommendation import against, rules
from unskew.evaluate.report import page_environment
from unskew.evaluate.report_pictures import COLUMNS, load_gallery
from unskew.evaluate.schema import load_results
from unskew.evaluate.schema_comparison import Comparison, PairRow, load_comparison
from unskew.runs import read_manifest, sha256_file, write_text_atomic

HERE = Path(__file__).parent
PAGE = "compare.html"
FILES = ("comparison.json", "results.json", "readings.parquet")


def write_compare_page(folder: Path) -> Path:
    """Write `compare.html` into a comparison's folder from what lies there; its path.

    Raises UserError where `comparison.json`, `results.json` or the manifest is missing.
    """
    comparison = load_comparison(folder)
    results = load_results(folder / "results.json")
    readings = pd.read_parquet(folder / "readings.parquet", columns=COLUMNS)
    gallery = load_gallery(folder, results, readings)
    style = "".join(
        (HERE / f"{name}_template.css").read_text("utf-8") for name in ("report", "compare")
    )
    html = (
        page_environment()
        .get_template("compare_template.html.j2")
        .render(
            comparison=comparison,
            results=results,
            order=_order(comparison),
            matrix=_matrix(comparison),
            boards=_boards(comparison),
            plot=pareto.picture(comparison),
            size=pareto,
            gallery=gallery,
            against=against,
            rules=rules(),
            hashes=[(name, sha256_file(folder / name)) for name in FILES],
            inputs=read_manifest(folder)["inputs"],
            style=Markup(style),
        )
    )
    page = folder / PAGE
    write_text_atomic(page, html)
    return page


def _order(comparison: Comparison) -> list[str]:
    """Arms as rows of pictures: the baseline, then by rank."""
    ranked = [place.arm for place in comparison.leaderboard if place.arm != comparison.baseline]
    return [comparison.baseline, *ranked]


def _matrix(comparison: Comparison) -> Mapping[tuple[str, str], PairRow]:
    """(arm, against) -> the pair that decides the leaderboard, in both directions."""
    rows = {(row.arm, row.against): row for row in comparison.deciding}
    return rows | {(row.against, row.arm): _turned(row) for row in rows.values()}


def _turned(row: PairRow) -> PairRow:
    other = {"improved": "worsened", "worsened": "improved"}
    low, high = row.ci95
    return row.model_copy(
        update={
            "arm": row.against,
            "against": row.arm,
            "difference": -row.difference,
            "ci95": (-high, -low),
            "verdict": other.get(row.verdict, row.verdict),
        }
    )


def _boards(comparison: Comparison) -> Mapping[tuple[str, tuple[str, ...]], list[PairRow]]:
    """(suite, attributes) -> its pairs, of all that do not decide the leaderboard."""
    boards: dict[tuple[str, tuple[str, ...]], list[PairRow]] = {}
    for row in comparison.pairs:
        if row not in comparison.deciding:
            boards.setdefault((row.suite, row.attributes), []).append(row)
    return boards
