"""What is done instead of training: a rehearsal that says what it takes, or the cache alone."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator

from unskew.pipelines import load_base
from unskew.settings import Resolved
from unskew.train.cache import fill_cache
from unskew.train.estimate import GIB, phases, table
from unskew.train.inputs import Inputs, captions_of, input_hashes
from unskew.train.journal import say
from unskew.train.memory import choose_checkpointing, compile_blocks
from unskew.train.options import TrainSettings
from unskew.train.output import write_adapter
from unskew.train.proof import prove_adapter
from unskew.train.samples import draw_grid
from unskew.train.training import Training, load_training

MACOS = sys.platform == "darwin"


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
    """Two steps on the first batch and a row of samples, saved and proved as at the end.

    Says what the whole would take.

    Raises UserError and RuntimeError as `prove_adapter` does.
    """
    settings = resolved.settings
    rows = tuple(dict.fromkeys(inputs.batches.rows(0)))
    training = load_training(settings, inputs, rows, accelerator, None)
    caching_bytes = _most_bytes(accelerator)
    said = [choose_checkpointing(training)]
    estimated = phases(training, inputs)
    said += [compile_blocks(training), table(estimated)]
    say(accelerator, "\n".join(word for word in said if word))
    _most_bytes(accelerator)  # what the estimate took is no part of training
    train_step(training, 0)
    training.stepper.read()
    started = time.perf_counter()
    train_step(training, 0)
    training.stepper.read()
    seconds = time.perf_counter() - started
    training_bytes = _most_bytes(accelerator)
    if not accelerator.is_main_process:
        return 0
    rehearse_samples(training)
    samples_bytes = _most_bytes(accelerator)
    memory = max(caching_bytes, training_bytes, samples_bytes)
    where = "this process"
    if accelerator.device.type == "cuda":
        parts = {"caching": caching_bytes, "training": training_bytes, "samples": samples_bytes}
        where = f"GPU ({', '.join(f'{name} {n / GIB:.2f}' for name, n in parts.items())})"
    proof = rehearse_end(training, inputs)
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
        "memory_gib": round(memory / GIB, 2),
        "estimated_memory_gib": {phase.name: round(phase.all / GIB, 3) for phase in estimated},
        **proof,
    }
    print(json.dumps(report, indent=2))
    say(
        accelerator,
        f"{seconds:.2f} s a step, {report['seconds_of_training']} s of steps in all, "
        f"{report['seconds_of_encoding']} s of encoding; {report['memory_gib']} GiB of {where}; "
        f"saved and loaded back, the adapter differs by {proof['difference']:.2g}; nothing is left "
        "of it",
    )
    return 0


def rehearse_samples(training: Training) -> None:
    """Draw a row of the sample grid in few steps, where there is to be one: it takes its memory."""
    settings = training.settings
    if not settings.samples.every:
        return
    asked = {"prompts": settings.samples.prompts[:1], "steps": min(2, settings.samples.steps)}
    row = settings.samples.model_copy(update=asked)
    with tempfile.TemporaryDirectory(prefix="unskew-") as folder, training.autocast():
        texts = training.texts([*row.prompts, ""])
        draw_grid(training.pipe, texts, row, settings.resolution_px, Path(folder) / "row.png")


def rehearse_end(training: Training, inputs: Inputs) -> dict[str, float]:
    """Save the adapter as a run does, into a folder that goes away, and prove it."""
    hashes = input_hashes(training.settings, inputs)
    with tempfile.TemporaryDirectory(prefix="unskew-") as folder:
        return prove_adapter(training, inputs.base, *write_adapter(training, Path(folder), hashes))


def _most_bytes(accelerator: Accelerator) -> int:
    """The most memory that was in use: a GPU's since this was last asked, else the process's."""
    if accelerator.device.type == "cuda":
        most = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return most
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if MACOS else 1024)
