"""The rule that chooses weights and ends training: nothing but readings, and nothing forgotten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from unskew.train.checkpoints import load_choice, save_checkpoint
from unskew.train.choice import Choice, Score, choice_state, restored_choice, with_score
from unskew.train.options import ValidationSettings

WEIGHTS = {"one.lora_A": Parameter(torch.zeros(2, 3))}


def chosen(means: Sequence[float], **settings: Any) -> Choice:
    choice = Choice()
    for number, mean in enumerate(means, 1):
        WEIGHTS["one.lora_A"].data.fill_(number)
        choice = with_score(
            choice, Score(number, mean, mean), WEIGHTS, ValidationSettings(**settings)
        )
    return choice


@pytest.mark.parametrize(
    ("means", "best"),
    [
        ([0.5, 0.2, 0.3], 2),
        ([0.5, 0.2, 0.2, 0.4], 3),
        ([0.1, -0.1, 0.0], 2),
        ([math.inf, 0.9, math.inf], 2),
    ],
)
def test_the_best_is_the_lowest_and_of_equals_the_later(means: list[float], best: int) -> None:
    """Its weights are kept as they were then; through a checkpoint they come back as they are."""
    settings = ValidationSettings(choose="best")
    for choice in (
        chosen(means, choose="best"),
        restored_choice(choice_state(chosen(means, choose="best")), settings),
    ):
        assert choice.best is not None
        assert choice.best.step == best
        assert choice.weights["one.lora_A"].unique().tolist() == [best]
        assert [score.mean for score in choice.scores] == means
    assert not chosen(means, choose="last").weights
    assert chosen(means, choose="last").best == choice.best


def test_readings_without_their_weights_do_not_count() -> None:
    """A checkpoint of a run that kept no best weights begins a choice of the best anew."""
    state = choice_state(chosen([0.1, 0.2], choose="last"))
    assert restored_choice(state, ValidationSettings(choose="best")) == Choice()
    assert len(restored_choice(state, ValidationSettings(choose="last")).scores) == 2
    assert restored_choice(None, ValidationSettings()) == Choice()
    assert restored_choice(choice_state(Choice()), ValidationSettings(choose="best")) == Choice()


def test_a_target_must_be_held() -> None:
    """So many readings in a row at or under it, of every attribute; one above begins anew."""
    settings = ValidationSettings(stop_at=0.1, stop_held=2)
    assert not chosen([0.1, 0.2, 0.1]).ends(settings)
    assert chosen([0.2, 0.1, 0.05]).ends(settings)
    assert not Choice().ends(settings)
    assert not chosen([0.0, 0.0, 0.0]).ends(ValidationSettings(stop_at=0))
    one_over = Choice(tuple(Score(n, 0.05, 0.2) for n in (1, 2, 3)))
    assert not one_over.ends(settings)
    assert not chosen([math.inf, math.inf]).ends(settings)


def test_a_checkpoint_holds_the_choice(tmp_path: Path) -> None:
    """Sealed with the rest of it, and None where there was none to hold."""
    optimizer = torch.optim.AdamW(list(WEIGHTS.values()))
    choice = chosen([0.2, 0.1], choose="best")
    path = save_checkpoint(tmp_path, 2, WEIGHTS, optimizer, 2, choice=choice_state(choice))
    back = restored_choice(load_choice(path), ValidationSettings(choose="best"))
    assert back.scores == choice.scores
    assert torch.equal(back.weights["one.lora_A"], choice.weights["one.lora_A"])
    assert load_choice(save_checkpoint(tmp_path, 3, WEIGHTS, optimizer, 2)) is None
