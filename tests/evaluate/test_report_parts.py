"""What the report shows of large studies, transitions and gates."""

import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from unskew.evaluate import report, report_pictures, thumbnails
from unskew.evaluate.gate_schema import GateSettings, Limits
from unskew.evaluate.report import write_report
from unskew.evaluate.results import load_results, summarise, write_results

ORACLES = Path(__file__).parents[1] / "oracles"
pages = SimpleNamespace(**runpy.run_path(str(ORACLES / "reported_study.py")))
made_up = SimpleNamespace(**runpy.run_path(str(ORACLES / "made_up_study.py")))
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def study(tmp_path):
    """A paired study with pictures of 8 px."""
    return pages.make_study(tmp_path / "study")


def sources(folder):
    """The src of every picture of a study's page, and its policy for pictures."""
    page = pages.read(folder)
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(rule.split(maxsplit=1) for rule in policy["content"].split("; "))
    return [img["src"] for img in page.all("img")], rules["img-src"], page


def beside(found):
    return [src for src in found if not src.startswith("data:")]


def grow(folder, size):
    """Every picture of the study, larger."""
    for file in (folder / "images").rglob("*.png"):
        with Image.open(file) as image:
            large = image.resize((size, size))
        large.save(file)


def test_small_pictures_that_do_not_fit_are_pointed_to(study, monkeypatch):
    """The page says which folder it needs, opens with pictures inside, and allows itself files."""
    monkeypatch.setattr(report_pictures, "PIXELS", 8 * 8)
    found, policy, page = sources(study)
    assert policy == "data: 'self' file:"
    assert len(beside(found)) == 2 * 6 * 23
    assert all((study / unquote(src)).is_file() for src in beside(found))
    assert {src.split("/")[0] for src in beside(found)} == {"images"}
    assert len(found) > len(beside(found))
    assert "images" in page.text
    assert "take that folder along" in "".join(page.text)
    assert not (study / "thumbnails").exists()


def test_large_pictures_that_do_not_fit_get_thumbnails_once(study, monkeypatch):
    """Small files beside the page, each as large as a thumbnail; written again only if needed."""
    grow(study, 200)
    monkeypatch.setattr(report_pictures, "PIXELS", 8 * 8)
    found, _, _ = sources(study)
    assert {src.split("/")[0] for src in beside(found)} == {"thumbnails"}
    files = [study / unquote(src) for src in beside(found)]
    assert len(files) == 2 * 6 * 23
    with Image.open(files[0]) as small:
        assert max(small.size) == thumbnails.THUMBNAIL_PX
    before = {file: file.stat().st_mtime_ns for file in files}
    files[3].write_bytes(b"")
    page = write_report(study).read_bytes()
    assert files[3].stat().st_size > 0
    assert {f: f.stat().st_mtime_ns for f in files[4:]} == {f: before[f] for f in files[4:]}
    assert write_report(study).read_bytes() == page


def test_what_fits_stays_inside(study):
    """A study of the usual size is one file, and its page may load nothing."""
    found, policy, _ = sources(study)
    assert beside(found) == []
    assert policy == "data:"


def test_names_of_arms_are_safe_in_paths(tmp_path, monkeypatch):
    """An arm called like a fragment, a query or markup still has its pictures."""
    arm = 'l#?%"<b>'
    folder = pages.make_study(tmp_path / "study", arms=("base", arm))
    monkeypatch.setattr(report_pictures, "PIXELS", 8 * 8)
    found, _, _ = sources(folder)
    of_arm = [src for src in beside(found) if "/base/" not in src]
    assert len(of_arm) == 6 * 23
    assert all((folder / unquote(src)).is_file() for src in of_arm)
    assert not any(char in src for src in of_arm for char in '#?"<')


@pytest.mark.parametrize("inline", [True, False])
def test_nothing_outside_of_the_study_is_shown(study, tmp_path, inline):
    """Neither by a prompt id that climbs out, nor by a link in the study's folder."""
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    Image.new("RGB", (8, 8)).save(study / "0.png")
    link = study / "images" / "base" / "trained-0-0" / "7.png"
    link.symlink_to(tmp_path / "0.png")
    (study / "images" / "base" / "linked").symlink_to(tmp_path)
    shown = thumbnails.Thumbnails(study, inline)
    assert shown.uri(("base", "trained-0-0", 0))
    for key in (("base", "../..", 0), ("base", "trained-0-0", 7), ("base", "linked", 0)):
        assert shown.uri(key) == ""


FOUND = SimpleNamespace(
    counts={"red": {"red": 30, "blue": 10}, "blue": {"red": 0, "blue": 55}},
    became_unreadable={"red": 10, "blue": 0},
    became_readable={"red": 1, "blue": 2},
    unread=3,
    stuart_maxwell_p=0.0004,
)


def part(name, *arguments):
    """A macro of the report's parts, rendered."""
    module = report.page_environment().get_template("report_parts.html.j2").module
    return str(getattr(module, name)(*arguments))


def test_transitions_are_a_table_of_counts():
    """From each of the baseline's values to each value, with its share of the line."""
    html = part("transitions", FOUND, ["red", "blue"], "base", "lora")
    lines = re.findall(r'<tr><th scope="row">(.*?)</tr>', html, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in lines]
    plain = [[re.sub(r"<[^>]+>", "", cell) for cell in line] for line in cells]
    assert plain == [
        ["30 60 %", "10 20 %", "10"],
        ["0 0 %", "55 100 %", "0"],
        ["1", "2", "3"],
    ]
    assert "&lt;.001" in html


def test_transitions_of_a_value_that_was_never_shown_have_no_shares():
    """A line of zeros divides by nothing, and no p-value is made up."""
    empty = SimpleNamespace(
        counts={"red": {"red": 0}},
        became_unreadable={"red": 0},
        became_readable={"red": 0},
        unread=0,
        stuart_maxwell_p=None,
    )
    html = part("transitions", empty, ["red"], "base", "lora")
    assert " %" not in html.split("<tbody>")[1]
    assert "Stuart" not in html


def test_transitions_trust_no_text():
    """Values and arms are escaped in there too."""
    found = SimpleNamespace(
        counts={HOSTILE: {HOSTILE: 1}},
        became_unreadable={HOSTILE: 0},
        became_readable={HOSTILE: 0},
        unread=0,
        stuart_maxwell_p=None,
    )
    html = part("transitions", found, [HOSTILE], HOSTILE, HOSTILE)
    assert "<script" not in html
    assert "<img" not in html


def test_the_gate_shows_what_failed_and_keeps_what_held_behind_a_click(tmp_path):
    """Every reason is on the page; a reader meets the broken ones first."""
    folder = pages.make_study(tmp_path / "study", pictures=False)
    results = load_results(folder / "results.json")
    plan = made_up.make_plan(
        (made_up.suite_prompts("trained", 12), "neutral"),
        gate=GateSettings(
            comparisons={"colour@trained": Limits(improved=True, imbalance_at_most=-0.9)}
        ),
    )
    gate = summarise(made_up.make_readings(plan, made_up.skewed), plan).gate
    write_results(results.model_copy(update={"gate": gate}), folder / "results.json")
    top = write_report(folder).read_text("utf-8").split('<section id="pictures">')[0]
    broken, held = top.split("<details>")[0], top.split("<details>")[1]
    for reason in gate.reasons:
        assert reason.said in (held if reason.passed else broken)
    assert f"of {len(gate.reasons)} conditions hold" in held


def test_the_prompt_table_is_whole_without_a_script_and_filters_with_one(study):
    """Every prompt has its row; the form that filters is hidden until the script shows it."""
    html = pages.section(study, "prompts")
    results = load_results(study / "results.json")
    rows = [prompt for row in results.representation for prompt in row.per_prompt]
    assert html.count('<th scope="row">') == len(rows)
    assert html.count('<form class="find" hidden>') == len(results.representation)
    moved = [p for p in rows if p.p_adjusted is not None and p.p_adjusted <= 0.05]
    assert html.count(" data-moved") == len(moved)
    assert html.count(" data-over") == sum(bool(p.overshoot) for p in rows)


def test_what_a_page_needs_of_the_readings_is_all_it_reads(study):
    """A million lists of probabilities stay on the disk."""
    table = pd.read_parquet(study / "readings.parquet")
    table["probabilities"] = [np.full(3, 1 / 3)] * len(table)
    table.to_parquet(study / "readings.parquet")
    assert "probabilities" not in report_pictures.COLUMNS
    page = write_report(study).read_text("utf-8")
    assert page.count("<figure") > 0


def test_a_picture_of_which_nothing_was_read_says_so(study):
    """A row of the readings without an attribute says that the picture is there, no more."""
    table = pd.read_parquet(study / "readings.parquet")
    first = (table["prompt_id"] == "things-0-0") & (table["seed"] == 0)
    table.loc[first, ["attribute", "value"]] = None
    table.loc[first, "readable"] = False
    table.to_parquet(study / "readings.parquet")
    html = write_report(study).read_text("utf-8")
    assert 'alt="base, seed 0: not read"' in html
    assert "None" not in html.split("<main>")[1]


def test_folds_are_said_to_be_folds(study):
    """A reader learns which finer attribute was read."""
    file = study / "results.json"
    found = json.loads(file.read_text("utf-8"))
    found["settings"]["attributes"]["colour"]["folded_from"] = "shade_of_colour"
    file.write_text(json.dumps(found), "utf-8")
    assert "groups of those of shade of colour, which was read" in pages.section(study, "method")
