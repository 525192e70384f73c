"""Every recipe that ships runs: on a base of its family in small, as far as a dry run goes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from unskew.adapters import attach, save_adapter
from unskew.evaluate import paired
from unskew.pipelines import load_base
from unskew.settings import config_path, run_program
from unskew.train import lora

BASES = {"emoji": "tiny_base", "sd15": "tiny_sd15_like_base", "sdxl": "tiny_sdxl_base"}
"""Folder of recipes -> the tiny base of its family."""
TONES_OF = {"pale": "light", "light": "light", "tan": "medium", "brown": "dark", "dark": "dark"}
SMALL = {
    "train": (
        *("--resolution_px", "32", "--pictures.bucket_step_px", "32"),
        *("--dtype", "fp32", "--lora.rank", "2"),
    ),
    "study": ("--resolution_px", "16", "--dtype", "fp32", "--steps", "2", "--batch", "4"),
}


def recipes(program: str) -> list[Path]:
    """The settings files of a program, of every family."""
    return sorted(f for folder in BASES for f in config_path(folder).glob(f"{program}*.yaml"))


@pytest.fixture(scope="session")
def photographs(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset under the names that attributes of photographs have."""
    folder = Path(shutil.copytree(tiny_dataset, tmp_path_factory.mktemp("photographs") / "data"))
    file = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for row in rows:
        row["gender_presentation"] = row.pop("presentation")
        row["skin_tone_3"] = TONES_OF.get(row.pop("skin_tone"))
    lines = [json.dumps(row) + "\n" for row in rows if row["gender_presentation"] != "person"]
    file.write_text("".join(lines), "utf-8")
    return folder


def name_of(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


@pytest.mark.parametrize("file", recipes("train"), ids=name_of)
def test_every_training_recipe_does_its_first_step(
    file: Path,
    tiny_dataset: Path,
    photographs: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Settings, schedule, batch and LoRA fit a base of the family; nothing is written."""
    base = request.getfixturevalue(BASES[file.parent.name])
    dataset = tiny_dataset if file.parent.name == "emoji" else photographs
    words = ("--config", str(file), "--base", str(base), "--dataset", str(dataset))
    assert run_program(lora.main, [*words, *SMALL["train"], "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["trained_parameters"] > 0


@pytest.mark.parametrize("file", recipes("study"), ids=name_of)
def test_every_study_recipe_draws_its_first_batch(
    file: Path,
    tiny_dataset: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Arms, prompts and suites fit together, and a base of the family draws them."""
    base = request.getfixturevalue(BASES[file.parent.name])
    pipe = load_base(base, torch.device("cpu"), torch.float32)
    attach({"unet": pipe.unet}, rank=2, alpha=2, target_modules="attention")
    (tmp_path / "adapter").mkdir()
    save_adapter(tmp_path / "adapter", {"unet": pipe.unet}, {})
    recipe: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
    adapters = [
        word
        for name, arm in recipe["arms"].items()
        if arm
        for word in (f"--arms.{name}.adapter", str(tmp_path / "adapter"))
    ]
    exemplars = shutil.copytree(tiny_dataset, tmp_path / "exemplars")
    reader = ("--classifiers.exemplars.folder", str(exemplars))
    reader = reader if "exemplars" in recipe["classifiers"] else ()
    words = ("--config", str(file), "--base", str(base), *reader)
    assert run_program(paired.main, [*words, *adapters, *SMALL["study"], "--dry-run"]) == 0
    assert "one batch of each arm drawn" in capsys.readouterr().out


@pytest.mark.parametrize("file", sorted(config_path("accelerate").glob("*.yaml")), ids=name_of)
def test_the_launcher_takes_its_files_and_leaves_precision_to_us(file: Path) -> None:
    """Each is read, and none asks for a precision, which Unskew would refuse."""
    config: Any = load_config_from_file(str(file))
    assert config.mixed_precision == "no"
    assert config.num_processes == (2 if file.stem == "several-gpus" else 1)
    assert config.use_cpu == (file.stem == "cpu")
