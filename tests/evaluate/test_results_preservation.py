"""Fidelity, drift and the gate, from readings and features."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from unskew.evaluate.preservation import drift_rows
from unskew.evaluate.results import Margins, summarise

ORACLES = Path(__file__).parents[1] / "oracles"
slow = SimpleNamespace(**runpy.run_path(str(ORACLES / "slow_statistics.py")))
made_up = SimpleNamespace(**runpy.run_path(str(ORACLES / "made_up_study.py")))
make_plan = made_up.make_plan
make_readings = made_up.make_readings
suite_prompts = made_up.suite_prompts
skewed = made_up.skewed
features_of = made_up.features_of
FULL = made_up.FULL


def test_an_unreadable_explicit_picture_has_not_obeyed():
    """Fidelity drops nothing: what cannot be read has not shown what was asked for."""
    plan = make_plan((suite_prompts("spelt", 20, asked={"colour": "blue"}), "explicit"))

    def answer(arm, prompt, seed, attribute):
        blind = arm == "lora" and attribute == "colour" and seed == 0
        return None if blind else skewed(arm, prompt, seed, attribute)

    rows = summarise(make_readings(plan, answer), plan).fidelity
    subject, colour = rows
    assert (subject.attribute, subject.change.value) == ("subject", 0)
    assert (colour.baseline_rate, colour.treated_rate) == (1, pytest.approx(0.9))
    assert colour.verdict == "lost"
    assert colour.by_value["blue"].treated_rate == pytest.approx(0.9)


def test_drift_is_in_units_of_the_distance_between_things():
    """The excess equals the oracle's, over the mean distance of the baseline's own prompts."""
    plan = make_plan((suite_prompts("things", 10, attributes=()), "control"), seeds=4)
    features = features_of(plan, step=3.0)
    base, lora = ([f.tolist() for f in features[arm].values()] for arm in ("base", "lora"))
    unit = np.mean([slow.energy(a, b) for a in base for b in base if a is not b])
    excess = np.mean([slow.drift(b, t) for b, t in zip(base, lora, strict=True)])
    (row,) = summarise(make_readings(plan, skewed), plan, features).drift
    assert row.excess == pytest.approx(excess / unit)


def test_each_suite_is_held_to_its_own_margin():
    """Control subjects to the control margin, everything else to fidelity's."""
    margins = Margins(fidelity=0.02, control=0.04, drift=0.5)
    plan = make_plan(
        (suite_prompts("trained", 10), "neutral"),
        (suite_prompts("things", 10, attributes=()), "control"),
        margins=margins,
    )
    results = summarise(make_readings(plan, skewed), plan, features_of(plan))
    assert {(row.suite, row.margin) for row in results.fidelity} == {
        ("trained", 0.02),
        ("things", 0.04),
    }
    assert results.drift[0].margin == 0.5


def test_drift_is_found_and_fails_the_gate():
    """Control pictures that moved by a fair part of the way to another thing are lost."""
    results = summarise(make_readings(FULL, skewed), FULL, features_of(FULL, step=12.0))
    (row,) = results.drift
    assert row.verdict == "lost"
    assert row.ci95[0] > row.margin
    assert results.gate.passed is False
    assert any("drift on things" in reason.said for reason in results.gate.reasons)


def test_gate_passes_only_with_all_improved_and_all_kept():
    """Its reasons name what failed; without demands it is neither passed nor failed."""
    plan = make_plan(
        (suite_prompts("trained", 30), "neutral"),
        (suite_prompts("spelt", 30, asked={"colour": "blue"}), "explicit"),
        gate=made_up.improved("colour@trained"),
    )
    passed = summarise(make_readings(plan, skewed), plan).gate
    assert passed.passed is True
    null = make_readings(plan, lambda _, p, s, x: skewed("base", p, s, x), same_pictures=True)
    failed = summarise(null, plan).gate
    assert failed.passed is False
    said = [reason.said for reason in failed.reasons if not reason.passed]
    assert said == ["colour on trained (lora) is no_change, must be improved"]


def test_gate_wants_preservation_shown_not_presumed():
    """Too few explicit pictures to exclude a loss fail the gate: inconclusive is not kept."""
    plan = make_plan(
        (suite_prompts("trained", 30), "neutral"),
        (suite_prompts("spelt", 2, asked={"colour": "blue"}), "explicit"),
        gate=made_up.improved("colour@trained"),
    )
    gate = summarise(make_readings(plan, skewed), plan).gate
    assert gate.passed is False
    said = [reason.said for reason in gate.reasons if not reason.passed]
    assert said[-1] == "colour on spelt (lora) is inconclusive, must be kept"


def test_drift_is_measured_on_the_prompts_that_are_whole() -> None:
    """Of a control prompt that lacks a picture in some arm there are no features."""
    plan = made_up.make_plan((made_up.suite_prompts("things", 12, attributes=()), "control"))
    features = made_up.features_of(plan)
    gone = plan.prompts[0].id
    less = {arm: {id: v for id, v in own.items() if id != gone} for arm, own in features.items()}
    [row] = drift_rows(plan, less)
    assert row.n_prompts == 11
    [whole] = drift_rows(plan, features)
    assert whole.n_prompts == 12
