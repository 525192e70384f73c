"""A running average of the LoRA's weights, which is often better than the last of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from unskew.errors import UserError

UPDATES = "/updates"
"""Key of the count among the weights' names, none of which begins with a slash."""


@dataclass(frozen=True)
class Average:
    """An exponential moving average of weights."""

    weights: Mapping[str, Tensor]
    """Name -> average; the average's own memory."""
    updates: int
    """Steps that are in it; 0 is the weights as they began."""


def begin_average(parameters: Mapping[str, Parameter]) -> Average:
    """The average before the first step: a copy of the weights."""
    return Average({name: p.detach().clone() for name, p in parameters.items()}, 0)


def decay_at(updates: int, decay: float) -> float:
    """Share of the average that the next update keeps, after this many.

    min(decay, (1 + n) / (10 + n)), the warm-up of TensorFlow's `ExponentialMovingAverage`
    (`num_updates`), without which the untrained weights would stay in it for long.
    """
    return min(decay, (1 + updates) / (10 + updates))


@torch.no_grad()
def update_average(average: Average, parameters: Mapping[str, Parameter], decay: float) -> Average:
    """The average with one more step in it; the memory of the one given is used again."""
    kept = decay_at(average.updates, decay)
    for name, weight in average.weights.items():
        weight.lerp_(parameters[name], 1 - kept)
    return Average(average.weights, average.updates + 1)


def as_saved(
    average: Average | None, parameters: Mapping[str, Parameter]
) -> AbstractContextManager[None]:
    """Inside, the parameters hold what the adapter would: the average, where one is kept."""
    return averaged(average, parameters) if average else nullcontext()


def averaged(average: Average, parameters: Mapping[str, Parameter]) -> AbstractContextManager[None]:
    """Inside, the parameters hold the average; afterwards, bit for bit what they held before."""
    return holding(average.weights, parameters)


@contextmanager
def holding(weights: Mapping[str, Tensor], parameters: Mapping[str, Parameter]) -> Iterator[None]:
    """Inside, the parameters hold these weights; afterwards, bit for bit what they held before."""
    own = {name: p.detach().clone() for name, p in parameters.items()}
    _put(weights, parameters)
    try:
        yield
    finally:
        _put(own, parameters)


def average_state(average: Average) -> dict[str, Tensor]:
    """All of an average as tensors, for a checkpoint."""
    return {**average.weights, UPDATES: torch.tensor(average.updates)}


def restored_average(state: Mapping[str, Tensor], parameters: Mapping[str, Parameter]) -> Average:
    """The average that `average_state` was made of, on the parameters' devices.

    Raises UserError when it is one of other parameters.
    """
    shapes = {name: p.shape for name, p in parameters.items()}
    if {name: t.shape for name, t in state.items() if name != UPDATES} != shapes:
        raise UserError(
            f"the checkpoint's average is of another LoRA ({len(state) - 1} weights, this run "
            f"trains {len(shapes)}): give the lora settings and the base that it was made with"
        )
    weights = {name: state[name].to(p.device, p.dtype, copy=True) for name, p in parameters.items()}
    return Average(weights, int(state[UPDATES]))


@torch.no_grad()
def _put(weights: Mapping[str, Tensor], parameters: Mapping[str, Parameter]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])  # in place: the optimizer holds these very tensors
