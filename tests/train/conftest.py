"""A training run small enough to be done many times."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from unskew.settings import config_path, resolve
from unskew.train.inputs import Inputs, check_inputs
from unskew.train.options import TrainSettings
from unskew.train.surroundings import make_accelerator
from unskew.train.training import Training, load_training

TINY: dict[str, Any] = {
    "steps": 6,
    "targets": {},
    "resolution_px": 16,
    "dtype": "fp32",
    "log_every": 2,
    "tracker": "none",
    "lora": {"rank": 4, "alpha": 8, "target_modules": "attention"},
    "batch": {"size": 12, "accumulation": 1, "neutral_share": 0.5, "control_share": 0.25},
    "objective": {"target": "explicit", "timesteps": "high_noise"},
    "optimizer": {"learning_rate": 2.0e-3, "warmup_steps": 2, "clip_norm": 1.0},
    "checkpoints": {"every": 2, "keep": 3},
    "samples": {"every": 0, "prompts": ["a mechanic"], "seeds": 2, "steps": 2},
}
Argv = Callable[..., list[str]]
Load = Callable[[list[str]], tuple[Training, Inputs]]


@pytest.fixture
def argv(tiny_base: Path, tiny_dataset: Path, tmp_path: Path) -> Argv:
    """A function from a run's folder and further arguments to a tiny run's command line.

    The settings are Emoji World's with TINY over them; all runs of a test share one cache.
    """
    settings = yaml.safe_load(config_path("emoji/train.yaml").read_text("utf-8"))
    for name, value in TINY.items():
        settings[name] = {**settings[name], **value} if value and isinstance(value, dict) else value
    settings |= {"base": str(tiny_base), "dataset": str(tiny_dataset)}
    settings |= {"cache": str(tmp_path / "cache")}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(settings), "utf-8")

    def arguments(out: Path, *more: str) -> list[str]:
        return ["--config", str(file), "--out", str(out), *more]

    return arguments


def block(suite: str, subjects: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "suite": suite,
        "role": "neutral",
        "attributes": ["presentation", "skin_tone"],
        "templates": ["a picture of {x}"],
        "subjects": subjects,
        **more,
    }


@pytest.fixture
def looking(argv: Argv, tiny_people: Path, tmp_path: Path) -> Argv:
    """As `argv`, with a small validation suite and exemplars; still off until `every` is given."""
    blocks = [
        block("trained", {"mechanic": "a mechanic"}),
        block("held_out", {"vampire": "a vampire", "teacher": "a teacher"}),
        block("validation", {"basketball": "a person playing basketball", "singer": "a singer"}),
        block("shared", {"vampire": "a vampire in the rain"}),
        block("season", {"market": "a christmas market"}, attributes=["season"]),
        block("control", {"banana": "a banana"}, role="control", attributes=[]),
    ]
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text(yaml.safe_dump(blocks), "utf-8")
    config = Path(argv(tmp_path)[1])
    settings = yaml.safe_load(config.read_text("utf-8"))
    settings["validation"] = {
        "prompts": str(prompts),
        "exemplars": str(tiny_people),
        "seeds": 4,
        "steps": 2,
        "batch": 3,
        "loss_rows": 2,
        "loss_timesteps": 2,
    }
    config.write_text(yaml.safe_dump(settings), "utf-8")
    return argv


@pytest.fixture
def load() -> Load:
    """A function from a command line to all that its run steps with."""

    def loaded(words: list[str]) -> tuple[Training, Inputs]:
        settings = resolve(
            TrainSettings,
            words,
            default_config=config_path("emoji/train.yaml"),
            prog="unskew train",
            description="A test.",
        ).settings
        accelerator, inputs = make_accelerator(settings), check_inputs(settings)
        return load_training(settings, inputs, inputs.rows, accelerator, settings.cache), inputs

    return loaded


@pytest.fixture
def dataset_copy(tiny_dataset: Path, tmp_path: Path) -> Path:
    """A dataset that a test may break."""
    return Path(shutil.copytree(tiny_dataset, tmp_path / "dataset"))
