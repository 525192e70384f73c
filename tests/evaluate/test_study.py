"""The study engine through its program: null arms, resume, and what ends at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from unskew.adapters import attach, save_adapter
from unskew.evaluate.paired import main
from unskew.pipelines import load_base
from unskew.settings import run_program

PROMPTS = [
    {
        "suite": "trained",
        "role": "neutral",
        "attributes": ["presentation"],
        "templates": ["{x}", "a picture of {x}"],
        "subjects": {"mechanic": "a mechanic", "health-worker": "a health worker"},
    },
    {
        "suite": "explicit",
        "role": "explicit",
        "attributes": ["presentation"],
        "prompts": [
            {"subject": "mechanic", "text": "a woman mechanic", "asked": {"presentation": "woman"}}
        ],
    },
]


@pytest.fixture
def study(tiny_base: Path, tiny_dataset: Path, tmp_path: Path) -> Path:
    """A study's YAML: the tiny base against itself with an adapter that does something."""
    pipe = load_base(tiny_base, torch.device("cpu"), torch.float32)
    torch.manual_seed(0)
    models = {"unet": pipe.unet}
    for parameter in attach(models, rank=2, alpha=4, target_modules="attention").values():
        torch.nn.init.normal_(parameter, std=0.5)
    (tmp_path / "adapter").mkdir()
    save_adapter(tmp_path / "adapter", models, {})
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(PROMPTS, sort_keys=False), "utf-8")
    settings = {
        "base": str(tiny_base),
        "arms": {"base": {}, "adapter": {"adapter": str(tmp_path / "adapter")}},
        "prompts": str(tmp_path / "prompts.yaml"),
        "suites": {"trained": {"seeds": 3}, "explicit": {"seeds": 3}},
        "exemplars": str(exemplars_of_people(tiny_dataset, tmp_path / "exemplars")),
        "steps": 2,
        "resolution_px": 16,
        "batch": 8,
        "dtype": "fp32",
        "out": str(tmp_path / "study"),
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return file


def exemplars_of_people(dataset: Path, folder: Path) -> Path:
    """The dataset without its controls, so that every picture reads as somebody."""
    shutil.copytree(dataset, folder)
    lines = (folder / "metadata.jsonl").read_text("utf-8").splitlines(keepends=True)
    people = "".join(line for line in lines if json.loads(line)["kind"] == "explicit")
    (folder / "metadata.jsonl").write_text(people, "utf-8")
    return folder


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
        (["--exemplars", "nowhere"], "exemplars: nowhere"),
        (["--prompts", "nowhere.yaml"], "nowhere.yaml does not exist"),
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
