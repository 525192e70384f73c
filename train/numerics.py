"""The end of a step: no bad number reaches the weights, and a GPU is not waited for.

To read a number off a GPU is to wait until it has done all that it was asked for, and then it waits
for us. So with an optimizer that can leave a step out by a flag on the device (torch's fused ones,
the flag being what its GradScaler sets too), losses and norms stay there and are read now and then.
The first loss that is not finite raises the flag for good, so that the weights which the program
finds when it reads are those of before that step, however late it reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_

from unskew.errors import UserError
from unskew.train.guards import check_learning_rate
from unskew.train.options import OptimizerSettings
from unskew.train.rows import Row

MOST_SKIPPED = 20
"""Steps in a row whose gradients overflow fp16 that end a run: by then its scale is a millionth."""

RowLosses = Sequence[tuple[Row, Tensor]]


@dataclass(frozen=True)
class Made:
    """A step that was made, with what it was made of, on the device."""

    step: int
    rate: float
    loss: Tensor
    norm: Tensor
    losses: RowLosses


@dataclass(frozen=True)
class Reading:
    """A step that was made and looked at."""

    step: int
    """Counted from 0."""
    metrics: Mapping[str, float]
    """Loss, gradient_norm (inf or nan where the step was skipped), learning_rate; in fp16 also
    loss_scale and skipped_steps, as they are when it is read."""
    word: str | None = None
    """What to tell the user of it."""


class Stepper:
    """Turns gradients into optimizer steps: unscales, clips, checks, steps.

    In fp16 losses are scaled up before they go back, so that small gradients are not lost
    (Micikevicius et al. 2018, arXiv:1710.03740). A gradient that overflows then is no error: the
    step is left out and the scale halved.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        optimizer: torch.optim.Optimizer,
        clip_norm: float,
        device: torch.device,
        *,
        fp16: bool = False,
        deferred: bool = False,
    ) -> None:
        self.parameters = list(parameters)  # a list: clipping an exhausted iterator clips nothing
        self.optimizer, self.clip_norm, self.deferred = optimizer, clip_norm, deferred
        self.scaler = GradScaler(device.type) if fp16 else None
        self.broken = torch.zeros((), device=device)
        self.unread: list[Made] = []
        self.readings: list[Reading] = []
        self.skipped = self.in_a_row = 0

    def scaled(self, loss: Tensor) -> Tensor:
        """What to go back from instead of a loss."""
        return self.scaler.scale(loss) if self.scaler else loss

    def step(self, step: int, rate: float, loss: Tensor, losses: RowLosses) -> None:
        """Step number `step` (from 0) at this rate; `loss` is the same on every process.

        Unless it is deferred, raises UserError when loss or gradient is not finite, before any
        weight is changed. Raises too when the optimizer does not keep to the rate.
        """
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        norm = clip_grad_norm_(self.parameters, self.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        made = Made(step, rate, loss, norm, losses)
        if self.deferred:
            self.unread.append(made)
            self._step_by_flag(made)
        elif self._look(made, float(loss), float(norm)):
            self.optimizer.step()
        check_learning_rate(self.optimizer, rate)
        if self.scaler:
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def read(self, *, wait: bool = True) -> list[Reading]:
        """The steps since the last reading; without `wait` those that cost no waiting.

        Raises UserError that names the first one whose loss or gradient is not finite: the weights
        are those of before it. Raises too after MOST_SKIPPED skipped steps in a row.
        """
        if wait and self.unread:
            figures = torch.stack([torch.stack((made.loss, made.norm)) for made in self.unread])
            for made, (loss, norm) in zip(self.unread, figures.tolist(), strict=True):
                self._look(made, loss, norm)
            self.unread = []
        readings, self.readings = self.readings, []
        return readings

    def state(self) -> dict[str, Any] | None:
        """What a checkpoint must hold for fp16 to go on exactly; None in other precisions."""
        if not self.scaler:
            return None
        own = {"skipped": self.skipped, "in_a_row": self.in_a_row}
        return {**self.scaler.state_dict(), **own}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a state; from None, which other precisions leave, as if at the beginning."""
        if self.scaler and state:
            self.scaler.load_state_dict(dict(state))
            self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]

    def _step_by_flag(self, made: Made) -> None:
        """The optimizer's step, left out by the device itself where it must be."""
        overflow = ~made.norm.isfinite()
        bad = ~made.loss.isfinite()
        self.broken = torch.maximum(self.broken, (bad if self.scaler else bad | overflow).float())
        flag = torch.maximum(self.broken, overflow.float())
        self.optimizer.found_inf = flag  # type: ignore[attr-defined]
        self.optimizer.step()
        del self.optimizer.found_inf  # type: ignore[attr-defined]

    def _look(self, made: Made, loss: float, norm: float) -> bool:
        """Whether the step is one to make; its reading is kept. Raises UserError as `read`."""
        good = math.isfinite(norm)
        if not math.isfinite(loss) or not (good or self.scaler):
            raise UserError(not_finite(made.step, loss, norm, made.losses))
        metrics = {"loss": loss, "gradient_norm": norm, "learning_rate": made.rate}
        word = None
        if self.scaler:
            self.in_a_row = 0 if good else self.in_a_row + 1
            self.skipped += not good
            scale = self.scaler.get_scale()
            metrics |= {"loss_scale": scale, "skipped_steps": self.skipped}
            word = None if good else self._skipping(made.step, scale)
        self.readings.append(Reading(made.step, metrics, word))
        return good

    def _skipping(self, step: int, scale: float) -> str:
        message = (
            f"step {step + 1}: a gradient overflowed fp16 (loss scale {scale:g}), so the step is "
            f"skipped and the scale lowered; {self.skipped} skipped in all"
        )
        if self.in_a_row >= MOST_SKIPPED:
            raise UserError(
                f"{message}, {self.in_a_row} of them in a row: no scale helps. Set dtype to bf16 "
                "or fp32, or look whether the base can compute in fp16 at all"
            )
        return message


def can_defer(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
    """Whether waiting costs anything here, and the optimizer leaves a step out by a flag."""
    return device.type == "cuda" and bool(optimizer.defaults.get("fused"))


def learning_rate(step: int, settings: OptimizerSettings, steps: int) -> float:
    """Linear warm-up, then half a cosine down to 0 after the last step."""
    warm_up = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return settings.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / steps))


def not_finite(step: int, loss: float, norm: float, losses: RowLosses) -> str:
    """What is said of a step, counted from 0, whose loss or gradient is not finite."""
    bad = [row for row, loss in losses if not loss.isfinite()] or [row for row, _ in losses]
    first = ", ".join(f"{row.line} ({row.file.name}: {row.text!r})" for row in bad[:3])
    return (
        f"step {step + 1}: loss {loss}, gradient norm {norm} over {len(bad)} rows "
        f"(first: {first}); no weight was changed by it. Lower optimizer.learning_rate, set dtype "
        "to fp32, or look at these rows; the last checkpoint is good"
    )
