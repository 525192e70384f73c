"""The study engine through its program: null arms, resume, and what ends at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from unskew.evaluate import inputs
from unskew.evaluate.paired import main
from unskew.settings import run_program

StudyOn = Callable[..., Path]
SD_PARTS = ("unet", "text_encoder")


@pytest.fixture
def study(study_on: StudyOn, tiny_base: Path) -> Path:
    """A study's YAML: the tiny base against itself with an adapter that does something."""
    return study_on(tiny_base, "unet")


def run(study: Path, *words: str) -> int:
    """The program's exit code."""
    return run_program(main, ["--config", str(study), *words])


def results(study: Path) -> dict[str, Any]:
    """What the study found."""
    loaded: dict[str, Any] = json.loads((study.parent / "study" / "results.json").read_text())
    return loaded


def pictures(study: Path) -> dict[str, bytes]:
    """Relative name -> bytes of every picture."""
    folder = study.parent / "study" / "images"
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.png")}


def test_an_adapter_at_weight_0_changes_nothing(study: Path) -> None:
    """The null study: every picture is the baseline's, every row no_change or kept."""
    assert run(study, "--arms.adapter.weight", "0") == 0
    found = results(study)
    assert {row["verdict"] for row in found["representation"]} == {"no_change"}
    assert {row["verdict"] for row in found["fidelity"]} == {"kept"}
    drawn = pictures(study)
    names = {name.removeprefix("base/") for name in drawn if name.startswith("base/")}
    assert len(names) == 15
    assert all(drawn[f"base/{name}"] == drawn[f"adapter/{name}"] for name in names)


def test_an_adapter_at_weight_1_changes_pictures(study: Path) -> None:
    """So that the null study could fail."""
    assert run(study) == 0
    drawn = pictures(study)
    pairs = [(drawn[f"base/{n}"], drawn[f"adapter/{n}"]) for n in _names(drawn)]
    assert all(before != after for before, after in pairs)
    assert (study.parent / "study" / "report.html").stat().st_size > 10_000
    with Image.open(study.parent / "study" / "pairs.png") as grid:
        assert grid.size == (3 * 16, 4 * (2 * 16 + 20))


def _names(drawn: dict[str, bytes]) -> list[str]:
    return [name.removeprefix("base/") for name in drawn if name.startswith("base/")]


PARTS = [
    *((name, part) for name in ("tiny_base", "tiny_sd15_like_base") for part in SD_PARTS),
    *(("tiny_sdxl_base", part) for part in (*SD_PARTS, "text_encoder_2")),
]


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_every_part_of_every_family_can_have_the_adapter(
    study_on: StudyOn, name: str, part: str, request: pytest.FixtureRequest
) -> None:
    """Text encoders' LoRAs change the arm's pictures too, and at weight 0 no picture at all."""
    study = study_on(request.getfixturevalue(name), part)
    assert run(study) == 0
    drawn = pictures(study)
    assert all(drawn[f"base/{n}"] != drawn[f"adapter/{n}"] for n in _names(drawn))
    null = study.parent / "null"
    assert run(study, "--arms.adapter.weight", "0", "--out", str(null)) == 0
    for file in (null / "images" / "base").rglob("*.png"):
        other = null / "images" / "adapter" / file.relative_to(null / "images" / "base")
        assert file.read_bytes() == other.read_bytes()


def test_a_study_that_lost_pictures_draws_only_those_and_ends_the_same(study: Path) -> None:
    """Pictures, readings and results are bitwise those of the undisturbed study."""
    assert run(study) == 0
    drawn, found = pictures(study), results(study)
    folder = study.parent / "study"
    shutil.rmtree(folder / "images" / "adapter" / sorted(_folders(folder / "images"))[0])
    (folder / "results.json").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"status": "interrupted"}))
    assert run(study) == 0
    assert pictures(study) == drawn
    assert results(study) == found


def test_without_a_reader_of_subjects_nothing_is_said_of_them(study: Path) -> None:
    """The other rows are those of a study that has one."""
    assert run(study) == 0
    with_subjects = results(study)
    shutil.rmtree(study.parent / "study")
    assert run(study, "--classifiers.exemplars.attributes", "presentation") == 0
    without = results(study)
    assert without["representation"] == with_subjects["representation"]
    kept = [row for row in with_subjects["fidelity"] if row["attribute"] != "subject"]
    assert without["fidelity"] == kept != with_subjects["fidelity"]
    assert without["status"] == "complete"


GATE = "{presentation@trained: {imbalance_change_at_most: -0.9}}"


def test_a_gate_that_fails_is_exit_code_1_with_its_reasons(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json puts the results alone on stdout; summary.md says the same to people."""
    assert run(study, "--gate.comparisons", GATE, "--json") == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found == results(study)
    assert found["gate"]["passed"] is False
    reason = found["gate"]["reasons"][0]
    assert (reason["comparison"], reason["limit"]) == ("presentation@trained", -0.9)
    assert reason["what"] == "imbalance_change_at_most"
    assert "gate: FAILS: imbalance change of presentation on trained (adapter)" in err
    assert "Gate failed" in (study.parent / "study" / "summary.md").read_text("utf-8")


def test_a_list_of_comparisons_is_a_gate_of_improvements(study: Path) -> None:
    """What a gate was before limits had names still means the same."""
    settings = yaml.safe_load(study.read_text("utf-8")) | {"gate": ["presentation@trained"]}
    study.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    run(study)
    reasons = results(study)["gate"]["reasons"]
    assert ("presentation@trained", "improved") in {(r["comparison"], r["what"]) for r in reasons}


def test_a_studys_targets_are_what_it_is_judged_by(study: Path) -> None:
    """A target for a suite reaches its rows."""
    wanted = "{presentation@trained: {woman: 0.25, man: 0.25, person: 0.5}}"
    assert run(study, "--targets", wanted) == 0
    row = results(study)["representation"][0]
    assert row["target"] == {"woman": 0.25, "man": 0.25, "person": 0.5}


def _folders(images: Path) -> list[str]:
    return [folder.name for folder in (images / "adapter").iterdir()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suites.trained.seeds", "1"], "suites.trained.seeds"),
        (["--suites.traind.seeds", "3"], "traind"),
        (["--stepps", "3"], "steps"),
        (["--arms.adapter.adapter", "nowhere"], "arms.adapter.adapter"),
        (["--base", "nowhere"], "nowhere is no diffusers folder"),
        (
            ["--classifiers.exemplars.folder", "nowhere"],
            "classifiers.exemplars: exemplar folder nowhere has no metadata.jsonl",
        ),
        (["--classifiers.exemplars.attributes", "subject"], "presentation is measured, but none"),
        (
            ["--classifiers.exemplars.kind", "oracle"],
            "exemplars.kind must be exemplars",
        ),
        (["--prompts", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["--prompts", "nowhere.yaml", "prompts/article.yaml"], "nowhere.yaml does not exist"),
        (["--targets", "{season: {winter: 1, summer: 0}}"], "targets.season"),
        (["--targets", "{presentation: {woman: 1}}"], "targets.presentation must name exactly"),
        (["--gate.comparisons", "{presentation@trained: {}}"], "presentation@trained sets no"),
        (["--gate.comparisons", "{season@trained: {improved: true}}"], "season@trained.improved"),
        (["--gate.inconclusive", "perhaps"], "gate.inconclusive must be fail or pass"),
        (["--gate.comparisons", "{x: {fidelity_loss: 1}}"], "fidelity_loss is no setting"),
        (["--primaries", "presentation@held_out"], "presentation@held_out"),
        (["--guidance", "0.5"], "guidance"),
    ],
)
def test_what_cannot_be_meant_ends_at_once(
    study: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """Exit code 2, a message that names it, and no folder that looks like a study."""
    assert run(study, *words) == 2
    assert message in capsys.readouterr().err
    assert not (study.parent / "study").exists()


def test_a_folder_of_another_study_is_left_alone(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other settings in the same folder are refused with the difference, and nothing is lost."""
    assert run(study) == 0
    before = pictures(study)
    assert run(study, "--guidance", "3.0") == 2
    assert "guidance" in capsys.readouterr().err
    assert pictures(study) == before


def test_an_adapter_of_another_architecture_is_refused(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says for which architecture the adapter is; nothing looks complete."""
    assert run(study, "--base", "emoji-world", "--resolution_px", "64") == 2
    assert "does not fit this base" in capsys.readouterr().err
    assert not (study.parent / "study" / "results.json").exists()


def test_a_dry_run_writes_nothing(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It draws one batch of every arm in memory and says what the study would take."""
    assert run(study, "--dry_run") == 0
    assert "minutes" in capsys.readouterr().out
    assert not (study.parent / "study").exists()


def test_a_study_is_not_drawn_on_in_another_precision(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it is whole it may be read anywhere, and its manifest says how it was drawn."""
    assert run(study, "--dtype", "auto") == 0
    folder = study.parent / "study"
    file = folder / "manifest.json"
    drawn = json.loads(file.read_text())
    monkeypatch.setattr(inputs, "choose_dtype", lambda device: (torch.float64, "a test's"))

    def again() -> int:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "interrupted"}))
        return run(study, "--dtype", "auto")

    assert again() == 0
    kept = json.loads(file.read_text())["facts"]
    assert "a test's" not in kept["dtype"]
    for fact in ("device", "dtype", "drawings"):
        assert kept[fact] == drawn["facts"][fact]
    next((folder / "images" / "adapter").rglob("*.png")).unlink()
    assert again() == 2
    said = capsys.readouterr().err
    assert "one study does not mix the two" in said and "a test's" in said
    shutil.rmtree(folder / "images")
    shutil.rmtree(folder / "readings")
    again()  # nothing is there that it would be mixed with
    assert "one study does not mix the two" not in capsys.readouterr().err
