"""The page of a comparison: names from outside stay text, and nothing is fetched or run."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from unskew.evaluate.compare_page import write_compare_page
from unskew.evaluate.comparison import compare
from unskew.evaluate.lineup import Lineup
from unskew.evaluate.options import ArmSettings, StudySettings
from unskew.evaluate.results import summarise, write_results
from unskew.evaluate.schema_comparison import load_comparison, write_comparison
from unskew.evaluate.study import Judged

ORACLES = Path(__file__).parents[1] / "oracles"
reported = SimpleNamespace(**runpy.run_path(str(ORACLES / "reported_study.py")))
made_up = reported.made_up
EVIL = '<img src=x onerror="alert(1)">'
ARMS = ("base", "a-0_5", "a-1")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up comparison of three arms with pictures; the last has a title of somebody's."""
    folder = Path(reported.make_study(tmp_path_factory.mktemp("compared") / "run", arms=ARMS))
    suites = [
        (made_up.suite_prompts("trained", 12, attributes=("colour", "size")), "neutral"),
        (made_up.suite_prompts("held_out", 3, n_templates=2), "neutral"),
        (made_up.suite_prompts("spelt", 2, asked={"colour": "blue"}), "explicit"),
        (made_up.suite_prompts("things", 3, attributes=()), "control"),
    ]
    plan = made_up.make_plan(*suites, arms=ARMS, seeds=6, primaries=(("colour", "trained"),))
    readings = pd.read_parquet(folder / "readings.parquet")
    results = summarise(readings, plan, made_up.features_of(plan, step=0.1))
    write_results(results, folder / "results.json")
    study = StudySettings(arms=dict.fromkeys(ARMS, ArmSettings()), suites={}, classifiers={})
    titles = {"base": "base", "a-0_5": "a at 0.5", "a-1": EVIL}
    lineup = Lineup(study, titles, {"a": ((0.5, "a-0_5"), (1.0, "a-1"))}, {})
    write_comparison(compare(Judged(results, readings), plan, lineup, "trained"), folder)
    return folder


def test_what_is_not_ours_is_text_and_nothing_runs(compared: Path) -> None:
    """No script, no event handler, no address outside of the page but its own files."""
    html = write_compare_page(compared).read_text("utf-8")
    page = reported.Page(html)
    assert EVIL not in html
    assert EVIL in "".join(page.text)
    assert page.all("script") == []
    assert not [name for _, attributes in page.tags for name in attributes if name[:2] == "on"]
    links = {attributes.get("href", "#") for attributes in page.all("a")}
    assert all(link[0] == "#" or link.split("#")[0] == "report.html" for link in links)
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    [policy] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'" in policy["content"] and "script-src" not in policy["content"]


def test_the_page_shows_every_arm_pair_and_picture(compared: Path) -> None:
    """Leaderboard, one row an arm and one column a seed, a curve for the sweep, all pairs."""
    html = write_compare_page(compared).read_text("utf-8")
    page = reported.Page(html)
    told = load_comparison(compared)
    text = " ".join("".join(page.text).split())
    assert told.recommendation.sentence in text
    assert len(page.all("circle")) == 3
    assert len(page.all("polyline")[0]["points"].split()) == 3
    rows = html.partition('id="pictures"')[2].partition("</section>")[0].count('class="row')
    assert rows == 3 * html.count('class="strip"')
    assert len(told.pairs) == 3 * 2
    assert f"over all {len(told.deciding)} pairs" in text


def test_the_same_folder_gives_the_same_bytes(compared: Path, tmp_path: Path) -> None:
    """Nothing of the page comes from when or where it was written."""
    copy = Path(shutil.copytree(compared, tmp_path / "copy"))
    assert write_compare_page(copy).read_bytes() == write_compare_page(compared).read_bytes()
