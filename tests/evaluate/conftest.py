"""Studies: small enough to be drawn many times on any base, and made up for the report."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from unskew.adapters import attach, save_adapter
from unskew.families import family_of
from unskew.pipelines import load_base

ORACLES = Path(__file__).parents[1] / "oracles"
reported = SimpleNamespace(**runpy.run_path(str(ORACLES / "reported_study.py")))
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


StudyOn = Callable[..., Path]


@pytest.fixture
def study_on(study_in: Callable[..., Path], tmp_path: Path) -> StudyOn:
    """A function from a base and what has a LoRA to a study's YAML: the base against itself."""
    return partial(study_in, tmp_path)


@pytest.fixture(scope="session")
def study_in(tiny_people: Path) -> Callable[..., Path]:
    """The same as a function of the folder that the YAML, the adapter and the study go to."""

    def study(tmp_path: Path, base: Path, *components: str) -> Path:
        pipe = load_base(base, torch.device("cpu"), torch.float32)
        torch.manual_seed(0)
        names = [name for name in ("unet", *family_of(pipe).ENCODERS) if name in components]
        models = {name: getattr(pipe, name) for name in names}
        for parameter in attach(models, rank=2, alpha=4, target_modules="attention").values():
            torch.nn.init.normal_(parameter, std=0.5)
        (tmp_path / "adapter").mkdir()
        save_adapter(tmp_path / "adapter", models, {})
        (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(PROMPTS, sort_keys=False), "utf-8")
        settings = {
            "base": str(base),
            "arms": {"base": {}, "adapter": {"adapter": str(tmp_path / "adapter")}},
            "prompts": str(tmp_path / "prompts.yaml"),
            "suites": {"trained": {"seeds": 3}, "explicit": {"seeds": 3}},
            "classifiers": {
                "exemplars": {
                    "kind": "exemplars",
                    "attributes": ["subject", "presentation"],
                    "folder": str(tiny_people),
                }
            },
            "cache": str(tmp_path / "cache"),
            "steps": 2,
            "resolution_px": 16,
            "batch": 8,
            "dtype": "fp32",
            "out": str(tmp_path / "study"),
        }
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
        return file

    return study


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up paired study; tests that change something copy it."""
    return Path(reported.make_study(tmp_path_factory.mktemp("paired") / "study"))


@pytest.fixture(scope="session")
def bare_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without pictures: quick to render."""
    return Path(reported.make_study(tmp_path_factory.mktemp("bare") / "study", pictures=False))
