"""What is done instead of training: a look at what it would take, or the cache alone."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable

import torch
from accelerate import Accelerator

from unskew.pipelines import load_base
from unskew.settings import Resolved
from unskew.train.cache import fill_cache
from unskew.train.inputs import Inputs, captions_of
from unskew.train.journal import say
from unskew.train.options import TrainSettings
from unskew.train.training import Training, load_training


def only_cache(settings: TrainSettings, inputs: Inputs, accelerator: Accelerator) -> int:
    """Encode what the cache lacks, and nothing else."""
    if accelerator.is_main_process:
        pipe = load_base(inputs.base, accelerator.device, torch.float32, without=("unet",))
        work = fill_cache(
            pipe,
            inputs.base,
            [row.file for row in inputs.rows],
            captions_of(inputs.rows, settings),
            inputs.framings,
            settings.cache,
            mirror=settings.pictures.horizontal_flip,
        )
        say(accelerator, f"{settings.cache}: {work}")
    return 0


def dry_run(
    resolved: Resolved[TrainSettings],
    inputs: Inputs,
    accelerator: Accelerator,
    train_step: Callable[[Training, int], None],
) -> int:
    """Print the settings, do two steps on the first batch, and say what the whole would take."""
    settings = resolved.settings
    rows = tuple(dict.fromkeys(inputs.batches.rows(0)))
    training = load_training(settings, inputs, rows, accelerator, None)
    train_step(training, 0)
    training.stepper.read()
    started = time.perf_counter()
    train_step(training, 0)
    training.stepper.read()
    seconds = time.perf_counter() - started
    if accelerator.device.type == "cuda":
        memory, where = torch.cuda.max_memory_allocated(), "GPU"
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        memory, where = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "this process"
    items = [
        len({r.file for r in some}) * (1 + settings.pictures.horizontal_flip)
        + len(set(captions_of(some, settings)))
        for some in (inputs.rows, rows)
    ]
    trained = sum(p.numel() for p in training.parameters.values())
    report = {
        "settings": settings.model_dump(mode="json"),
        "trained_parameters": trained,
        "seconds_per_step": round(seconds, 3),
        "seconds_of_training": round(seconds * settings.steps),
        "seconds_of_encoding": round(training.encoding_seconds * items[0] / items[1]),
        "memory_gib": round(memory / 2**30, 2),
    }
    print(json.dumps(report, indent=2))
    say(
        accelerator,
        f"{seconds:.2f} s a step, {report['seconds_of_training']} s of steps in all, "
        f"{report['seconds_of_encoding']} s of encoding; {report['memory_gib']} GiB of {where}; "
        "nothing was written",
    )
    return 0
