"""Train a LoRA so that neutral prompts show an attribute's values at the target's rates.

    accelerate launch train/lora.py                     # Emoji World; minutes on 2 CPU cores
    python train/lora.py --steps 20 --out runs/try      # the same in small
    python train/lora.py --dry-run                      # check everything, time one step, stop
    python train/lora.py                                # once more: goes on where it stopped

Writes the adapter, checkpoints, sample grids and metrics into the run's folder.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from unskew.adapters import WEIGHTS_FILE
from unskew.bases import base_facts
from unskew.processes import started_alone
from unskew.runs import Run, atomic_path, open_run, read_manifest, sha256_file
from unskew.settings import Resolved, config_path, resolve, run_program
from unskew.train.average import Average, as_saved, holding, update_average
from unskew.train.choice import Choice
from unskew.train.dry_run import dry_run, only_cache
from unskew.train.guards import Lookout
from unskew.train.inputs import Inputs, check_inputs, describe, input_hashes
from unskew.train.journal import WARM_UP, Journal, say
from unskew.train.memory import choose_checkpointing, compile_blocks
from unskew.train.numerics import learning_rate
from unskew.train.objective import draw_part, row_losses, target_bchw
from unskew.train.options import TrainSettings
from unskew.train.output import write_adapter
from unskew.train.proof import prove_adapter
from unskew.train.resuming import resume, save
from unskew.train.rows import Row
from unskew.train.samples import draw_grid
from unskew.train.stopping import Stop
from unskew.train.surroundings import make_accelerator, surroundings
from unskew.train.training import Training, load_training
from unskew.train.validation import validate


def main(argv: Sequence[str]) -> int:
    """Resolve the settings, check all that is read, then train; 0 when the adapter is proved."""
    resolved = resolve(
        TrainSettings,
        argv,
        default_config=config_path("emoji/train.yaml"),
        prog="unskew train",
        description=(__doc__ or "").splitlines()[0],
    )
    settings = resolved.settings
    accelerator = make_accelerator(settings)
    inputs = check_inputs(settings)
    facts = surroundings(settings, accelerator) | base_facts(inputs.base)
    if alone := started_alone():
        say(accelerator, alone)
    say(accelerator, f"device: {facts['device']}\ndtype: {facts['dtype']}")
    say(accelerator, describe(settings, inputs))
    if settings.cache_only:
        return only_cache(settings, inputs, accelerator)
    if accelerator.device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if resolved.dry_run:
        return dry_run(resolved, inputs, accelerator, train_step)
    run = begin(resolved, inputs, accelerator, facts)
    with run or nullcontext():
        if broadcast_object_list([run is not None and run.was_complete])[0]:
            say(accelerator, f"{settings.out} is complete already: nothing to do")
        else:
            training = load_training(settings, inputs, inputs.rows, accelerator, settings.cache)
            say(accelerator, str(training.deal.encoded.work))
            for word in (choose_checkpointing(training), compile_blocks(training)):
                if word:
                    say(accelerator, word)
            finish(training, inputs, run, *train(training, *resume(training)))
    if resolved.json and accelerator.is_main_process:
        print(json.dumps({"adapter": str(settings.out / "adapter" / WEIGHTS_FILE)}))
    return 0


def train(
    training: Training, first: int, average: Average | None, choice: Choice
) -> tuple[Average | None, Choice]:
    """Steps `first` to the last, with what happens once in a while between them.

    Returns the running average of the weights, where one is kept, and what validation chose.
    """
    t, settings, out = training, training.settings, training.settings.out
    main_process, decay = t.accelerator.is_main_process, settings.optimizer.average_decay
    if settings.tracker != "none":
        t.accelerator.init_trackers(settings.tracker)
    lookout = Lookout()
    with Stop(t.accelerator) as stop, Journal(t.accelerator, out, first, settings.steps) as journal:
        for step in range(first, settings.steps):
            if choice.ends(settings.validation):
                break
            if due(step, settings.samples.every) and main_process:
                draw_samples(t, step, average)
                journal.leave_out()

            train_step(t, step)
            if average:
                average = update_average(average, t.parameters, decay)

            done, last = step + 1, step + 1 == settings.steps
            validating = t.validation and (last or due(done, settings.validation.every))
            saving = last or due(done, settings.checkpoints.every)
            logging = last or due(done, settings.log_every)
            beginning = done <= first + WARM_UP  # timed by itself, so waited for
            wait = saving or logging or validating or beginning or not t.stepper.deferred
            stopping = stop.asked(wait=wait)
            look_back(t, journal, lookout, done, log=logging, wait=wait or stopping)
            if validating:
                choice, figures, word = validate(t, done, average, choice)
                journal.record(done, figures)
                say(t.accelerator, word)
                journal.leave_out()
            if (saving or stopping or choice.ends(settings.validation)) and main_process:
                save(t, done, average, choice)
                journal.leave_out()
            if stopping:
                goes_on = "the same command" + " with --resume auto" * (settings.resume == "never")
                say(t.accelerator, f"stopped: {done} steps are saved; {goes_on} goes on")
                raise stop.error()
        if settings.samples.every and main_process:
            draw_samples(t, choice.last_step(settings), average)
    return average, choice


def train_step(training: Training, step: int) -> None:
    """One optimizer step. Its loss, and the error if there is one, come with `stepper.read`."""
    t, settings = training, training.settings
    rows = t.batches.rows(step)
    losses: list[tuple[Row, torch.Tensor]] = []
    for places, together in t.passes(rows):
        part = draw_part(rows, places, step, t.deal)
        noisy_bchw = t.schedule.add_noise(part.latents_bchw, part.noise_bchw, part.timesteps_b)
        with together:
            with t.autocast():
                target = target_bchw(t.pipe.unet, t.family, t.schedule, part, noisy_bchw)
                predicted = t.denoiser(noisy_bchw, part)
                loss_b = row_losses(predicted, target, part.weights_b)
            t.accelerator.backward(t.stepper.scaled(loss_b.sum() / t.rows_per_process))
        losses += zip(part.rows, loss_b.detach(), strict=True)
    loss = t.accelerator.reduce(torch.stack([loss for _, loss in losses]).mean(), "mean")
    rate = learning_rate(step, settings.optimizer, settings.steps)
    t.stepper.step(step, rate, loss, losses)


def look_back(
    training: Training, journal: Journal, lookout: Lookout, done: int, *, log: bool, wait: bool
) -> None:
    """Read how the last steps were, without `wait` only if that costs none; record and watch them.

    Raises UserError for a step that was not finite, and for a run that is worthless.
    """
    readings = training.stepper.read(wait=wait)
    metrics = readings[-1].metrics if readings else {}
    seconds = journal.step(done, metrics, log=log, read=len(readings))
    for reading in readings:
        for word in (reading.word, *lookout.look(reading.step, reading.metrics, seconds)):
            if word:
                say(training.accelerator, word)


def due(done: int, every: int) -> bool:
    """Whether something that happens every so many steps happens now; 0 is never."""
    return every > 0 and done % every == 0


def draw_samples(training: Training, done: int, average: Average | None) -> None:
    """The sample grid after `done` steps, unless an attempt before has drawn it."""
    settings = training.settings
    file = settings.out / "samples" / f"step-{done:06d}.png"
    if not file.exists():
        with as_saved(average, training.parameters), training.autocast():
            texts = training.texts([*settings.samples.prompts, ""])
            draw_grid(training.pipe, texts, settings.samples, settings.resolution_px, file)


def begin(
    resolved: Resolved[TrainSettings],
    inputs: Inputs,
    accelerator: Accelerator,
    facts: dict[str, Any],
) -> Run | None:
    """Open the run's folder; None on processes other than the main one."""
    if not accelerator.is_main_process:
        return None
    return open_run(
        resolved.settings.out,
        program="train",
        settings=resolved.settings.model_dump(mode="json", exclude={"resume"}),
        passed=resolved.passed,
        inputs=input_hashes(resolved.settings, inputs),
        facts=facts,
    )


def finish(
    training: Training, inputs: Inputs, run: Run | None, average: Average | None, choice: Choice
) -> None:
    """Write the adapter, prove that it loads back as it was, and call the run complete."""
    if run is None:
        return
    weights, own = training.parameters, training.settings
    kept = holding(choice.weights, weights) if choice.weights else as_saved(average, weights)
    if own.validation.choose == "best" and not choice.weights:
        say(training.accelerator, "warning: no reading could be judged; the last weights are taken")
    step = {"adapter_step": choice.adapter_step(own)} if training.validation else {}
    folder = training.settings.out / "adapter"
    manifest = read_manifest(run.folder)
    with kept, atomic_path(folder) as temporary:
        files = write_adapter(training, temporary, manifest["inputs"])
        proof = prove_adapter(training, inputs.base, *files)
        if folder.exists():  # of an attempt that was killed before it could say "complete"
            shutil.rmtree(folder)
    file = folder / WEIGHTS_FILE
    run.finish("complete", {"adapter_sha256": sha256_file(file), **proof, **step})
    say(
        training.accelerator,
        f"{file}: proved in a fresh base, difference {proof['difference']:.2g}",
    )


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))
