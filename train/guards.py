"""What a run is watched for, so that hours are not spent on one that cannot come to anything.

Where a run is worthless these raise UserError; where it may be, they return what to tell the user,
else None. None keeps a state: what came before is passed in. Of figures that are the same on every
process (loss, gradient norm) each process comes to the same end; seconds differ, and never end one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch.nn import Parameter

from unskew.errors import UserError
from unskew.train.options import OptimizerSettings

FIRST_STEPS = 5
"""A gradient that is 0 for this many steps from the first stays 0."""
USUAL = 50
"""Values that the usual one is the median of."""
LOSS_TIMES = 10.0
"""Times the usual loss that is too much: batches differ by less, a run that breaks by far more."""
LOSS_PATIENCE = 20
"""Steps in a row with too much loss that end a run."""
SECONDS_TIMES = 3.0
"""Times the usual seconds of a step that are too many."""
SECONDS_PATIENCE = 10
"""Slow steps in a row that are worth a word; a few are any machine's."""
LEAST_FACTOR = 0.1
"""Below it, a factor on the rate that Prodigy finds was meant as a rate."""


@dataclass(frozen=True)
class Watch:
    """A figure's usual values, and for how long it has been far above them."""

    usual: tuple[float, ...] = ()
    """The last USUAL values that were not far above, oldest first."""
    above: int = 0
    """Steps in a row, up to now, that were."""


def follow(watch: Watch, value: float, times: float) -> Watch:
    """The watch with one more value; far above is over `times` the median of the usual ones.

    Such a value does not become usual. Nothing is far above before there are USUAL values, or
    where their median is 0.
    """
    usual = watch.usual
    if len(usual) == USUAL and value > times * median(usual) > 0:
        return Watch(usual, watch.above + 1)
    return Watch((*usual, value)[-USUAL:], 0)


def check_loss(watch: Watch, step: int, loss: float) -> tuple[Watch, str | None]:
    """A word at the first step with too much loss; UserError when it does not come down again.

    `step` counts from 0. Raises after LOSS_PATIENCE steps in a row.
    """
    now = follow(watch, loss, LOSS_TIMES)
    if not now.above:
        return now, None
    message = (
        f"step {step + 1}: loss {loss:.4g} is {loss / median(now.usual):.0f} times the usual "
        f"{median(now.usual):.4g}"
    )
    if now.above >= LOSS_PATIENCE:
        raise UserError(
            f"{message}, and has been over {LOSS_TIMES:.0f} times for {now.above} steps: training "
            "has broken down. Lower optimizer.learning_rate or optimizer.clip_norm, and go on from "
            f"a checkpoint of before step {step + 2 - now.above}"
        )
    return now, f"warning: {message}" if now.above == 1 else None


def check_seconds(watch: Watch, step: int, seconds: float) -> tuple[Watch, str | None]:
    """A word when steps have become slow for good; `seconds` is what step `step` (from 0) took."""
    now = follow(watch, seconds, SECONDS_TIMES)
    if now.above != SECONDS_PATIENCE:
        return now, None
    return now, (
        f"warning: for {now.above} steps up to step {step + 1} a step takes over "
        f"{SECONDS_TIMES:.0f} times the usual {median(now.usual):.2f} s (now {seconds:.2f} s): "
        "another program may hold the processor, or the GPU's memory has run over into the "
        "computer's. If so, lower batch.size or raise batch.accumulation"
    )


def check_gradients(norms: Sequence[float]) -> None:
    """Raise UserError when the gradient's norm was 0 in each of a run's first FIRST_STEPS steps.

    A norm of 0 is a gradient of 0 at every weight. `norms` begins at the run's first step, or at
    the one that it goes on from; fewer than FIRST_STEPS say nothing.
    """
    if len(norms) >= FIRST_STEPS and not any(norms[:FIRST_STEPS]):
        raise UserError(
            f"the gradient was 0 at every weight for {FIRST_STEPS} steps: nothing is learned. Look "
            "whether the dataset's weights are all 0, whether batch.control_share is 1 (controls "
            "learn what the base does already), and whether another program switched the adapter "
            "off"
        )


def check_trained(parameters: Mapping[str, Parameter], target_modules: object) -> int:
    """How many numbers are trained, > 0. Raises UserError when there are none."""
    trained = sum(p.numel() for p in parameters.values() if p.requires_grad)
    if not trained:
        raise UserError(
            f"lora.target_modules {target_modules!r} trains no weight of this base: give a preset, "
            "or ends of names of its UNet's modules, such as [to_q, to_v]"
        )
    return trained


def check_learning_rate(optimizer: torch.optim.Optimizer, asked: float) -> None:
    """Raise UserError unless every group of the optimizer has exactly the rate that was asked."""
    wrong = sorted({float(g["lr"]) for g in optimizer.param_groups if float(g["lr"]) != asked})
    if wrong:
        raise UserError(
            f"the optimizer's learning rate is {', '.join(map(str, wrong))}, but {asked} was asked "
            "for: something else sets it, such as a scheduler or a checkpoint. Without that, "
            "start again"
        )


def weak_factor(settings: OptimizerSettings) -> str | None:
    """A word where Prodigy, which finds its own rate, is given a rate instead of a factor."""
    if settings.kind != "prodigy" or settings.learning_rate >= LEAST_FACTOR:
        return None
    return (
        f"warning: optimizer.learning_rate is a factor on the rate that prodigy finds, and "
        f"{settings.learning_rate} leaves little of it: set it to 1.0"
    )


@dataclass
class Lookout:
    """Everything that is watched while a run goes on, step after step."""

    loss: Watch = Watch()
    seconds: Watch = Watch()
    norms: tuple[float, ...] = ()

    def look(self, step: int, metrics: Mapping[str, float], seconds: float) -> list[str]:
        """What to tell the user after a step. Raises UserError as the checks do."""
        self.loss, about_loss = check_loss(self.loss, step, metrics["loss"])
        self.seconds, about_seconds = check_seconds(self.seconds, step, seconds)
        self.norms = (*self.norms, metrics["gradient_norm"])[:FIRST_STEPS]
        check_gradients(self.norms)
        return [word for word in (about_loss, about_seconds) if word]
