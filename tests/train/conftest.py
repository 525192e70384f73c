"""A training run small enough to be done many times."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from unskew.adapters import WEIGHTS_FILE, save_adapter
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
CheckAlike = Callable[[Training, Path, Path], None]
LARGEST, MEAN = 1e-2, 1e-4
"""AdamW makes steps even of gradients that are hardly more than rounding, where there are any,
so a few weights may part by far more than the mean."""


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


@pytest.fixture
def readings(tiny_dataset: Path, tmp_path: Path) -> list[str]:
    """Words that let a tiny run look at pictures of its own every third step."""
    block = {"suite": "validation", "role": "neutral", "attributes": ["presentation"]}
    block |= {"templates": ["{x}"], "subjects": {"singer": "a singer", "judge": "a judge"}}
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text(yaml.safe_dump([block]), "utf-8")
    small = "--validation.every 3 --validation.batch 2 --validation.seeds 3 --validation.steps 2"
    files = ["--validation.prompts", str(prompts), "--validation.exemplars", str(tiny_dataset)]
    return [*small.split(), *files]


@pytest.fixture
def check_alike() -> CheckAlike:
    """Fails where two runs' adapters differ by more than rounding, and says by how much.

    The third that it needs is the same training with nothing done: what the weights were before.
    Residuals are told as shares of how far training moved them.
    """

    def check(untrained: Training, one: Path, other: Path) -> None:
        files = [out / "adapter" / WEIGHTS_FILE for out in (one, other)]
        files.append(save_adapter(one.parent / "untrained", untrained.models, {}))
        ours, theirs, start = (safetensors.torch.load_file(file) for file in files)
        assert ours.keys() == theirs.keys() == start.keys()
        moved = torch.cat([(ours[n] - start[n]).abs().flatten() for n in ours])
        residual = torch.cat([(theirs[n] - ours[n]).abs().flatten() for n in ours])
        largest, mean = float(residual.max() / moved.max()), float(residual.mean() / moved.mean())
        assert largest < LARGEST and mean < MEAN, (
            f"{other.name} is not {one.name}: residual at most {largest:.1e} of the largest change "
            f"of a weight (allowed: {LARGEST:.0e}), on average {mean:.1e} of the average change "
            f"(allowed: {MEAN:.0e})"
        )

    return check


class Attempts:
    """Processes that run train/lora.py, one after the other, whose imports are done already."""

    def __init__(self, log: Path) -> None:
        program = str(Path(__file__).parent / "attempts.py")
        pipe = subprocess.PIPE
        self.log = log
        self.parent = subprocess.Popen(
            [sys.executable, program], stdin=pipe, stdout=pipe, text=True, bufsize=1
        )

    def start(self, words: list[str], **more: Any) -> int:
        """The process number; `more` is for `attempts.py` to read."""
        self._tell({"words": words, "log": str(self.log), **more})
        return self._hear()

    def end(self) -> int:
        """Wait for it; the exit code, or minus the signal that killed it."""
        code = self._hear()
        print(self.said())
        return code

    def run(self, words: list[str], **more: Any) -> int:
        """Both."""
        self.start(words, **more)
        return self.end()

    def said(self) -> str:
        """Stdout and stderr of the last one."""
        return self.log.read_text("utf-8")

    def _tell(self, asked: Mapping[str, Any]) -> None:
        assert self.parent.stdin
        self.parent.stdin.write(json.dumps(asked) + "\n")

    def _hear(self) -> int:
        assert self.parent.stdout
        return int(self.parent.stdout.readline())


@pytest.fixture(scope="session")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attempts]:
    """Real processes that cost a second each, and not the imports' eight."""
    attempts = Attempts(tmp_path_factory.mktemp("attempts") / "log")
    yield attempts
    attempts.parent.communicate("")
