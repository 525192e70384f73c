"""Pictures of which nothing is read: they are there, and nothing is said of them."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from unskew.attributes import Attribute
from unskew.errors import UserError
from unskew.evaluate.classify import SCHEMA, ArmPictures, read_arm, write_readings
from unskew.evaluate.gate_schema import GateSettings, Limits
from unskew.evaluate.generate import Cell
from unskew.evaluate.results import StudyPlan, summarise
from unskew.evaluate.summary import summary
from unskew.prompts import Prompt
from unskew.scripts.public import public_results

ORACLES = Path(__file__).parents[1] / "oracles"
made_up = SimpleNamespace(**runpy.run_path(str(ORACLES / "made_up_study.py")))


def test_controls_without_a_reader_of_subjects_still_count(tmp_path: Path) -> None:
    """A picture that no classifier reads is generated and not unreadable, and drift is measured."""
    prompts = tuple(
        Prompt(f"thing-{n}", f"a thing {n}", "control", f"thing-{n}", (), {"subject": f"thing-{n}"})
        for n in range(3)
    )
    cells = [Cell(prompt, seed) for prompt in prompts for seed in range(4)]
    random = np.random.default_rng(0)
    tables = []
    for arm in ("base", "adapter"):
        for cell in cells:
            file = cell.file(tmp_path / arm)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
        files = {cell: cell.file(tmp_path / arm) for cell in cells}
        tables.append(read_arm(ArmPictures(arm, files, {}, {}), cells, [], tmp_path / "kept"))
    readings = write_readings(tables, tmp_path / "readings.parquet")
    assert list(pd.read_parquet(tmp_path / "readings.parquet").columns) == SCHEMA.names
    shares = np.array([0.5, 0.5])
    plan = StudyPlan(
        baseline="base",
        arms=("base", "adapter"),
        prompts=prompts,
        suite_roles={"control": "control"},
        attributes={"presentation": Attribute("presentation", "p", ("w", "m"), shares, "read")},
        seeds={"control": 4},
    )
    features = {
        arm: {prompt.id: random.normal(size=(4, 2)) for prompt in prompts} for arm in plan.arms
    }
    results = summarise(readings, plan, features)
    assert results.status == "complete"
    assert (results.counts.generated, results.counts.readable) == (24, 24)
    assert results.representation == results.fidelity == ()
    assert len(results.drift) == 1


def blind_to_size(broken: str) -> Callable[..., str | None]:
    """Answers as of `skewed`, but no picture of one arm shows a size."""

    def answer(arm: str, prompt: Prompt, seed: int, attribute: str) -> str | None:
        if arm == broken and attribute == "size":
            return None
        found: str = made_up.skewed(arm, prompt, seed, attribute)
        return found

    return answer


def two_attributes(**more: Any) -> StudyPlan:
    """Three arms, whose pictures show colour and size; colour is what matters."""
    prompts = made_up.suite_prompts("trained", 14, attributes=("colour", "size"))
    more = {"primaries": (("colour", "trained"),)} | more
    plan: StudyPlan = made_up.make_plan(
        (prompts, "neutral"), arms=("base", "lora", "other"), **more
    )
    return plan


def test_an_arm_that_cannot_be_read_on_one_attribute_keeps_its_other_rows() -> None:
    """What is not measured is told with its reason; every other row is as without that arm."""
    plan = two_attributes()
    found = summarise(made_up.make_readings(plan, blind_to_size("other")), plan)
    rows = {(row.arm, row.attribute): row for row in found.representation}
    assert set(rows) == {("lora", "colour"), ("other", "colour"), ("lora", "size")}
    [lost] = found.unmeasured
    assert (lost.arm, lost.attribute, lost.suite) == ("other", "size", "trained")
    assert "14 of 14 prompts have fewer than 2 readable images in arm 'other'" in lost.why
    whole = summarise(made_up.make_readings(plan, made_up.skewed), plan)
    assert not whole.unmeasured
    assert rows["lora", "size"] in whole.representation
    of_arm = {arm: public_results(found, arm).unmeasured for arm in ("lora", "other")}
    assert of_arm == {"lora": (), "other": (lost,)}
    assert "Not measured: size" in summary(found) and "Not measured" not in summary(whole)


@pytest.mark.parametrize(
    ("broken", "more"),
    [
        ("base", {}),
        ("other", {"primaries": (("size", "trained"),)}),
        ("other", {"primaries": ()}),
        ("other", {"gate": made_up.improved("size@trained")}),
    ],
)
def test_what_matters_must_be_readable(broken: str, more: dict[str, Any]) -> None:
    """The baseline, a primary row, and one that the gate names; the error says what to do."""
    plan = two_attributes(**more)
    with pytest.raises(UserError, match="draw more seeds, or leave the arm out"):
        summarise(made_up.make_readings(plan, blind_to_size(broken)), plan)


def test_a_limit_that_no_arm_could_be_measured_by_fails_for_each() -> None:
    """What is published of one arm keeps it: its gate has not passed."""
    gate = GateSettings(comparisons={"subject@trained": Limits(fidelity_loss_at_most=0.03)})
    plan = two_attributes(gate=gate)
    readings = made_up.make_readings(plan, made_up.skewed)
    found = summarise(readings[readings["attribute"] != "subject"], plan)
    assert found.gate.passed is False
    for arm in ("lora", "other"):
        public = public_results(found, arm).gate
        assert public.passed is False
        assert "was not measured" in public.reasons[0].said
