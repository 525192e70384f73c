"""summary.md: what a reviewer of a pull request needs, with nothing in it that acts."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unskew.evaluate.gate_schema import GateSettings, Limits
from unskew.evaluate.paired import verdicts_of
from unskew.evaluate.results import summarise
from unskew.evaluate.summary import escape, summary, write_summary

ORACLES = Path(__file__).parents[1] / "oracles"
made_up = SimpleNamespace(**runpy.run_path(str(ORACLES / "made_up_study.py")))
PLAN = made_up.make_plan(
    (made_up.suite_prompts("trained", 30), "neutral"),
    (made_up.suite_prompts("spelt", 4, asked={"colour": "blue"}), "explicit"),
    (made_up.suite_prompts("things", 12, attributes=()), "control"),
    primaries=(("colour", "trained"),),
    gate=made_up.improved("colour@trained"),
)
READINGS = made_up.make_readings(PLAN, made_up.skewed)
RESULTS = summarise(READINGS, PLAN, made_up.features_of(PLAN))


def lines(results):
    return summary(results).splitlines()


def test_every_row_has_a_line_with_its_interval_and_verdict():
    """Representation, fidelity and drift: one table, a verdict each."""
    table = [line for line in lines(RESULTS) if line.startswith("| ")][2:]
    rows = (*RESULTS.representation, *RESULTS.fidelity, *RESULTS.drift)
    assert len(table) == len(rows)
    for line, row in zip(table, rows, strict=True):
        assert line.count(" | ") == 6
        assert row.verdict.replace("_", " ") in line
        assert " to " in line
    assert "(primary)" in table[0]


def test_a_terminal_gets_the_same_rows():
    """First the headline, then a line each with its verdict and interval."""
    said = list(verdicts_of(RESULTS))
    assert said[0].startswith("On 30 trained prompts the imbalance of perceived colour")
    rows = (*RESULTS.representation, *RESULTS.fidelity, *RESULTS.drift)
    assert len(said) == 1 + len(rows) + 1
    for line, row in zip(said[1:-1], rows, strict=True):
        assert row.verdict.replace("_", " ") in line and " to " in line
    assert said[1].endswith(", primary")


def test_a_terminal_gets_no_commands_from_names():
    """What would move the cursor or turn text round is left out."""
    colour = RESULTS.settings.attributes["colour"]
    bad = colour.model_copy(update={"title": "a\x1b[2J\u202eb\nc"})
    settings = RESULTS.settings.model_copy(update={"attributes": {"colour": bad}})
    said = list(verdicts_of(RESULTS.model_copy(update={"settings": settings})))
    assert "a [2J b c" in said[0] and "a [2J b c" in said[1]
    assert not any(char in line for line in said for char in "\x1b\u202e\n")


def test_a_failed_gate_says_why_and_how_much_held():
    """Every broken condition is a line; the rest is counted."""
    text = summary(RESULTS)
    failed = [reason for reason in RESULTS.gate.reasons if not reason.passed]
    assert failed
    n = len(RESULTS.gate.reasons)
    assert f"**Gate failed**: {n - len(failed)} of {n} conditions hold." in text
    assert text.count("- ✕ ") == len(failed)
    assert "colour on spelt (lora) is inconclusive, must be kept" in text


def test_what_a_lenient_gate_let_pass_is_said():
    """An inconclusive condition that passes by the user's word is named as one."""
    gate = GateSettings(comparisons={"colour@trained": Limits(improved=True)}, inconclusive="pass")
    plan = made_up.make_plan(
        (made_up.suite_prompts("trained", 30), "neutral"),
        (made_up.suite_prompts("spelt", 4, asked={"colour": "blue"}), "explicit"),
        gate=gate,
    )
    text = summary(summarise(made_up.make_readings(plan, made_up.skewed), plan))
    assert "**Gate passed**" in text
    assert "Inconclusive, which this gate lets pass:" in text
    assert "- ? " in text


def test_caveats_are_carried():
    """Each attribute's caveat and reader, and that nothing was corrected."""
    text = summary(RESULTS)
    assert "- perceived colour: A caveat. Read by: a classifier." in text
    assert "not corrected" in text


def test_corrected_figures_stand_beside_those_that_were_read():
    """Where labels corrected a row, both changes are told, and nothing says that none was."""
    found = SimpleNamespace(change=-0.5, change_ci95=(-0.75, -0.25))
    rows = tuple(
        row.model_copy(update={"corrected": SimpleNamespace(imbalance=found)})
        for row in RESULTS.representation
    )
    text = summary(RESULTS.model_copy(update={"representation": rows}))
    minus = "\N{MINUS SIGN}"
    assert f"{minus}.50 ({minus}.75 to {minus}.25) corrected, {minus}1." in text
    assert "not corrected" not in text


def test_an_audit_has_no_change_and_no_gate():
    """One arm alone: level with interval, no verdicts."""
    plan = made_up.make_plan((made_up.suite_prompts("trained", 12), "neutral"), arms=("base",))
    text = summary(summarise(made_up.make_readings(plan, made_up.skewed), plan))
    assert "Gate" not in text
    assert re.search(r"\| imbalance of perceived colour \| trained \| base \| 1\.00 \(", text)


def test_it_is_short(tmp_path):
    """A pull request's reader scrolls no page of it."""
    file = write_summary(RESULTS, tmp_path / "summary.md")
    assert file.read_text("utf-8") == summary(RESULTS)
    assert len(file.read_text("utf-8")) < 4_000


@example("@team #12 https://evil.example www.evil.example a@b.example mailto:a@b")
@example("</td><img src=x onerror=alert(1)> [a](javascript:b) `c` **d** | e")
@example("1. a\n2) b\n\n# c\n---\n===\n> d\n- e\n    f")
@example("&lt;script&gt; &#60; \u202e\x1b[2J" + "x" * 10_000)
@given(st.text(max_size=300))
def test_no_text_becomes_markup(text):
    """One line; nothing that Markdown or HTML would act on, no link, no mention."""
    shown = escape(text)
    assert "\n" not in shown
    assert not re.search(r"[<>|*_`\[\]{}\\~$^]", shown)
    assert not re.search(r"&(?!amp;|lt;|gt;|#\d+;)", shown)
    assert not re.match(r"[-+=#>!]|\d+[.)]|\s", shown)
    assert not re.search(r"@\w|#\d+;\w*//|://|(?i:www\.)|(?i:mailto:)", shown)
    assert not re.search(r"&#35;\w", shown)
    assert len(text) < 400 or len(shown) < 20 * 500


def test_names_of_every_kind_are_escaped():
    """An arm, a suite or a caveat that is markup stays text in the whole of the file."""
    hostile = "<b>|[x](y)"
    results = RESULTS.model_copy(
        update={
            "drift": tuple(row.model_copy(update={"arm": hostile}) for row in RESULTS.drift),
            "settings": RESULTS.settings.model_copy(
                update={
                    "attributes": {
                        id: about.model_copy(update={"title": hostile, "caveat": hostile})
                        for id, about in RESULTS.settings.attributes.items()
                    }
                }
            ),
        }
    )
    text = summary(results)
    assert "<b>" not in text
    assert "[x]" not in text
    assert text.count("\n| ") == summary(RESULTS).count("\n| ")


@pytest.mark.parametrize("word", ["@team", "#12", "www.x.example"])
def test_the_escape_keeps_what_it_disarms_readable(word):
    """A reader sees the same letters."""
    assert escape(word).replace("\u2060", "").replace("&#35;", "#") == word
