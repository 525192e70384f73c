"""Killed at any moment, the same command goes on to what an undisturbed run ends in."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors

from unskew.adapters import WEIGHTS_FILE
from unskew.kohya import KOHYA_FILE
from unskew.runs import TEMPORARY, read_manifest
from unskew.train.checkpoints import OPTIMIZER, SEAL

pytestmark = pytest.mark.slow
Argv = Callable[..., list[str]]
KILLED = -signal.SIGKILL
PATIENCE_S = 300
EVERYTHING = (
    *("--optimizer.average-decay", "0.9", "--validation.choose", "best"),
    *("--samples.every", "3", "--checkpoints.keep", "1"),
)
WHILE_SAVING = [
    ("os.rename", "checkpoint.json", 2),
    ("os.rename", "step-000004", 1),
    ("shutil.rmtree", "step-000002", 1),
    ("os.rename", "metrics.jsonl", 1),
    ("os.rename", "step-000006.png", 1),
]
AT_THE_END = [
    ("os.rename", WEIGHTS_FILE, 1),
    ("os.rename", KOHYA_FILE, 1),
    ("os.rename", "adapter", 1),
    ("os.rename", "adapter", 1),
    ("os.rename", "manifest.json", 2),
    ("shutil.rmtree", "adapter", 1),
    ("os.rename", "adapter", 1),
]


def made(out: Path) -> dict[str, Any]:
    """All that a run leaves, but what is of its own time and place."""
    files = {
        str(file.relative_to(out)): content(file)
        for folder in ("adapter", "samples", "checkpoints")
        for file in sorted((out / folder).rglob("*"))
        if file.is_file() and file.name != SEAL
    }
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {**files, "metrics.jsonl": [line | {"seconds_per_step": 0} for line in lines]}


def content(file: Path) -> object:
    """Its bytes; of the optimizer's file what they say, for safetensors orders its header anyhow.

    So the seal, which has that file's hash, is not compared.
    """
    if file.name != OPTIMIZER:
        return file.read_bytes()
    with safetensors.safe_open(file, "np") as entries:
        tensors = {key: entries.get_tensor(key).tobytes() for key in entries.keys()}  # noqa: SIM118
        return entries.metadata(), tensors


def check_same(killed: Path, whole: Path) -> None:
    ours, theirs = made(killed), made(whole)
    assert {f"adapter/{WEIGHTS_FILE}", f"adapter/{KOHYA_FILE}"} < ours.keys() == theirs.keys()
    assert not [name for name in ours if ours[name] != theirs[name]]
    assert any("validation/loss" in line for line in ours["metrics.jsonl"])
    assert any(name.startswith("samples/") for name in ours)
    assert not list(killed.rglob(f"{TEMPORARY}*"))
    assert read_manifest(killed)["status"] == "complete"


def test_killed_while_it_saves(
    argv: Argv, readings: list[str], attempts: Any, tmp_path: Path
) -> None:
    """Before each rename and removal that makes a checkpoint, a grid, the adapter, the manifest.

    Each leaves something unfinished, some twice in a row; the attempt after it sweeps that away.
    """
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert attempts.run(argv(whole, *readings, *EVERYTHING)) == 0
    words = argv(killed, *readings, *EVERYTHING)
    for event, name, count in (*WHILE_SAVING, *AT_THE_END):
        assert attempts.run(words, kill=(event, name, count)) == KILLED, f"{event} {name}"
        assert event != "os.rename" or list(killed.rglob(f"{TEMPORARY}*"))
        assert read_manifest(killed)["status"] == "running"
    assert attempts.run(words) == 0
    assert len(read_manifest(killed)["resumed"]) == len(WHILE_SAVING) + len(AT_THE_END)
    check_same(killed, whole)


def test_killed_at_any_moment(
    argv: Argv, readings: list[str], attempts: Any, tmp_path: Path
) -> None:
    """While encoding, then four times at a random moment after its next checkpoint."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more = (*readings, *EVERYTHING, "--steps", "80", "--validation.every", "40")
    more = (*more, "--samples.every", "40")
    assert attempts.run(argv(whole, *more)) == 0
    words = argv(killed, *more, "--cache", str(tmp_path / "other-cache"))
    delays, seen = random.Random(0), 0
    for number in range(5):
        process = attempts.start(words)
        if number == 0:
            wait_until(lambda: (tmp_path / "other-cache" / "pictures").exists())
        else:
            wait_until(lambda before=seen: newest(killed) > before)
            time.sleep(delays.uniform(0, 0.1))
        os.kill(process, signal.SIGKILL)
        assert attempts.end() == KILLED
        assert not (killed / "adapter").exists()
        seen = newest(killed)
    assert attempts.run(words) == 0
    assert "going on from" in attempts.said()
    check_same(killed, whole)


def newest(out: Path) -> int:
    """Steps of the newest checkpoint; 0 where there is none."""
    return max((int(f.name[5:]) for f in out.glob("checkpoints/step-*")), default=0)


def wait_until(happened: Callable[[], bool]) -> None:
    patience = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < patience
        time.sleep(0.005)
