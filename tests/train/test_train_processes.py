"""What only real processes show: signals end them as they should, and two train as one does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from unskew.runs import read_manifest
from unskew.settings import run_program
from unskew.train import lora
from unskew.train.inputs import Inputs
from unskew.train.training import Training

pytestmark = pytest.mark.slow
Argv = Callable[..., list[str]]
Load = Callable[[list[str]], tuple[Training, Inputs]]
CheckAlike = Callable[[Training, Path, Path], None]
PROGRAM = str(Path(lora.__file__))
PATIENCE_S = 300
"""Far over what any of these takes: one that hangs fails by name, with what it said."""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_with_their_exit_code(
    argv: Argv, attempts: Any, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """The step is finished and saved, which is said, and the manifest says interrupted."""
    out = tmp_path / "run"
    process = attempts.start(argv(out, "--steps", "2000", "--checkpoints.every", "5"))
    patience = time.monotonic() + PATIENCE_S
    while not (out / "checkpoints" / "step-000005").exists():
        assert time.monotonic() < patience, attempts.said()
        time.sleep(0.01)
    os.kill(process, number)
    assert attempts.end() == code
    assert "steps are saved; the same command goes on" in attempts.said()
    assert read_manifest(out)["status"] == "interrupted"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def launch_two(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of the program as two processes on the CPU, by torch's own launcher."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    launch = f"-m torch.distributed.run --nproc-per-node 2 --master-port {free_port()}".split()
    command = [sys.executable, "-X", "faulthandler", *launch, PROGRAM, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            _, said = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            for worker in psutil.Process(process.pid).children(recursive=True):
                worker.send_signal(signal.SIGABRT)  # each is in a group of its own
            process.kill()
            _, said = process.communicate()
    print(said.decode())
    return process.returncode


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("tiny_base", ()),
        # most captions left out: encoders that some part never hears must not be waited for
        (
            "tiny_sdxl_base",
            ("--lora.components", "unet", "text_encoder", "--objective.caption_dropout", "0.8"),
        ),
    ],
)
def test_two_processes_train_as_one_does_in_two_parts(
    base: str,
    words: tuple[str, ...],
    argv: Argv,
    load: Load,
    attempts: Any,
    check_alike: CheckAlike,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """As two processes, launched or met by themselves, it gives one's weights in two parts."""
    one, two = tmp_path / "one", tmp_path / "two"
    words = ("--base", str(request.getfixturevalue(base)), *words)
    assert run_program(lora.main, argv(one, *words, "--batch.accumulation", "2")) == 0
    if base == "tiny_base":
        assert launch_two(argv(two, *words), monkeypatch) == 0
    else:
        assert attempts.run(argv(two, *words), port=free_port()) == 0
    assert read_manifest(two)["facts"]["processes"] == 2
    check_alike(load(argv(one, *words))[0], one, two)


def test_two_processes_see_in_validation_what_one_does(
    argv: Argv, readings: list[str], attempts: Any, tmp_path: Path
) -> None:
    """Both take part, none waits for the other, and the figures are one process's."""
    one, two = tmp_path / "one", tmp_path / "two"
    words = [*readings, "--optimizer.learning-rate", "1e-6"]
    assert run_program(lora.main, argv(one, *words, "--batch.accumulation", "2")) == 0
    more = ("--validation.choose", "best")
    assert attempts.run(argv(two, *words, *more), port=free_port()) == 0
    found = []
    for out in (one, two):
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        found.append([line for line in lines if "validation/loss" in line])
    assert [line["step"] for line in found[0]] == [3, 6]
    for ours, theirs in zip(*found, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
