"""Promises of the benchmark of the statistics: known truth, real functions, nothing done twice."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unskew.errors import UserError
from unskew.evaluate.stats import cluster_estimate, count_values, imbalance
from unskew.scripts import bench_simulations, bench_statistics
from unskew.scripts.bench_published import published_rows
from unskew.scripts.bench_readings import time_readings
from unskew.scripts.bench_simulations import SITUATIONS, Cell, coverage, draw, estimate, true_change
from unskew.scripts.bench_statistics_options import ReadingsSettings
from unskew.settings import run_program

FIXTURE = Path(__file__).parents[1] / "oracles" / "fair_diffusion_counts.json"
THREE = (0.5, 0.3, 0.2)
SMALL = [
    "--studies", "40",
    "--grid.prompts", "12", "--grid.seeds", "6",
    "--grid.situations", "nothing", "mended",
    "--grid.targets", "[[0.5, 0.5]]",
    "--these_prompts.prompts", "2", "--these_prompts.seeds", "8",
    "--these_prompts.situations", "mended",
    "--power.designs", "[[20, 20]]", "--power.targets", "[[0.5, 0.5]]", "--power.studies", "40",
    "--published", str(FIXTURE),
]  # fmt: skip


@pytest.mark.parametrize("situation", ["nothing", "half", "round", "wordings"])
def test_the_truth_is_that_of_many_drawn_prompts(situation: str) -> None:
    """The mean unbiased change of 5,000 prompts comes within its error of the stated truth."""
    cell = Cell(SITUATIONS[situation], THREE, 50, 10)
    target = np.tile(THREE, (len(cell.clusters_p), 1))
    changes = [
        np.diff(imbalance(count_values(codes, 3), target), axis=0).ravel()
        for codes, _ in draw(cell, 100, 1)
    ]
    found = np.concatenate(changes)
    error = found.std() / np.sqrt(len(found) / 3)
    assert found.mean() == pytest.approx(true_change(cell.situation, THREE), abs=4 * error)
    assert (true_change(cell.situation, THREE) == 0) == cell.situation.null


def test_the_arms_share_noise_and_some_pictures_cannot_be_read() -> None:
    """Equal skews read alike more often than chance, and about a tenth is unreadable."""
    cell = Cell(SITUATIONS["nothing"], (0.5, 0.5), 50, 20, correlation=0.9)
    codes, skews = next(iter(draw(cell, 50, 0)))
    assert (codes < 0).mean() == pytest.approx(0.1, abs=0.02)
    both = (codes >= 0).all(0)
    assert (codes[0] == codes[1])[both].mean() > 0.85
    assert skews[0] == pytest.approx(skews[1])


def test_many_studies_at_once_are_each_a_studys_own_estimate() -> None:
    """The benchmark measures what ships: its intervals are `cluster_estimate`'s, one by one."""
    cell = Cell(SITUATIONS["half"], THREE, 15, 8)
    codes, _ = next(iter(draw(cell, 4, 3)))
    found = estimate(cell, codes, 5)
    for study in range(4):
        change = np.diff(
            imbalance(count_values(codes[:, study], 3), np.tile(THREE, (15, 1))), axis=0
        )
        alone = cluster_estimate(change[0], 5, 1.0)
        got = found.one(study)
        assert (got.lo, got.hi, got.p_value) == pytest.approx((alone.lo, alone.hi, alone.p_value))


def test_a_prompt_without_pictures_is_left_out_of_its_study() -> None:
    """Unreadable prompts leave the estimate, as in a study; the other studies are as before."""
    cell = Cell(SITUATIONS["half"], (0.5, 0.5), 15, 8)
    codes, _ = next(iter(draw(cell, 3, 3)))
    codes[1, 1, 4] = -1
    found = estimate(cell, codes, 5)
    kept = np.delete(codes[:, 1], 4, axis=1)
    change = np.diff(imbalance(count_values(kept, 2), np.full((14, 2), 0.5)), axis=0)[0]
    alone = cluster_estimate(change, 5, 1.0)
    assert (found.lo[1], found.hi[1]) == pytest.approx((alone.lo, alone.hi))


def test_coverage_counts_intervals_that_hold_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interval of everything covers always, one beside the truth never."""
    cell = Cell(SITUATIONS["mended"], (0.5, 0.5), 12, 6)
    real = estimate

    def shifted(lo: float, hi: float) -> float:
        def widened(*given: object) -> object:
            found = real(*given)  # type: ignore[arg-type]
            return replace(found, lo=found.value + lo, hi=found.value + hi)

        monkeypatch.setattr(bench_simulations, "estimate", widened)
        return coverage(cell, 30, 0).covered

    assert shifted(-2, 2) == 1
    assert shifted(2, 3) == 0


def test_the_page_is_written_and_nothing_is_simulated_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables go between their markers; the same command again reads what is finished."""
    page = tmp_path / "page.md"
    rows = ("grid", "these_prompts", "power", "published")
    page.write_text("".join(f"<!-- {row} -->\n<!-- end of {row} -->\n" for row in rows), "utf-8")
    words = [*SMALL, "--parts", *rows, "--out", str(tmp_path / "out"), "--write", str(page)]
    assert bench_statistics.main(words) == 0
    text = page.read_text("utf-8")
    for part in ("2 kinds of studies, 40 of each", "12 x 6", "| 20 x 20 | -0.", "0.623", "0.210"):
        assert part in text
    monkeypatch.setattr(bench_statistics, "coverage", None)
    monkeypatch.setattr(bench_statistics, "power_row", None)
    capsys.readouterr()
    assert bench_statistics.main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert page.read_text("utf-8") == text
    assert [row["studies"] for row in report["grid"]] == [40, 40]


def test_a_dry_run_says_what_there_is_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts, time, and no file."""
    words = [*SMALL, "--parts", "grid", "power", "--out", str(tmp_path / "out"), "--dry-run"]
    assert bench_statistics.main(words) == 0
    said = capsys.readouterr().out
    assert "grid 2, power 1" in said
    assert "minutes for all" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grid.situations", "nonsense"], "must be one of nothing"),
        (["--grid.targets", "[[0.5, 0.4]]"], "shares that sum to 1"),
        (["--published", "nowhere.json"], "nowhere.json does not exist"),
    ],
)
def test_wrong_settings_are_told_before_the_work(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A situation that is none, shares of less than all, counts that are not there."""
    assert run_program(bench_statistics.main, words) == 2
    assert message in capsys.readouterr().err


def test_published_figures_stand_beside_their_unbiased_ones() -> None:
    """Fair Diffusion: mean |2p - 1| .623 -> .210, imbalance .490 -> .068."""
    found = published_rows(FIXTURE)
    assert "Apache-2.0" in found["source"]
    figures = {arm: (row["plug_in"], row["imbalance"]) for arm, row in found["arms"].items()}
    assert figures["generated"] == pytest.approx((0.623, 0.490), abs=5e-4)
    assert figures["edited"] == pytest.approx((0.210, 0.068), abs=5e-4)


def test_readings_are_timed_to_the_results_file() -> None:
    """A table of every row that the settings say, in a process whose memory is told."""
    found = time_readings(ReadingsSettings(arms=2, prompts=12, seeds=5, attributes=2), 0)
    assert found["readings"] == 2 * 12 * 5 * 2
    assert found["seconds"] > 0
    assert found["memory_gib"] >= found["memory_before_gib"] > 0


def test_a_bad_page_is_told(tmp_path: Path) -> None:
    """A page without a place for a part is an error that names it."""
    page = tmp_path / "page.md"
    page.write_text("nothing", "utf-8")
    words = [*SMALL, "--parts", "published", "--out", str(tmp_path), "--write", str(page)]
    with pytest.raises(UserError, match="no place for row 'published'"):
        bench_statistics.main(words)
