"""A study by an image model and a model of agreement, through the real command."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from unskew.evaluate import measuring
from unskew.evaluate.paired import main
from unskew.settings import run_program

tiny = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[1] / "oracles" / "tiny_readers.py"))
)
StudyOn = Callable[..., Path]
CONTROLS = {
    "suite": "control",
    "role": "control",
    "templates": ["{x}"],
    "subjects": {
        "apple": "a red apple",
        "dog": "a dog",
        "market": "a christmas market in the snow",
    },
}


@pytest.fixture
def study(study_on: StudyOn, tiny_base: Path) -> Path:
    """A study's YAML with controls: the tiny base against itself with an adapter."""
    file = study_on(tiny_base, "unet")
    settings = yaml.safe_load(file.read_text("utf-8"))
    prompts = Path(settings["prompts"])
    blocks = yaml.safe_load(prompts.read_text("utf-8"))
    prompts.write_text(yaml.safe_dump([*blocks, CONTROLS], sort_keys=False), "utf-8")
    settings["suites"]["control"] = {"seeds": 3}
    file.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return file


def run(study: Path, *words: str) -> int:
    return run_program(main, ["--config", str(study), *words])


def found(study: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((study.parent / "study" / "results.json").read_text())
    return loaded


def test_other_features_and_agreement_measure_what_is_there(
    study: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With --relabel only; rows name the model, and the way back opens no picture."""
    assert run(study) == 0
    first = found(study)
    [drift] = first["drift"]
    assert "the mean colours of an 8 x 8 grid" in drift["metric"] and drift["kernel"]
    assert [row["suite"] for row in first["quality"]] == ["trained", "explicit", "control"]
    assert all(row["agreement"] is None for row in first["quality"])
    asked = ("--features.model", str(tiny.save_dinov2(tmp_path / "eyes")))
    asked += ("--agreement.model", str(tiny.save_clip(tmp_path / "clip")))
    assert run(study, *asked) == 2
    assert "inputs.features" in capsys.readouterr().err
    assert run(study, "--relabel", *asked) == 0
    second = found(study)
    [drift] = second["drift"]
    assert "of features of the image model eyes, sha256 " in drift["metric"]
    for row in second["quality"]:
        assert row["agreement"]["model"].startswith("clip, sha256 ")
        assert row["agreement"]["verdict"] is None and row["agreement"]["change"] is not None
    assert second["representation"] == first["representation"]
    assert 'id="quality"' in (study.parent / "study" / "report.html").read_text("utf-8")
    monkeypatch.setattr(measuring, "opened", None)
    assert run(study, "--relabel") == 0
    assert found(study) == first


def test_a_model_that_cannot_be_had_ends_at_once(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named with the setting that asks for it, before anything is drawn."""
    for setting in ("features", "agreement"):
        assert run(study, f"--{setting}.model", str(tmp_path / "nowhere")) == 2
        said = capsys.readouterr().err
        assert f"error: {setting}: " in said and "revision must be a commit" in said
    assert not (study.parent / "study").exists()
