"""What a run is watched for: each guard speaks when it should, and only then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn import Parameter

from unskew.attributes import Attribute
from unskew.errors import UserError
from unskew.train.guards import (
    FIRST_STEPS,
    LOSS_PATIENCE,
    LOSS_TIMES,
    SECONDS_PATIENCE,
    USUAL,
    Watch,
    check_gradients,
    check_learning_rate,
    check_loss,
    check_seconds,
    check_trained,
    follow,
    weak_factor,
)
from unskew.train.options import OptimizerSettings
from unskew.train.rows import Kind, Row

figures = st.floats(0, 1e6)


def row(text: str, kind: Kind = "neutral", **values: str) -> Row:
    return Row(1, Path("1.png"), text, kind, "s", values, None, 1.0)


def attribute(id: str, values: Sequence[str], target: Sequence[float]) -> Attribute:
    return Attribute(id, id, tuple(values), np.array(target), "perceived")


def usual(value: float) -> Watch:
    return Watch((value,) * USUAL)


@example([1.0] * USUAL, 20.0, 10.0)
@example([1.0] * USUAL, 10.0, 10.0)
@example([1.0] * (USUAL - 1), 20.0, 10.0)
@example([0.0] * USUAL, 20.0, 10.0)
@given(st.lists(figures, min_size=USUAL - 2, max_size=USUAL + 2), figures, st.floats(1, 100))
def test_far_above_is_over_so_many_medians_of_the_usual(
    before: list[float], value: float, times: float
) -> None:
    """A value is far above exactly when it exceeds times the median of a full record over 0."""
    watch = Watch(tuple(before[-USUAL:]))
    now = follow(watch, value, times)
    middle = median(watch.usual) if watch.usual else 0.0
    far = len(watch.usual) == USUAL and middle > 0 and value > times * middle
    assert now.above == (watch.above + 1 if far else 0)
    assert now.usual == (watch.usual if far else (*watch.usual, value)[-USUAL:])
    assert len(now.usual) <= USUAL


@given(st.lists(st.floats(0.5, 4.9), min_size=1, max_size=200))
def test_a_loss_that_varies_as_batches_do_is_passed_over(losses: list[float]) -> None:
    """Up to ten times apart, no loss is worth a word."""
    watch = Watch()
    for step, loss in enumerate(losses):
        watch, message = check_loss(watch, step, loss)
        assert message is None


def test_a_loss_far_above_the_usual_is_told_once() -> None:
    """The first step of a series gets a word that says how far; the next of it none."""
    watch, message = check_loss(usual(0.1), 99, 5.0)
    assert message == "warning: step 100: loss 5 is 50 times the usual 0.1"
    watch, message = check_loss(watch, 100, 5.0)
    assert message is None
    watch, message = check_loss(watch, 101, 0.1)
    assert (watch.above, message) == (0, None)


def test_a_loss_that_stays_far_above_ends_the_run() -> None:
    """After LOSS_PATIENCE steps in a row, with the step before which checkpoints are good."""
    watch = usual(0.1)
    for step in range(LOSS_PATIENCE - 1):
        watch, _ = check_loss(watch, 100 + step, 5.0)
    with pytest.raises(UserError, match=r"broken down.*checkpoint of before step 101$"):
        check_loss(watch, 100 + LOSS_PATIENCE - 1, 5.0)


@given(st.floats(0.01, 100))
def test_a_loss_that_rises_by_less_than_its_limit_becomes_usual(loss: float) -> None:
    """A new level below LOSS_TIMES the old one is what later losses are compared with."""
    watch = usual(loss)
    for step in range(USUAL):
        watch, message = check_loss(watch, step, loss * (LOSS_TIMES - 1))
        assert message is None
    assert check_loss(watch, USUAL, loss * LOSS_TIMES * 2)[1] is None


def test_slow_steps_are_told_once_when_they_last() -> None:
    """Not for a few of them, and not again while they go on."""
    watch = usual(1.0)
    messages = []
    for step in range(3 * SECONDS_PATIENCE):
        watch, message = check_seconds(watch, step, 4.0)
        messages.append(message)
    told = [place for place, message in enumerate(messages) if message]
    assert told == [SECONDS_PATIENCE - 1]
    assert "the GPU's memory has run over" in str(messages[told[0]])
    watch, message = check_seconds(watch, 99, 1.0)
    assert (watch.above, message) == (0, None)


def test_a_gradient_of_nothing_but_zeros_ends_the_run() -> None:
    """Five zeros from the first step on; one other among them, or fewer, say nothing."""
    with pytest.raises(UserError, match="gradient was 0 at every weight for 5 steps"):
        check_gradients([0.0] * FIRST_STEPS)
    check_gradients([0.0] * (FIRST_STEPS - 1))
    check_gradients([0.0] * (FIRST_STEPS - 1) + [1e-9])
    check_gradients([1.0] + [0.0] * 2 * FIRST_STEPS)


def test_a_run_that_trains_nothing_is_refused() -> None:
    """No weight, or only frozen ones, is an error that names the setting; else their number."""
    frozen = Parameter(torch.ones(2, 3), requires_grad=False)
    for nothing in ({}, {"one": frozen}):
        with pytest.raises(UserError, match=r"lora.target_modules \('to_x',\) trains no weight"):
            check_trained(nothing, ("to_x",))
    assert check_trained({"one": Parameter(torch.ones(2, 3)), "two": frozen}, "attention") == 6


def test_another_learning_rate_than_asked_is_an_error() -> None:
    """Every group must have exactly the rate that the step was to be done with."""
    optimizer = torch.optim.AdamW(
        [
            {"params": [Parameter(torch.ones(1))], "lr": 0.1},
            {"params": [Parameter(torch.ones(1))], "lr": 0.2},
        ]
    )
    with pytest.raises(UserError, match=r"learning rate is 0\.2, but 0\.1 was asked for"):
        check_learning_rate(optimizer, 0.1)
    optimizer.param_groups[1]["lr"] = 0.1
    check_learning_rate(optimizer, 0.1)


def test_a_rate_where_prodigy_wants_a_factor_gets_a_word() -> None:
    """Only prodigy, and only under a tenth."""
    plain = {"warmup_steps": 0, "weight_decay": 0.0, "clip_norm": 1.0}

    def word(kind: str, rate: float) -> str | None:
        given = {**plain, "kind": kind, "learning_rate": rate}
        return weak_factor(OptimizerSettings.model_validate(given))

    assert "0.002 leaves little of it: set it to 1.0" in str(word("prodigy", 2e-3))
    assert word("prodigy", 1.0) is None
    assert word("adamw", 2e-3) is None
