"""Launcher and settings agree, or an error shows both before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unskew.runs import read_manifest
from unskew.settings import run_program
from unskew.train import lora
from unskew.train import surroundings as surroundings_of

Argv = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", ("mixed_precision bf16", "dtype fp32")),
        (
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
            "4",
            ("gradient_accumulation_steps 4", "batch.accumulation 1"),
        ),
        ("ACCELERATE_USE_FSDP", "true", ("use FSDP", "several-gpus.yaml", "memory.quantize")),
        ("ACCELERATE_USE_DEEPSPEED", "true", ("use DeepSpeed", "several-gpus.yaml")),
    ],
)
def test_a_launcher_that_asks_for_something_else_is_an_error(
    argv: Argv,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    said: tuple[str, ...],
) -> None:
    """Of precision, accumulation and sharding alike; what each asked for and what to do is said."""
    monkeypatch.setenv(variable, value)
    assert run_program(lora.main, argv(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in said)
    assert not (tmp_path / "run").exists()


def test_a_launcher_that_starts_one_of_several_is_told_of(
    argv: Argv,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As `accelerate launch --cpu --num_processes 2` does: a warning, and training goes on."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert run_program(lora.main, argv(tmp_path / "one", "--dry-run")) == 0
    assert "starts one process" not in "".join(capsys.readouterr())
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert run_program(lora.main, argv(tmp_path / "one", "--dry-run")) == 0
    assert "warning: accelerate launch starts one process" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ACCELERATE_MIXED_PRECISION", "fp32"), ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")],
)
def test_a_launcher_that_asks_for_the_same_is_none(
    argv: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Where both say the same, or the launcher says nothing, training goes on."""
    monkeypatch.setenv(variable, value)
    assert run_program(lora.main, argv(tmp_path / "run", "--steps", "1")) == 0


def test_a_launchers_accumulation_divides_nothing(
    argv: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the settings' own, and a step's loss is a mean over its parts already."""
    words = ("--steps", "2", "--batch.accumulation", "2", "--log_every", "1")
    assert run_program(lora.main, argv(tmp_path / "alone", *words)) == 0
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    assert run_program(lora.main, argv(tmp_path / "launched", *words)) == 0
    found = [
        [json.loads(line) for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()]
        for out in ("alone", "launched")
    ]
    norms = [[line["gradient_norm"] for line in lines] for lines in found]
    assert norms[0] == norms[1] and len(norms[0]) == 2


def test_the_device_that_is_told_is_the_one_that_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argv: Argv
) -> None:
    """A launcher's file may choose the CPU where there is a GPU."""
    monkeypatch.setattr(
        surroundings_of, "choose_device", lambda: (torch.device("cuda"), "cuda (a card)")
    )
    assert run_program(lora.main, argv(tmp_path / "run", "--steps", "1")) == 0
    assert read_manifest(tmp_path / "run")["facts"]["device"] == "cpu (as accelerate was told)"
