"""Which weights the adapter is made of, and when a target has been reached and held.

The rule is declared before a run and knows nothing but readings of the validation suite: the best
is the one with the lowest imbalance, averaged over the suite's attributes; of equal ones the later.
So it is a function of the readings, which every checkpoint holds together with the best one's
weights: a run that was killed goes on to the same end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Parameter

from unskew.train.options import TrainSettings, ValidationSettings

SCORES = "/scores"
"""Key of the scores among the weights' names, none of which begins with a slash."""


@dataclass(frozen=True)
class Score:
    """What the rule knows of one reading."""

    step: int
    mean: float
    """Imbalance, the mean over attributes; inf where a reading could not be judged."""
    highest: float
    """That of the attribute furthest from its target; inf likewise."""


@dataclass(frozen=True)
class Choice:
    """The readings so far, and the weights of the best."""

    scores: tuple[Score, ...] = ()
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    """Name -> weight as it was at the best reading, on the CPU; empty where none is chosen."""

    @property
    def best(self) -> Score | None:
        """The best reading that could be judged."""
        judged = [score for score in self.scores if math.isfinite(score.mean)]
        return min(judged, key=lambda score: (score.mean, -score.step), default=None)

    def held(self, stop_at: float) -> int:
        """Readings in a row, up to now, in which no attribute was over `stop_at`."""
        missed = [n for n, score in enumerate(self.scores) if not score.highest <= stop_at]
        return len(self.scores) - 1 - max(missed, default=-1)

    def ends(self, settings: ValidationSettings) -> bool:
        """Whether the target has been reached and held, so that training may end."""
        return settings.stop_at > 0 and self.held(settings.stop_at) >= settings.stop_held

    def last_step(self, settings: TrainSettings) -> int:
        """How many steps the run takes, as far as is known now."""
        return self.scores[-1].step if self.ends(settings.validation) else settings.steps

    def adapter_step(self, settings: TrainSettings) -> int:
        """The step whose weights the adapter is made of, at the end of the run."""
        return self.best.step if self.weights and self.best else self.last_step(settings)


def with_score(
    choice: Choice, score: Score, parameters: Mapping[str, Parameter], settings: ValidationSettings
) -> Choice:
    """The choice after one more reading, taken of these weights."""
    now = Choice((*choice.scores, score), choice.weights)
    if settings.choose == "last" or now.best is not score:
        return now
    return Choice(
        now.scores, {name: p.detach().to("cpu", copy=True) for name, p in parameters.items()}
    )


def choice_state(choice: Choice) -> dict[str, Tensor]:
    """All of a choice as tensors, for a checkpoint."""
    scores = [(score.step, score.mean, score.highest) for score in choice.scores]
    return {**choice.weights, SCORES: torch.tensor(scores, dtype=torch.float64).reshape(-1, 3)}


def restored_choice(state: Mapping[str, Tensor] | None, settings: ValidationSettings) -> Choice:
    """The choice that `choice_state` was made of; that of no reading where there is none.

    Of a checkpoint of another run, whose best weights were not kept, the readings do not count.
    """
    if state is None:
        return Choice()
    scores = tuple(Score(int(s), mean, highest) for s, mean, highest in state[SCORES].tolist())
    if settings.choose == "last":
        return Choice(scores)
    choice = Choice(scores, {name: t for name, t in state.items() if name != SCORES})
    return choice if choice.weights or not choice.best else Choice()
