"""An adapter that was trained and studied, small enough to be published many times."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from unskew.evaluate import paired
from unskew.scripts import publish
from unskew.settings import config_path, run_program
from unskew.train import lora

TESTS = Path(__file__).parents[1]
LOCAL = "jane-does-secret"
"""Part of every folder's name here: it must never be in a bundle."""


@dataclass(frozen=True)
class Runs:
    """A training run and a study of its adapter, with clean manifests; change only a copy."""

    root: Path
    train: Path
    study: Path

    def copy(self, folder: Path) -> Runs:
        """The same in another folder, for a test that breaks something."""
        for run in (self.train, self.study):
            shutil.copytree(run, folder / run.name)
        return Runs(self.root, folder / self.train.name, folder / self.study.name)

    def words(self, out: Path, *more: str) -> list[str]:
        """The command line that publishes them into `out`."""
        given = {"--train": self.train, "--study": self.study, "--out": out}
        words = [str(word) for pair in given.items() for word in pair]
        licences = ["--license", "cc-by-4.0", "--base_license", "cc-by-4.0"]
        return [*words, *licences, "--base_model", "somebody/tiny-base", *more]


@pytest.fixture(scope="session")
def runs(
    tiny_base: Path,
    tiny_dataset: Path,
    tiny_people: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Runs:
    """A tiny LoRA with alpha != rank, and the study of it, from the real programs."""
    root = tmp_path_factory.mktemp(LOCAL)
    train = SimpleNamespace(**runpy.run_path(str(TESTS / "train" / "conftest.py")))
    evaluate = SimpleNamespace(**runpy.run_path(str(TESTS / "evaluate" / "conftest.py")))
    settings = yaml.safe_load(config_path("emoji/train.yaml").read_text("utf-8"))
    for name, value in train.TINY.items():
        settings[name] = {**settings[name], **value} if value and isinstance(value, dict) else value
    settings |= {"base": str(tiny_base), "dataset": str(tiny_dataset), "cache": str(root / "cache")}
    settings["optimizer"]["learning_rate"] = 0.5  # an effect that pictures show
    assert program(lora.main, settings, root / "train.yaml", root / f"{LOCAL}-lora") == 0
    (root / "prompts.yaml").write_text(yaml.safe_dump(evaluate.PROMPTS, sort_keys=False), "utf-8")
    study = {
        "base": str(tiny_base),
        "arms": {"base": {}, "debiased": {"adapter": str(root / f"{LOCAL}-lora" / "adapter")}},
        "prompts": str(root / "prompts.yaml"),
        "suites": {"trained": {"seeds": 3}, "explicit": {"seeds": 3}},
        "classifiers": {
            "exemplars": {
                "kind": "exemplars",
                "attributes": ["subject", "presentation"],
                "folder": str(tiny_people),
            }
        },
        "cache": str(root / "cache"),
        "steps": 2,
        "resolution_px": 16,
        "batch": 8,
        "dtype": "fp32",
    }
    assert program(paired.main, study, root / "study.yaml", root / f"{LOCAL}-study") == 0
    found = Runs(root, root / f"{LOCAL}-lora", root / f"{LOCAL}-study")
    for folder in (found.train, found.study):
        rewrite(folder / "manifest.json", git={"commit": "c0ffee" * 6 + "c0ff", "dirty": False})
    return found


def program(main: Callable[..., int], settings: dict[str, Any], file: Path, out: Path) -> int:
    """A program's exit code with these settings."""
    file.write_text(yaml.safe_dump({**settings, "out": str(out)}, sort_keys=False), "utf-8")
    return run_program(main, ["--config", str(file)])


def rewrite(file: Path, **changes: Any) -> None:
    """Change entries of a JSON file."""
    said = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**said, **changes}), "utf-8")


@pytest.fixture(scope="session")
def whole_bundle(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published bundle; change only a copy."""
    out = tmp_path_factory.mktemp("out") / "bundle"
    assert run_program(publish.main, runs.words(out)) == 0
    return out


@pytest.fixture
def bundle(whole_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may break."""
    return Path(shutil.copytree(whole_bundle, tmp_path / "bundle"))
