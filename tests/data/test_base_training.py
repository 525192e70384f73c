"""Training the embedded base: what it is shown, and that a stopped run goes on in place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unskew.data.emoji_world.art import drawings
from unskew.data.emoji_world.base_parts import build_scheduler, build_tokenizer
from unskew.data.emoji_world.base_training import (
    BaseSettings,
    CaptionedDeck,
    load_ema,
    train_diffusion,
    train_vae,
)
from unskew.data.emoji_world.world import load_world
from unskew.errors import UserError

WORLD = load_world()
FEW = replace(
    WORLD, subjects=WORLD.subjects[:3], controls=WORLD.controls[:3], scenes=WORLD.scenes[:2]
)
"""Encoding a thousand pictures takes longer than all that is done with them here."""
SMALL = BaseSettings(
    vae_steps=4, vae_batch=2, diffusion_steps=4, settle_steps=1, batch=2, checkpoint_every=2
)


def test_what_is_shown_follows_the_planted_rates_where_the_caption_is_silent() -> None:
    """Neutral captions carry a subject's planted skew; named values come equally often."""
    art = list(drawings(WORLD))
    deck = CaptionedDeck(WORLD, art, BaseSettings())
    rng = np.random.default_rng(0)
    shown: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for _ in range(30_000):
        row, caption = deck.draw(rng, 0.7)
        drawing = art[row]
        if caption and "presentation" in drawing.values:
            value = drawing.values["presentation"]
            words = WORLD.values["presentation"][value]
            shown[f" {words} " in f" {caption} "].append((drawing.thing.id, value))
    planted = {s.id: s.shares["presentation"][1] for s in WORLD.subjects}
    silent = [(value == "man") - planted[thing] for thing, value in shown[False]]
    named = np.mean([value == "man" for _, value in shown[True]])
    assert abs(np.mean(silent)) < 4 * np.std(silent) / np.sqrt(len(silent))
    assert named == pytest.approx(1 / 3, abs=0.02)


def test_the_last_timestep_is_pure_noise() -> None:
    """Nothing of the picture is left to decide presentation or tone before the words do."""
    scheduler = build_scheduler()
    picture = torch.full((1, 8, 8, 8), 5.0)
    noise = torch.randn(1, 8, 8, 8)
    noisy = scheduler.add_noise(picture, noise, torch.tensor([999]))
    assert torch.allclose(noisy, noise, atol=1e-6)


@pytest.mark.slow
def test_captions_turn_neutral_while_the_learning_rate_falls(tmp_path: Path) -> None:
    """The last quarter of the steps draws at the last explicit share, settling at its own."""
    art = list(drawings(FEW))
    vae = train_vae(np.stack([d.image for d in art]), SMALL, tmp_path)
    tokenizer = build_tokenizer(FEW, tmp_path / "tokenizer")
    asked: list[float] = []
    real = CaptionedDeck.draw

    def draw(
        self: CaptionedDeck, rng: np.random.Generator, explicit_share: float
    ) -> tuple[int, str]:
        asked.append(explicit_share)
        return real(self, rng, explicit_share)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CaptionedDeck, "draw", draw)
        train_diffusion(FEW, art, vae, tokenizer, SMALL, tmp_path)
    first, last = SMALL.explicit_share, SMALL.last_explicit_share
    shares = [first] * 3 + [last] + [SMALL.settle_explicit_share]
    assert asked == [share for share in shares for _ in range(SMALL.batch)]


@pytest.mark.slow
def test_a_stopped_training_of_the_base_ends_in_the_same_place(tmp_path: Path) -> None:
    """Two steps, a stop and two more give the weights of four steps."""
    art = list(drawings(FEW))
    pixels = np.stack([d.image for d in art])
    tokenizer = build_tokenizer(FEW, tmp_path / "tokenizer")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    vae = train_vae(pixels, SMALL, whole)
    _, unet = train_diffusion(FEW, art, vae, tokenizer, SMALL, whole)
    checkpoint = torch.load(whole / "diffusion" / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == 4

    class StoppedError(Exception):
        """Stands for a kill after the first checkpoint."""

    train_vae(pixels, SMALL, stopped)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(CaptionedDeck, "draw", _draws_until(2 * SMALL.batch, StoppedError))
        train_diffusion(FEW, art, vae, tokenizer, SMALL, stopped)
    _, resumed = train_diffusion(FEW, art, vae, tokenizer, SMALL, stopped)
    for (name, a), b in zip(unet.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def _draws_until(count: int, error: type[Exception]) -> object:
    real, drawn = CaptionedDeck.draw, [0]

    def draw(
        self: CaptionedDeck, rng: np.random.Generator, explicit_share: float
    ) -> tuple[int, str]:
        drawn[0] += 1
        if drawn[0] > count:
            raise error
        return real(self, rng, explicit_share)

    return draw


@pytest.mark.slow
def test_a_base_is_assembled_from_the_newest_stage(tmp_path: Path) -> None:
    """Its averages and its steps with those before it; no checkpoint at all is said."""
    art = list(drawings(FEW))
    tokenizer = build_tokenizer(FEW, tmp_path / "tokenizer")
    with pytest.raises(UserError, match="no checkpoint"):
        load_ema(tokenizer, SMALL, tmp_path)
    vae = train_vae(np.stack([d.image for d in art]), SMALL, tmp_path)
    unsettled = replace(SMALL, settle_steps=0)
    train_diffusion(FEW, art, vae, tokenizer, unsettled, tmp_path)
    assert load_ema(tokenizer, SMALL, tmp_path)[0] == 4
    text_encoder, unet = train_diffusion(FEW, art, vae, tokenizer, SMALL, tmp_path)
    steps, loaded_text_encoder, loaded_unet = load_ema(tokenizer, SMALL, tmp_path)
    assert steps == 5
    for trained, loaded in ((text_encoder, loaded_text_encoder), (unet, loaded_unet)):
        for a, b in zip(trained.parameters(), loaded.parameters(), strict=True):
            assert torch.equal(a, b)
