"""The report: one page that says what results.json says, and what it cannot say."""

import hashlib
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from unskew.errors import UserError
from unskew.evaluate import report_pictures, report_words
from unskew.evaluate.gate_schema import GateReason
from unskew.evaluate.report import write_report
from unskew.evaluate.results import load_results, write_results

ORACLES = Path(__file__).parents[1] / "oracles"
reported = SimpleNamespace(**runpy.run_path(str(ORACLES / "reported_study.py")))
make_study, read = reported.make_study, reported.read
section, alternating = reported.section, reported.alternating
SECTIONS = "verdict pictures shares change prompts grid preserved method provenance".split()


def test_same_input_same_bytes(study):
    """Written twice the page is the same, byte for byte."""
    first = write_report(study).read_bytes()
    assert write_report(study).read_bytes() == first


def test_every_section_stands_in_order(study):
    """The verdict comes first, provenance last; the links of the page lead somewhere."""
    page = read(study)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert ids == SECTIONS
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    assert page.tags[[tag for tag, _ in page.tags].index("h1") - 2][0] in ("b", "p", "span")


def test_verdict_is_the_first_thing_said(study):
    """The page opens with the primary comparison in one sentence, with its numbers."""
    row = report_words.headline(load_results(study / "results.json"))
    html = write_report(study).read_text("utf-8")
    (said,) = re.findall(r"<h1>(.*?)</h1>", html)
    assert said == report_words.sentence(row, load_results(study / "results.json"))
    assert said.startswith("On 12 trained prompts the imbalance of perceived colour fell from 1.00")


def test_numbers_are_those_of_the_results(study):
    """Every number of a representation row stands in its line of the table, exactly."""
    results = load_results(study / "results.json")
    lines = section(study, "change").split("</table>")[0].split("<tr>")[2:]
    rows = [r for a in ("colour", "size") for r in results.representation if r.attribute == a]
    assert len(lines) == len(rows)
    for row, rest in zip(rows, lines, strict=True):
        line = rest.split("</tr>")[0]
        found = [float(value) for value in re.findall(r'<data value="([^"]+)"', line)]
        change = row.change
        expected = [row.baseline.imbalance, row.treated.imbalance, change.imbalance, *change.ci95]
        expected += [x for x in (change.p_adjusted, change.relative_reduction) if x is not None]
        expected += [row.baseline.gap, row.treated.gap]
        expected += [change.overshoot_rate, change.overshoot_by_chance]
        assert found == expected
        assert report_words.plain(row.verdict) in line


def test_shares_of_every_value_are_shown(study):
    """Both arms' shares, and an interval for each, stand for every attribute, suite and value."""
    results = load_results(study / "results.json")
    html = section(study, "shares")
    found = [float(value) for value in re.findall(r'<data value="([^"]+)"', html)]
    expected = [
        arm.shares[value]
        for attribute in ("colour", "size")
        for row in results.representation
        if row.attribute == attribute
        for value in row.target
        for arm in (row.baseline, row.treated)
    ]
    assert found == expected
    assert html.count('class="whisker"') == len(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.784, ".78"), (-0.021, "−.02"), (1.0, "1.00"), (-1.04, "−1.04"), (-0.004, ".00")],
)
def test_numbers_are_printed_as_read(value, text):
    """No leading zero, a true minus, and no sign on what rounds to nothing."""
    assert report_words.number(value) == text.replace("−", report_words.MINUS)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("improved", "fell from"),
        ("worsened", "rose from"),
        ("no_change", "did not move"),
        ("inconclusive", "cannot tell from no change"),
    ],
)
def test_the_sentence_says_the_verdict(study, verdict, words):
    """The opening sentence claims a change only where the verdict does."""
    results = load_results(study / "results.json")
    row = results.representation[0].model_copy(update={"verdict": verdict})
    assert words in report_words.sentence(row, results)


def test_changed_pairs_are_marked_with_what_changed(study):
    """Pairs that read differently are outlined and say the new value; equal ones are not."""
    readings = pd.read_parquet(study / "readings.parquet")
    wide = readings.pivot(index=["prompt_id", "seed", "attribute"], columns="arm", values="value")
    moved = wide[(wide["base"] != wide["lora"])].reset_index()
    html = section_with_pictures(study)
    assert html.count('class="pair changed"') == len(moved[["prompt_id", "seed"]].drop_duplicates())
    said = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert sum(part.count("<span>") for part in said) == len(moved)


def section_with_pictures(folder):
    """The HTML between the head of all pictures and the section after it."""
    html = write_report(folder).read_text("utf-8")
    return html[html.index('<section id="grid">') : html.index('<section id="preserved">')]


def test_the_opening_pictures_do_not_depend_on_the_outcome(study, tmp_path):
    """The same baseline with another treated arm opens with the same prompts."""

    def nothing_happened(arm, *cell):
        return alternating("base", *cell)

    other = make_study(tmp_path / "study", answer=nothing_happened)
    captions = [
        re.findall(r"<figcaption>.*?</bdi>", section(f, "pictures")) for f in (study, other)
    ]
    assert captions[0] == captions[1]
    assert len(captions[0]) == report_pictures.TOP_PROMPTS


def test_an_audit_has_a_page(tmp_path):
    """One arm alone: its imbalance is stated, no change is spoken of."""
    page = read(make_study(tmp_path / "study", arms=("base",)))
    assert "".join(page.text).count("is 1.00 (95")
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert "level" in ids
    assert "change" not in ids


def test_a_study_without_neutral_prompts_has_a_page(tmp_path):
    """With explicit and control prompts only, the page says that no imbalance was measured."""
    page = read(make_study(tmp_path / "study", neutral=False))
    assert "This study measured no representation." in page.text
    assert page.all("img")


def test_more_than_two_arms_have_a_page(tmp_path):
    """Every arm is named at its rows and has its picture in every column of seeds."""
    folder = make_study(tmp_path / "study", arms=("base", "lora", "words"))
    pairs = section_with_pictures(folder).split("<figure")[1:]
    assert all(pair.count("<img") == 3 for pair in pairs)
    assert section(folder, "change").count("<td>words</td>") == 3


def test_missing_and_broken_pictures_are_said_to_be_missing(tmp_path, bare_study):
    """A lost or broken file leaves a gap with a word in it, a lost folder a sentence."""
    folder = make_study(tmp_path / "study")
    (folder / "images/lora/held_out-0-0/0.png").unlink()
    (folder / "images/lora/held_out-0-0/1.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    html = section_with_pictures(folder)
    assert html.count("lora, seed 0: no picture") == html.count("lora, seed 1: no picture") == 1
    assert "No pictures lie in the study" in section_with_pictures(bare_study)


def test_a_large_study_shows_some_seeds_of_every_prompt_and_says_so(study, monkeypatch):
    """Past the limit every prompt keeps the same first seeds, and the page states how many."""
    prompts = pd.read_parquet(study / "readings.parquet")["prompt_id"].nunique()
    monkeypatch.setattr(report_pictures, "MOST_PICTURES", prompts * 2 * 2)
    html = section_with_pictures(study)
    assert html.count("<figure") == 2 * prompts
    assert f"it shows {2 * prompts} of the study's {6 * prompts} pairs" in html
    assert set(re.findall(r"seed (\d+)", html)) == {"0", "1"}


def test_more_prompts_than_fit_are_sampled_evenly(study, monkeypatch):
    """Where not even one seed of each prompt fits, evenly spaced prompts are shown."""
    prompts = pd.read_parquet(study / "readings.parquet")["prompt_id"].nunique()
    monkeypatch.setattr(report_pictures, "MOST_PICTURES", prompts // 2 * 2)
    html = section_with_pictures(study)
    assert 0 < html.count("<figure") <= prompts // 2
    assert "evenly spaced prompts" in html


def test_the_page_says_what_it_cannot_say(study):
    """Caveats, attribution, hashes, guidance and what would settle open rows are all there."""
    results = load_results(study / "results.json")
    text = "".join(read(study).text)
    for attribute in results.settings.attributes.values():
        assert attribute.caveat in text
    assert "Drawings by somebody, CC-BY 4.0" in text
    assert hashlib.sha256((study / "results.json").read_bytes()).hexdigest() in text
    assert "5" * 64 in text
    assert "guidance scale" in text
    for row in (*results.representation, *results.fidelity, *results.drift):
        if row.needed:
            assert f"about {row.needed.count:,} {row.needed.unit}" in text


def test_inconclusive_rows_are_named_at_the_top(study):
    """A row that worsened, was lost or is open is told in the second sentence, not hidden."""
    results = load_results(study / "results.json")
    row = results.fidelity[0].model_copy(update={"verdict": "lost"})
    told = report_words.tally(results.model_copy(update={"fidelity": (row,)}))
    assert f"{row.attribute} on {row.suite} (lost)" in told


@pytest.mark.parametrize("name", ["results.json", "manifest.json", "readings.parquet"])
def test_a_folder_that_is_no_study_is_the_users_error(study, tmp_path, name):
    """Without one of its three files there is no page, and the message names the file."""
    for file in ("results.json", "manifest.json", "readings.parquet"):
        if file != name:
            (tmp_path / file).write_bytes((study / file).read_bytes())
    with pytest.raises(UserError, match=re.escape(name)):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_failed_gate_is_said_at_the_top(study, tmp_path):
    """The gate's reasons stand before the first section."""
    for file in ("results.json", "manifest.json", "readings.parquet"):
        (tmp_path / file).write_bytes((study / file).read_bytes())
    results = load_results(study / "results.json")
    reason = GateReason(
        comparison="colour@trained",
        arm="lora",
        what="improved",
        limit="improved",
        found="no_change",
        ci95=None,
        passed=False,
        inconclusive=False,
        said="colour fell short",
    )
    gate = results.gate.model_copy(update={"passed": False, "reasons": (reason,)})
    write_results(results.model_copy(update={"gate": gate}), tmp_path / "results.json")
    top = write_report(tmp_path).read_text("utf-8").split('<section id="pictures">')[0]
    assert "Gate failed." in top
    assert "colour fell short" in top
