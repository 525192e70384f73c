"""Measure training against a plain loop in the same run: speed, memory, and what a step goes into.

    python scripts/bench_train.py                           # Emoji World, here; a few minutes
    python scripts/bench_train.py --config bench/emoji-picture.yaml  # the same objective in both
    python scripts/bench_train.py --effect --write docs/benchmarks.md
    python scripts/bench_train.py --config bench/sd15.yaml  # SD 1.5's size, random weights; a GPU
    python scripts/bench_train.py --dry-run                 # one step of each loop

The two loops take turns, so that a machine that slows down slows both. docs/benchmarks.md says what
each figure is. A run that was stopped is begun again.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator

from unskew.errors import UserError
from unskew.evaluate.generate import Sampler
from unskew.runs import git_state
from unskew.scripts.bench_bases import write_base, write_dataset
from unskew.scripts.bench_effect import Judge, Reader, Reading, compare, follow, make_reader, pooled
from unskew.scripts.bench_loops import Loop, load_ours, load_plain_loop
from unskew.scripts.bench_meters import machine
from unskew.scripts.bench_options import BenchSettings, EffectSettings, Overrides
from unskew.scripts.bench_page import block_of, put
from unskew.scripts.bench_speed import say, speed
from unskew.settings import config_path, resolve, run_program
from unskew.train.inputs import Inputs, check_inputs
from unskew.train.options import TrainSettings
from unskew.train.surroundings import make_accelerator

SCHEMA_VERSION = 1
LOOPS = ("ours", "plain")


def main(argv: Sequence[str]) -> int:
    """Measure, print Markdown (or JSON with --json), and put it into the page if asked; 0."""
    resolved = resolve(
        BenchSettings,
        argv,
        default_config=config_path("bench/emoji.yaml"),
        prog="bench_train",
        description=(__doc__ or "").splitlines()[0],
    )
    settings = smallest(resolved.settings) if resolved.dry_run else resolved.settings
    check_machine(settings, resolved.config)
    with materials(settings) as given:
        report = measure(settings, given)
    block = block_of(report)
    print(json.dumps(report, indent=2) if resolved.json else block)
    if settings.write:
        put(settings.write, settings.row, block)
    return 0


def smallest(settings: BenchSettings) -> BenchSettings:
    """The same for one step of each loop, of which nothing is written."""
    less = {"warmup": 1, "steps": 1, "repeats": 1, "memory": False, "effect": False, "write": None}
    return settings.model_copy(update=less)


def check_machine(settings: BenchSettings, config: Path) -> None:
    """Raise UserError where this row cannot be measured here."""
    if settings.needs_gpu and not torch.cuda.is_available():
        raise UserError(
            f"row {settings.row!r} needs an NVIDIA GPU and there is none here, so it is not "
            f"measured. Where there is one: python scripts/bench_train.py --config {config} "
            "--write docs/benchmarks.md"
        )
    if settings.effect and settings.reach is None:
        raise UserError("effect is true, but reach, which says how it is measured, is not given")
    if settings.effect and (settings.loops != "both" or not settings.repeats):
        raise UserError(
            "effect compares two loops over steps that are planned by their speed: set loops to "
            f"both and repeats to 1 or more (they are {settings.loops} and {settings.repeats})"
        )


@contextlib.contextmanager
def materials(settings: BenchSettings) -> Iterator[Overrides]:
    """Settings of training that name the random base and pictures, which last as long as this."""
    if settings.weights == "given":
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="unskew-bench-") as folder:
        base, dataset = Path(folder) / "base", Path(folder) / "pictures"
        say(f"making a base of {settings.weights}'s size with random weights")
        write_base(settings.weights, base)
        write_dataset(dataset, train_settings(settings, {}).resolution_px)
        yield {"base": str(base), "dataset": str(dataset)}


def train_settings(settings: BenchSettings, given: Overrides) -> TrainSettings:
    """The recipe with the benchmark's own settings over it. Raises UserError as `unskew train`."""
    recipe = settings.recipe if settings.recipe.is_file() else config_path(str(settings.recipe))
    resolved = resolve(
        TrainSettings,
        list(words_of({**settings.training, **given, "tracker": "none"})),
        default_config=recipe,
        prog="unskew train",
        description="The training that is measured.",
    )
    return resolved.settings


def words_of(overrides: Mapping[str, Any], prefix: str = "--") -> Iterator[str]:
    """Settings as words of a command line."""
    for name, value in overrides.items():
        if isinstance(value, dict) and value:
            yield from words_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
            yield from map(_word, value if isinstance(value, tuple | list) else [value])


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def measure(settings: BenchSettings, given: Overrides) -> dict[str, Any]:
    """All figures of a row. Raises UserError for what cannot be trained or compared."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as `unskew train` on a GPU
    training = train_settings(settings, given)
    accelerator = make_accelerator(training)
    inputs = check_inputs(training)
    memory = memory_alone(settings, given) if settings.memory and settings.loops == "both" else {}
    chosen = LOOPS if settings.loops == "both" else (settings.loops,)
    loops = [load(name, settings, training, inputs, accelerator) for name in chosen]
    figures, ratio = speed(loops, settings, training.batch.size, accelerator.device, memory)
    loops.clear()  # the effect is measured on fresh ones
    state = git_state()
    return {
        "schema_version": SCHEMA_VERSION,
        "row": settings.row,
        "machine": machine(accelerator.device),
        "commit": (state["commit"] or "unknown")[:12] + " with changes" * bool(state["dirty"]),
        "batch": training.batch.size,
        "resolution_px": training.resolution_px,
        "steps": settings.steps,
        "repeats": settings.repeats,
        "loops": figures,
        "ratio": ratio and asdict(ratio),
        "effect": effect(settings, training, inputs, accelerator, figures),
        "wanted": settings.wanted.model_dump(),
        "settings": settings.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
    }


def load(
    name: str,
    settings: BenchSettings,
    training: TrainSettings,
    inputs: Inputs,
    accelerator: Accelerator,
) -> Loop:
    """A loop, fresh."""
    say(f"loading {name}")
    if name == "ours":
        return load_ours(training, inputs, accelerator)
    return load_plain_loop(
        training, inputs, accelerator.device, settings.plain_dtype, settings.plain_workers
    )


def memory_alone(settings: BenchSettings, given: Overrides) -> dict[str, float]:
    """Each loop's peak memory in GiB, of a process that does nothing but load and warm it up."""
    found = {}
    for name in LOOPS:
        say(f"peak memory of {name} alone")
        alone = {"loops": name, "repeats": 0, "memory": False, "effect": False, "write": None}
        alone |= {"training": {**settings.training, **given}, "weights": "given"}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.yaml"
            copy = settings.model_copy(update=alone).model_dump(mode="json", exclude_none=True)
            file.write_text(yaml.safe_dump(copy), "utf-8")
            command = ["-m", "unskew.scripts.bench_train", "--config", str(file), "--json"]
            run = subprocess.run(
                [sys.executable, *command], stdout=subprocess.PIPE, text=True, check=False
            )
        if run.returncode:
            raise UserError(
                f"the process that measures the memory of {name} ended with {run.returncode}, for "
                "the reason above: mend that, or leave it out (--memory false)"
            )
        found[name] = float(json.loads(run.stdout)["loops"][name]["memory_gib"])
    return found


def effect(
    settings: BenchSettings,
    training: TrainSettings,
    inputs: Inputs,
    accelerator: Accelerator,
    figures: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any] | None:
    """Readings of both loops over the same seconds of training, and how long each took; or None."""
    reach = settings.reach
    if not settings.effect or reach is None:
        return None
    read = make_reader(inputs.base, training.lora, judge_of(reach), accelerator.device)
    courses = {}
    for seed in reach.training_seeds:
        say(f"following both loops with training seed {seed}")
        seeded = training.model_copy(update={"seed": seed})
        courses[seed] = courses_of(settings, reach, seeded, inputs, accelerator, figures, read)
    return {
        "reached": compare(*(pooled([c[name] for c in courses.values()]) for name in LOOPS)),
        "courses": {
            str(seed): {name: [asdict(reading) for reading in course[name]] for name in LOOPS}
            for seed, course in courses.items()
        },
    }


def courses_of(
    settings: BenchSettings,
    reach: EffectSettings,
    training: TrainSettings,
    inputs: Inputs,
    accelerator: Accelerator,
    figures: Mapping[str, Mapping[str, Any]],
    read: Reader,
) -> dict[str, list[Reading]]:
    """Each loop's readings with one training seed, taken in turns."""
    courses = []
    for name in LOOPS:
        per_second = figures[name]["images_per_second"]["median"]
        seconds = max(0.0, reach.seconds - figures[name]["encoding_s"])
        steps = max(reach.readings, round(seconds * per_second / training.batch.size))
        fitted = training.model_copy(update={"steps": steps})
        loop = load(name, settings, fitted, inputs, accelerator)
        courses.append(follow(loop, steps, reach.readings, read, accelerator.device))
    taken = zip(*courses, strict=True)
    return dict(zip(LOOPS, map(list, zip(*taken, strict=True)), strict=True))


def judge_of(reach: EffectSettings) -> Judge:
    """What is drawn and how, by these settings."""
    side = reach.resolution_px
    return Judge(
        prompts=reach.prompts if reach.prompts.is_file() else config_path(str(reach.prompts)),
        suite=reach.suite,
        seeds=reach.seeds,
        exemplars=reach.exemplars,
        sampler=Sampler(reach.steps, reach.guidance, side, reach.batch),
    )


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))
