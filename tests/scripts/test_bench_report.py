"""The benchmark of large studies measures the real statistics and the real report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unskew.evaluate.schema import load_results
from unskew.scripts import bench_report


def test_a_made_up_study_is_judged_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many readings as are asked for, with pictures, to results and a page."""
    out = tmp_path / "study"
    words = ["--prompts", "24", "--seeds", "4", "--pictures", "--out", str(out)]
    assert bench_report.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["readings"] == 2 * 24 * 4 * 4 and told["pictures"] == 2 * 24 * 4
    assert told["total_s"] >= 0 and told["peak_mb"] >= told["peak_before_mb"] > 0
    assert len(load_results(out / "results.json").representation) == 2 * 3
    assert "<html" in (out / "report.html").read_text("utf-8")
