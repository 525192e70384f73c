"""The whole of Unskew on the embedded Emoji World: dataset, LoRA, paired study, report.

unskew demo                  # some minutes on two CPU cores; writes runs/emoji-*
unskew demo --short          # a smoke test of the same path; writes runs/short/emoji-*
the same command again       # finishes only what is missing
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from unskew.errors import UserError
from unskew.settings import CRASHED, run_program

LAUNCH = (
    "accelerate.commands.launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no "
    "--dynamo_backend no --num_cpu_threads_per_process"
).split()
SAVING_S = 60
"""How long an interrupted stage may take to save what it has."""
SHORT_TRAINING = "--steps 6 --samples.seeds 2 --samples.steps 4".split()
SHORT_STUDY = [
    word
    for suite in ("trained", "contextual", "held_out", "explicit", "control")
    for word in f"--suites.{suite}.prompts 4 --suites.{suite}.seeds 6".split()
]


@dataclass(frozen=True)
class Stage:
    """One program of the demo, run as a user would run it."""

    title: str
    folder: Path
    command: tuple[str, ...]
    """What follows `python`."""


def stages(out: Path, *, short: bool) -> tuple[Stage, ...]:
    """The demo's programs in order, with the settings of `configs/emoji`, writing into `out`.

    Short means fewer steps and pictures; nothing can be concluded from them.
    """
    data, lora, study = out / "emoji-data", out / "emoji-lora", out / "emoji-study"
    exemplars, adapter = out / "emoji-exemplars", lora / "adapter"
    build = {"--out": data, "--exemplars": exemplars}
    train = {"--out": lora, "--dataset": data, "--cache": out / "cache"}
    judge = {
        "--out": study,
        "--classifiers.exemplars.folder": exemplars,
        "--arms.adapter.adapter": adapter,
    }
    # Where it is not told, accelerate holds a process to one thread.
    threads = psutil.cpu_count(logical=False) or 1
    launch = ("-m", *LAUNCH, str(threads), _file("unskew.train.lora"))
    return (
        Stage("a balanced, captioned dataset", data, ("-m", "unskew.data.build", *_words(build))),
        Stage(
            "a LoRA on the embedded base, through accelerate",
            lora,
            (*launch, *_words(train), *(SHORT_TRAINING if short else [])),
        ),
        Stage(
            "base against base + LoRA: same prompts, same noise",
            study,
            ("-m", "unskew.evaluate.paired", *_words(judge), *(SHORT_STUDY if short else [])),
        ),
    )


def main(argv: Sequence[str]) -> int:
    """Run the stages one after the other; returns 0, or the exit code of the first that failed."""
    arguments = _arguments(argv)
    out = arguments.out or Path("runs/short" if arguments.short else "runs")
    plan = stages(out, short=arguments.short)
    seconds = []
    for number, stage in enumerate(plan, 1):
        print(f"\n[{number}/{len(plan)}] {stage.title} -> {stage.folder}", flush=True)
        started = time.perf_counter()
        code = run_stage(stage)
        seconds.append(time.perf_counter() - started)
        if code != 0:
            print(
                f"error: stage {number} ended with exit code {code} after {seconds[-1]:.0f} s, for "
                "the reason above; the same command then goes on from here",
                file=sys.stderr,
            )
            return code if code > 1 else CRASHED
    print(f"\n{_time_table(plan, seconds)}\n\nreport: {plan[-1].folder / 'report.html'}")
    return 0


def run_stage(stage: Stage) -> int:
    """Run one program in a process group of its own; its exit code.

    accelerate's launcher does not hand signals on, so an interruption goes to the whole group and
    this waits until the last of it has saved and ended.
    """
    child = subprocess.Popen([sys.executable, *stage.command], start_new_session=True)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        print("\nstopping: the stage saves what it has", file=sys.stderr, flush=True)
        _end_group(child)
        raise
    return 128 - code if code < 0 else code


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End all of a stage and wait until it has saved; an interruption meanwhile kills it.

    By SIGTERM, which our programs take as they take Ctrl-C: to that the launcher would say a
    traceback, as if something had failed.
    """
    deadline = time.monotonic() + SAVING_S
    with contextlib.suppress(ProcessLookupError):  # all of the group have ended
        try:
            os.killpg(child.pid, signal.SIGTERM)
            while time.monotonic() < deadline:
                child.poll()
                os.killpg(child.pid, 0)
                time.sleep(0.1)
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _words(options: Mapping[str, Path]) -> list[str]:
    return [word for name, path in options.items() for word in (name, str(path))]


def _time_table(plan: Sequence[Stage], seconds: Sequence[float]) -> str:
    width = max(len(stage.title) for stage in plan)
    rows = [
        f"{stage.title:<{width}}  {took:6.0f} s  {took / sum(seconds):4.0%}"
        for stage, took in zip(plan, seconds, strict=True)
    ]
    return "\n".join([*rows, f"{'in all':<{width}}  {sum(seconds):6.0f} s"])


def _file(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(f"{module} is not installed: install unskew again")
    return spec.origin


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="unskew demo", description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument(
        "--short", action="store_true", help="a few steps and pictures: shows that it works here"
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the three run folders (default: runs, or runs/short)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))
