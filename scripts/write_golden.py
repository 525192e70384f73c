"""Train the first steps of Emoji World and write down their losses, for a test to come back to.

    python scripts/write_golden.py tests/train/golden/emoji-20-steps.json

After a change that is meant to move them; a minute. What moves them unmeant is a fault.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from unskew.data import build
from unskew.errors import UserError
from unskew.runs import read_manifest, write_json_atomic
from unskew.settings import run_program
from unskew.train import lora

DATA = "--captions 1 --exemplars null".split()
TRAINING = "--steps 20 --dtype fp32 --log_every 1 --samples.every 0 --tracker none".split()
SURROUNDINGS = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
PACKAGES = ("accelerate", "diffusers", "numpy", "peft", "pillow", "torch", "transformers")


def main(argv: Sequence[str]) -> int:
    """Write the file given."""
    file = _parser().parse_args(argv).file
    with tempfile.TemporaryDirectory() as folder:
        write_json_atomic(file, golden(Path(folder)))
    return 0


def golden(folder: Path) -> dict[str, Any]:
    """Build the dataset and train on it in `folder`: what was asked, where, and each step's loss.

    The training runs as a user runs it, on the CPU in one thread. Raises CalledProcessError.
    """
    data, out = folder / "data", folder / "lora"
    if run_program(build.main, [*DATA, "--out", str(data)]):
        raise UserError("the dataset could not be built, for the reason above")
    where = {"--dataset": data, "--out": out, "--cache": folder / "cache"}
    words = [word for name, path in where.items() for word in (name, str(path))]
    subprocess.run(
        (sys.executable, str(lora.__file__), *TRAINING, *words),
        env=os.environ | SURROUNDINGS,
        check=True,
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {
        "command": "python scripts/write_golden.py tests/train/golden/emoji-20-steps.json",
        "data": " ".join(DATA),
        "training": " ".join(TRAINING),
        "environment": environment(),
        "inputs": read_manifest(out)["inputs"],
        "losses": [line["loss"] for line in lines],
    }


def environment() -> dict[str, Any]:
    """What the last digits depend on."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": int(SURROUNDINGS["OMP_NUM_THREADS"]),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="write_golden.py", description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("file", type=Path, help="the JSON file to write")
    return parser


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))
