"""Whole runs with readings: which weights they keep, when they end, and how they go on."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch
from torch import Tensor

from unskew.adapters import WEIGHTS_FILE
from unskew.runs import read_manifest, sha256_file
from unskew.settings import run_program
from unskew.train import lora, validation
from unskew.train.checkpoints import CHOICE, LORA
from unskew.train.choice import Score

Argv = Callable[..., list[str]]
EVERY = [
    *("--validation.every", "1", "--validation.loss-rows", "1", "--validation.loss-timesteps", "1"),
    *("--validation.seeds", "2", "--validation.steps", "1", "--validation.batch", "4"),
]
"""Readings after every step, as small as they may be."""


def weights_of(file: Path) -> dict[str, Tensor]:
    """A LoRA's weights by names that adapter and checkpoint share."""
    weights = safetensors.torch.load_file(file)
    return {n.replace(".default", ""): t for n, t in weights.items() if not n.startswith("/")}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lines_of(out: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl has of validation."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if any(name.startswith("validation/") for name in line)]


def scripted(monkeypatch: pytest.MonkeyPatch, imbalances: dict[int, float]) -> None:
    """Let the readings after these steps come out like this, whatever is shown."""

    def told(done: int, shown: object) -> Score:
        return Score(done, imbalances[done], imbalances[done])

    monkeypatch.setattr(validation, "score", told)


def test_a_run_with_readings_from_beginning_to_end(
    looking: Argv, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read every four steps and at the end: for the tracker, metrics.jsonl and a person."""
    out = tmp_path / "run"
    words = looking(out, "--validation.every", "4", "--validation.choose", "best")
    assert run_program(lora.main, [*words, "--tracker", "tensorboard"]) == 0
    said = capsys.readouterr().err
    assert "validation: 2 prompts x 4 seeds of suite 'validation'" in said
    assert "validation at step 4: presentation" in said
    lines = lines_of(out)
    assert [line["step"] for line in lines] == [4, 6]
    for id in ("presentation", "skin_tone"):
        assert all(0 <= line[f"validation/unreadable/{id}"] <= 1 for line in lines)
        assert all(-1 < line[f"validation/imbalance/{id}"] < 1.1 for line in lines)
    assert all(line["validation/loss/presentation/woman"] > 0 for line in lines)
    manifest = read_manifest(out)
    step = manifest["facts"]["adapter_step"]
    assert f"(best so far: step {step})" in said.split("validation at step 6: ")[1]
    assert {"validation prompts", "validation exemplars"} <= set(manifest["inputs"])
    kept = weights_of(out / "checkpoints" / "step-000006" / CHOICE)
    assert equal(weights_of(out / "adapter" / WEIGHTS_FILE), kept)
    assert equal(weights_of(out / "checkpoints" / f"step-00000{step}" / LORA), kept)


def test_the_best_weights_become_the_adapter(
    looking: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However old, and though the checkpoint of that step is long deleted."""
    scripted(monkeypatch, {1: 0.5, 2: 0.1, 3: 0.4, 4: 0.3, 5: 0.2, 6: 0.2})
    keep = ["--checkpoints.every", "1", "--checkpoints.keep"]
    out, other = tmp_path / "run", tmp_path / "other"
    best = [*EVERY, "--validation.choose", "best"]
    assert run_program(lora.main, looking(out, *best, *keep, "1")) == 0
    assert [f.name for f in (out / "checkpoints").iterdir()] == ["step-000006"]
    assert read_manifest(out)["facts"]["adapter_step"] == 2
    assert run_program(lora.main, looking(other, *EVERY, *keep, "9")) == 0
    assert read_manifest(other)["facts"]["adapter_step"] == 6
    wanted = [weights_of(other / "checkpoints" / f"step-00000{n}" / LORA) for n in (2, 6)]
    assert equal(weights_of(out / "adapter" / WEIGHTS_FILE), wanted[0])
    assert equal(weights_of(other / "adapter" / WEIGHTS_FILE), wanted[1])


def test_the_average_is_what_is_read_and_kept(
    looking: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an average is kept, the best weights are the average as it was at that reading."""
    scripted(monkeypatch, {2: 0.1, 4: 0.4, 6: 0.2})
    words = [*EVERY, "--validation.every", "2", "--optimizer.average-decay", "0.9"]
    out = tmp_path / "run"
    assert run_program(lora.main, looking(out, *words, "--validation.choose", "best")) == 0
    average = weights_of(out / "checkpoints" / "step-000002" / "average.safetensors")
    assert equal(weights_of(out / "adapter" / WEIGHTS_FILE), average)


def test_training_ends_early_once_the_target_is_held(
    looking: Argv,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After the second reading in a row the last step is saved, sampled, and the run complete."""
    scripted(monkeypatch, {1: 0.05, 2: 0.5, 3: 0.05, 4: 0.04})
    out = tmp_path / "run"
    words = looking(out, *EVERY, "--validation.stop-at", "0.1", "--samples.every", "9")
    assert run_program(lora.main, words) == 0
    assert "at most 0.1 in 2 readings in a row: training ends here" in capsys.readouterr().err
    manifest = read_manifest(out)
    assert (manifest["status"], manifest["facts"]["adapter_step"]) == ("complete", 4)
    last = out / "checkpoints" / "step-000004"
    assert not (out / "checkpoints" / "step-000006").exists()
    assert equal(weights_of(out / "adapter" / WEIGHTS_FILE), weights_of(last / LORA))
    assert (out / "samples" / "step-000004.png").exists()


def interrupted(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send ourselves a signal in the middle of step `step`."""
    real = lora.train_step

    def train_step(training: Any, number: int) -> None:
        if number == step - 1:
            signal.raise_signal(signal.SIGINT)
        real(training, number)

    monkeypatch.setattr(lora, "train_step", train_step)


@pytest.mark.parametrize("step", [2, 5])
def test_a_run_that_goes_on_comes_to_the_same_choice(
    looking: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Stopped at the best reading, or long after it: same adapter, same figures, same fact."""
    scripted(monkeypatch, {1: 0.5, 2: 0.1, 3: 0.4, 4: 0.3, 5: 0.2, 6: 0.2})
    words = [*EVERY, "--validation.choose", "best", "--checkpoints.keep", "1"]
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    assert run_program(lora.main, looking(whole, *words)) == 0
    with monkeypatch.context() as patched:
        interrupted(patched, step)
        assert run_program(lora.main, looking(out, *words)) == 130
    assert run_program(lora.main, looking(out, *words)) == 0
    adapters = [sha256_file(folder / "adapter" / WEIGHTS_FILE) for folder in (whole, out)]
    assert adapters[0] == adapters[1]
    assert lines_of(out) == lines_of(whole)
    assert read_manifest(out)["facts"]["adapter_step"] == 2


def test_a_run_that_ended_early_and_was_stopped_before_its_adapter_does_not_train_on(
    looking: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint knows that the target was held."""
    scripted(monkeypatch, {1: 0.05, 2: 0.04})
    out = tmp_path / "run"
    words = looking(out, *EVERY, "--validation.stop-at", "0.1", "--checkpoints.every", "9")
    with monkeypatch.context() as patched:
        patched.setattr(lora, "finish", Mock(side_effect=KeyboardInterrupt))
        assert run_program(lora.main, words) == 130
    monkeypatch.setattr(lora, "train_step", None)
    assert run_program(lora.main, words) == 0
    assert read_manifest(out)["facts"]["adapter_step"] == 2


def test_looking_changes_nothing_and_off_leaves_no_trace(looking: Argv, tmp_path: Path) -> None:
    """The same weights with readings and without; without, neither lines nor files of them."""
    off, on = tmp_path / "off", tmp_path / "on"
    assert run_program(lora.main, looking(off)) == 0
    assert run_program(lora.main, looking(on, *EVERY)) == 0
    ours, theirs = (weights_of(out / "adapter" / WEIGHTS_FILE) for out in (off, on))
    assert equal(ours, theirs)
    assert (lines_of(off), len(lines_of(on))) == ([], 6)
    assert not list(off.rglob(CHOICE))
    assert "adapter_step" not in read_manifest(off)["facts"]
    assert set(read_manifest(off)["inputs"]) == {"base", "dataset"}
