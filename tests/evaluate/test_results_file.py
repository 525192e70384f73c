"""The file that a study leaves, and what no study can be made of."""

import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from unskew.errors import UserError
from unskew.evaluate.gate_schema import GateSettings, Limits
from unskew.evaluate.results import load_results, summarise, write_results

ORACLES = Path(__file__).parents[1] / "oracles"
made_up = SimpleNamespace(**runpy.run_path(str(ORACLES / "made_up_study.py")))
make_plan = made_up.make_plan
make_readings = made_up.make_readings
suite_prompts = made_up.suite_prompts
skewed = made_up.skewed
features_of = made_up.features_of
FULL = made_up.FULL


def gate_of(comparison, **limits):
    """A gate of one comparison."""
    return GateSettings(comparisons={comparison: Limits(**limits)})


def test_results_survive_the_file(tmp_path):
    """Written and read back they are equal, and the file keeps the documented keys."""
    results = summarise(make_readings(FULL, skewed), FULL, features_of(FULL))
    file = tmp_path / "results.json"
    write_results(results, file)
    assert load_results(file) == results
    written = json.loads(file.read_text("utf-8"))
    assert set(written) == {
        "schema_version", "status", "baseline", "arms", "settings", "counts",
        "representation", "unmeasured", "fidelity", "drift", "quality", "gate",
    }  # fmt: skip
    row = written["representation"][0]
    for key in ("attribute", "suite", "arm", "against", "inference", "n_prompts", "n_seeds"):
        assert key in row
    assert set(row["change"]) >= {
        "imbalance", "ci95", "p_value", "p_adjusted", "relative_reduction", "overshoot_rate",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{}", "not json", '{"schema_version": 99}'])
def test_a_foreign_results_file_is_refused(tmp_path, text):
    """A file that is not ours, or of a later schema, ends in one sentence with its name."""
    file = tmp_path / "results.json"
    file.write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"results\.json"):
        load_results(file)
    with pytest.raises(UserError, match="does not exist"):
        load_results(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": {"trained": 1}}, r"seeds must be >= 2, got 1"),
        ({"fixed_suites": frozenset({"trained"}), "seeds": {"trained": 2}}, r"seeds must be >= 3"),
        (
            {"primaries": (("colour", "elsewhere"),)},
            r"colour@elsewhere \(allowed: colour@trained\)",
        ),
        ({"gate": made_up.improved("weight@trained")}, r"weight@trained.improved is not measured"),
        ({"gate": made_up.improved("colour@trained", "drift@trained")}, r"drift@trained"),
        ({"gate": gate_of("colour@trained")}, r"colour@trained sets no limit \(allowed: improved"),
        ({"gate": gate_of("colour@trained", drift_at_most=0.1)}, r"allowed: none"),
        (
            {"gate": gate_of("colour@trained", fidelity_loss_at_most=0.1)},
            r"\(allowed: subject@trained\)",
        ),
        ({"arms": ("lora", "base")}, r"baseline 'base' first"),
        ({"arms": ("base", "base")}, r"different names"),
    ],
)
def test_plans_without_an_answer_are_refused(change, message):
    """One seed, a primary that is not measured, arms in disorder: each ends at once."""
    prompts = suite_prompts("trained", 12)
    good = make_plan((prompts, "neutral"))
    plan = replace(good, **change)
    with pytest.raises(UserError, match=message):
        summarise(make_readings(good, skewed), plan)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("arm", "third", "unknown arm 'third'"),
        ("prompt_id", "stranger", "unknown prompt of suite 'trained' 'stranger'"),
        ("suite", "other", "unknown suite 'other'"),
        ("attribute", "weight", "unknown attribute 'weight'"),
        ("value", "green", "unknown colour value 'green'"),
        ("seed", 99, "have 11 seeds, planned were 10"),
    ],
)
def test_readings_of_another_study_are_refused(column, value, message):
    """What the plan does not know is named, with what it does know."""
    plan = make_plan((suite_prompts("trained", 12), "neutral"))
    readings = make_readings(plan, skewed)
    readings.loc[readings.index[readings["attribute"] == "colour"][0], column] = value
    with pytest.raises(UserError, match=message):
        summarise(readings, plan)


def test_what_is_marked_unreadable_is_not_read():
    """A value left in a row that is not readable does not count."""
    plan = make_plan((suite_prompts("trained", 12), "neutral"))
    readings = make_readings(plan, skewed)
    first = readings["attribute"].eq("colour") & readings["seed"].eq(0)
    row = summarise(readings.assign(readable=~first), plan).representation[0]
    assert row.per_prompt[0].baseline.n_readable == 9
    assert row.baseline.unreadable_rate == pytest.approx(0.1)


def test_the_same_picture_read_twice_is_refused():
    """Two answers for one picture would count it twice."""
    plan = make_plan((suite_prompts("trained", 12), "neutral"))
    readings = make_readings(plan, skewed)
    with pytest.raises(UserError, match="twice"):
        summarise(pd.concat([readings, readings.iloc[:1]]), plan)


def test_drift_needs_two_things_to_measure_in():
    """One control prompt gives no distance between prompts, and says what to do."""
    plan = make_plan((suite_prompts("things", 1, attributes=()), "control"))
    with pytest.raises(UserError, match="two or more prompts"):
        summarise(make_readings(plan, skewed), plan, features_of(plan))
