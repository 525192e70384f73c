"""The weights' running average: the formula, and that nothing is lost by looking at it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Parameter

from unskew.errors import UserError
from unskew.train.average import (
    Average,
    average_state,
    averaged,
    begin_average,
    decay_at,
    restored_average,
    update_average,
)
from unskew.train.checkpoints import load_average, save_checkpoint

Parameters = dict[str, Parameter]


def parameters(seed: int, rank: int = 2) -> Parameters:
    generator = torch.Generator().manual_seed(seed)
    return {
        "one.lora_A": Parameter(torch.randn(rank, 3, generator=generator)),
        "one.lora_B": Parameter(torch.randn(3, rank, generator=generator)),
    }


def follow(average: Average, weights: Parameters, steps: range, decay: float) -> Average:
    """The average over these steps, at each of which the weights are others."""
    for step in steps:
        for name, parameter in weights.items():
            parameter.data.copy_(parameters(100 + step)[name])
        average = update_average(average, weights, decay)
    return average


@pytest.mark.parametrize("decay", [0.0, 0.15, 0.999])
def test_the_average_is_the_sum_of_what_each_step_keeps(decay: float) -> None:
    """Weights w_0 .. w_n come with the product of all later decays, times 1 - their own."""
    start = parameters(0)
    average = follow(begin_average(start), start, range(20), decay)
    decays = [min(decay, (1 + n) / (10 + n)) for n in range(20)]
    for name, found in average.weights.items():
        expected = np.prod(decays) * parameters(0)[name].detach().numpy().astype(np.float64)
        for n in range(20):
            later = parameters(100 + n)[name].detach().numpy()
            expected += np.prod(decays[n + 1 :]) * (1 - decays[n]) * later
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert average.updates == 20


@given(st.integers(0, 10**9), st.floats(0, 1, exclude_max=True))
def test_decay_rises_to_what_is_asked(updates: int, decay: float) -> None:
    """A tenth at first, never over the decay, and the decay itself in the end."""
    assert decay_at(0, decay) == min(decay, 0.1)
    assert decay_at(updates, decay) <= decay_at(updates + 1, decay) <= decay
    assert decay_at(10**18, decay) == decay


def test_the_average_does_not_move_with_the_weights() -> None:
    """It has memory of its own."""
    weights = parameters(0)
    average = begin_average(weights)
    weights["one.lora_A"].data.zero_()
    assert torch.equal(average.weights["one.lora_A"], parameters(0)["one.lora_A"])


def test_inside_are_the_averages_and_afterwards_the_same_weights() -> None:
    """Bit for bit and in the same memory, even when what is done inside fails."""
    weights = parameters(1)
    average = begin_average(parameters(0))
    memory = {name: p.data_ptr() for name, p in weights.items()}
    with pytest.raises(ZeroDivisionError), averaged(average, weights):
        for name, parameter in weights.items():
            assert torch.equal(parameter, parameters(0)[name])
        weights["one.lora_A"].data.zero_()
        raise ZeroDivisionError
    for name, parameter in weights.items():
        assert torch.equal(parameter, parameters(1)[name])
        assert torch.equal(average.weights[name], parameters(0)[name])
        assert parameter.requires_grad
    assert {name: p.data_ptr() for name, p in weights.items()} == memory


def test_an_average_goes_on_exactly(tmp_path: Path) -> None:
    """Six steps equal three, a checkpoint, and three in another process's objects."""
    weights = parameters(0)
    whole = follow(begin_average(weights), weights, range(6), 0.999)
    weights = parameters(0)
    half = follow(begin_average(weights), weights, range(3), 0.999)
    optimizer = torch.optim.AdamW(list(weights.values()))
    saved = save_checkpoint(tmp_path, 3, weights, optimizer, 1, average_state(half))
    state = load_average(saved)
    assert state is not None
    other = parameters(7)
    resumed = follow(restored_average(state, other), other, range(3, 6), 0.999)
    assert resumed.updates == whole.updates
    for name in weights:
        assert torch.equal(resumed.weights[name], whole.weights[name])


def test_a_checkpoint_without_an_average_has_none(tmp_path: Path) -> None:
    """Runs that keep no average write none."""
    weights = parameters(0)
    optimizer = torch.optim.AdamW(list(weights.values()))
    assert load_average(save_checkpoint(tmp_path, 1, weights, optimizer, 1)) is None


def test_another_loras_average_is_refused() -> None:
    """An average of another rank does not load."""
    state = average_state(begin_average(parameters(0)))
    with pytest.raises(UserError, match="average is of another LoRA"):
        restored_average(state, parameters(0, rank=3))
