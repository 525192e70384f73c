"""Pictures of which nothing is read: they are there, and nothing is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from unskew.attributes import Attribute
from unskew.evaluate.classify import SCHEMA, ArmPictures, read_arm, write_readings
from unskew.evaluate.generate import Cell
from unskew.evaluate.results import StudyPlan, summarise
from unskew.prompts import Prompt


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
