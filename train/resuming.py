"""What a run saves to go on from, and how it goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

from unskew.errors import UserError
from unskew.train.average import Average, average_state, begin_average, restored_average
from unskew.train.checkpoints import (
    load_average,
    load_checkpoint,
    load_choice,
    load_loss_scale,
    newest_checkpoint,
    save_checkpoint,
)
from unskew.train.choice import Choice, choice_state, restored_choice
from unskew.train.journal import say
from unskew.train.training import Training


def save(training: Training, done: int, average: Average | None, choice: Choice) -> None:
    """A checkpoint after `done` steps."""
    save_checkpoint(
        training.settings.out / "checkpoints",
        done,
        training.parameters,
        training.optimizer,
        training.settings.checkpoints.keep,
        average_state(average) if average else None,
        choice_state(choice) if training.validation else None,
        training.stepper.state(),
    )


def resume(training: Training) -> tuple[int, Average | None, Choice]:
    """Put the checkpoint that the settings ask for in place; how many steps are done.

    With them the weights' average where one is kept, and what validation has found so far.
    """
    settings, accelerator = training.settings, training.accelerator
    folder = settings.out / "checkpoints"
    if settings.resume == "never" and accelerator.is_main_process and folder.exists():
        shutil.rmtree(folder)
    accelerator.wait_for_everyone()
    averaging = settings.optimizer.average_decay > 0
    path = newest_checkpoint(folder)  # its own before the one that it began with
    if path is None and settings.resume not in ("auto", "never"):
        path = Path(settings.resume)
    if path is None:
        return 0, begin_average(training.parameters) if averaging else None, Choice()
    done = load_checkpoint(path, training.parameters, training.optimizer)
    training.stepper.restore(load_loss_scale(path))
    if done > settings.steps:
        raise UserError(
            f"resume: {path} has done {done} steps, more than steps ({settings.steps}): raise "
            "steps, or give an earlier checkpoint"
        )
    say(accelerator, f"going on from {path}")
    choice = restored_choice(load_choice(path), settings.validation)
    if not averaging:
        return done, None, choice
    state = load_average(path)
    if state is None:
        return done, begin_average(training.parameters), choice
    return done, restored_average(state, training.parameters), choice
