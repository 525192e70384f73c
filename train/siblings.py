"""What else a noisy picture could have been: the same target in expectation, at less variance.

A neutral row learns what the base predicts when it is told the picture's own values. But of a noisy
picture nobody can tell which of the subject's pictures it was, so the UNet can learn no more than
the mean over all that it could have been, and which one it happened to be is noise in the gradient.
How likely each is, is known: it is the posterior of a mixture of Gaussians around the pictures that
share the caption. Per row, `shift_chw` moves the target by

    E[x0 | noisy picture] - E[x0 | noisy picture, the row's own values],

whose mean over the pictures it could have been is 0: a control variate. Where the base draws a
value as the pictures do, all pictures then have one target. For the plain denoising target this is
the stable target field of Xu, Tong and Jaakkola (2023, arXiv:2302.00670). A caption that no other
picture shares is left as it is.

Shape legend: n siblings, c latent channels, h w latent height and width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from unskew.train.batches import Deck
from unskew.train.cache import Encoded
from unskew.train.rows import Row
from unskew.transfer import to_device

Kin = tuple[str, str, tuple[int, ...]]
"""Subject, text and latents' shape: what neutral rows share when nothing but the picture tells
them apart."""

MOST_SIBLINGS = 500
"""A caption of more pictures is left as it is: comparing a row with each would cost too much."""


@dataclass(frozen=True)
class Siblings:
    """The pictures that one neutral caption is dealt with."""

    latents_n: tuple[Tensor, ...]
    """(c, h, w) means of their posteriors; views: a picture with many captions is held once."""
    log_rates_n: Tensor
    """Log of how often each is dealt, times its row's weight; up to a constant."""
    values: tuple[Mapping[str, str], ...]
    """The attributes' values of each."""

    @classmethod
    def of(cls, rows: Sequence[tuple[Row, float]], encoded: Encoded) -> Self:
        """These rows of one caption, each with the rate at which it is dealt."""
        return cls(
            tuple(encoded.posteriors[row.file][0] for row, _ in rows),
            torch.tensor([rate * row.weight for row, rate in rows]).clamp(min=1e-30).log(),
            tuple(row.values for row, _ in rows),
        )

    def shift_chw(self, noisy_chw: Tensor, values: Mapping[str, str], alpha_bar: Tensor) -> Tensor:
        """E[x0 | noisy] - E[x0 | noisy, values] over the siblings, in latents; 0 for an only child.

        `alpha_bar` is the schedule's share of signal variance at the row's timestep, 0 to 1.
        """
        device = noisy_chw.device
        latents_nchw = to_device(torch.stack(self.latents_n), device)
        distance_n = (noisy_chw - alpha_bar.sqrt() * latents_nchw).square().flatten(1).sum(1)
        evidence_n = to_device(self.log_rates_n, device) - distance_n / (2 * (1 - alpha_bar))
        own_n = to_device(torch.tensor([kin == values for kin in self.values]), device)
        any_n = evidence_n.softmax(0)
        same_n = evidence_n.where(own_n, -torch.inf).softmax(0)
        return ((any_n - same_n)[:, None, None, None] * latents_nchw).sum(0)


def kin_of(row: Row, encoded: Encoded) -> Kin:
    """What a neutral row shares with its siblings."""
    return row.subject, row.text, tuple(encoded.posteriors[row.file].shape)


def find_siblings(decks: Sequence[Deck], encoded: Encoded) -> dict[Kin, Siblings]:
    """The siblings of every neutral caption, at the rates at which the decks deal them.

    Left out are pictures that are not encoded (a dry run's) and captions of over MOST_SIBLINGS.
    """
    dealt: dict[Kin, list[tuple[Row, float]]] = {}
    for deck in decks:
        for combination, rows in deck.rows.items():
            rate = deck.cards.count(combination) / len(deck.cards) / len(rows)
            for row in rows:
                if row.file in encoded.posteriors:
                    dealt.setdefault(kin_of(row, encoded), []).append((row, rate))
    return {
        caption: Siblings.of(rows, encoded)
        for caption, rows in dealt.items()
        if len(rows) <= MOST_SIBLINGS
    }


def in_target(scheduler: SchedulerMixin, shift_chw: Tensor, alpha_bar: Tensor) -> Tensor:
    """A shift of x0 as a shift of what the UNet predicts: of the noise, or of the velocity."""
    noise_scale = (1 - alpha_bar).sqrt()
    if scheduler.config.prediction_type == "epsilon":
        return -shift_chw * alpha_bar.sqrt() / noise_scale
    return -shift_chw / noise_scale
