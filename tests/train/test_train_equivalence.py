"""Ways to the same adapter: what saves memory or time changes nothing but the last digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unskew.adapters import WEIGHTS_FILE
from unskew.kohya import KOHYA_FILE
from unskew.noise import cell_generator
from unskew.pipelines import load_base
from unskew.train.inputs import Inputs
from unskew.train.objective import draw_part
from unskew.train.training import Training

Argv = Callable[..., list[str]]
Load = Callable[[list[str]], tuple[Training, Inputs]]
CheckAlike = Callable[[Training, Path, Path], None]


@pytest.mark.slow
def test_every_way_trains_the_same(
    argv: Argv, load: Load, attempts: Any, check_alike: CheckAlike, tmp_path: Path
) -> None:
    """A batch in two or three parts, and blocks that are computed twice, end in one adapter."""
    training, _ = load(argv(tmp_path / "untrained"))
    ways: dict[str, tuple[str, ...]] = {
        "two parts": ("--batch.accumulation", "2"),
        "three parts": ("--batch.accumulation", "3"),
        "checkpointing": ("--memory.gradient_checkpointing", "on"),
    }
    assert attempts.run(argv(tmp_path / "plain")) == 0
    for name, words in ways.items():
        assert attempts.run(argv(tmp_path / name, *words)) == 0
        check_alike(training, tmp_path / "plain", tmp_path / name)


@pytest.mark.slow
def test_a_filled_cache_trains_to_the_same_bits(argv: Argv, attempts: Any, tmp_path: Path) -> None:
    """The run that encodes and one that reads what that left write the same files."""
    words = ("--pictures.horizontal_flip", "True", "--cache", str(tmp_path / "fresh"))
    for name, said in (("first", " 0 found"), ("second", "0 pictures encoded, ")):
        assert attempts.run(argv(tmp_path / name, *words)) == 0
        assert said in attempts.said()
    for file in (WEIGHTS_FILE, KOHYA_FILE):
        one, other = (tmp_path / name / "adapter" / file for name in ("first", "second"))
        assert one.read_bytes() == other.read_bytes()


def test_latents_are_those_of_encoding_at_every_step(
    argv: Argv, load: Load, tiny_base: Path, tmp_path: Path
) -> None:
    """With the posterior's noise of its row and step, the VAE says live what the cache does.

    Up to what a batch of another size rounds, one by one or all of a step's pictures at once:
    which kernel a convolution takes depends on the batch, and on the processor.
    """
    load(argv(tmp_path / "run"))
    training, _ = load(argv(tmp_path / "run"))  # reads what the first has encoded
    assert training.deal.encoded.work.pictures_made == 0
    rows, places = training.batches.rows(3), list(range(training.batches.size))
    cached = draw_part(rows, places, 3, training.deal)
    vae = load_base(tiny_base, torch.device("cpu"), torch.float32).vae
    pixels = torch.stack([pixels_chw(row.file) for row in cached.rows])
    with torch.no_grad():
        posteriors = [vae.encode(picture[None]).latent_dist for picture in pixels]
        together = vae.encode(pixels).latent_dist
    mean, std = (
        torch.cat([getattr(posterior, name) for posterior in posteriors])
        for name in ("mean", "std")
    )
    scale = vae.config.scaling_factor
    generators = [cell_generator(f"training step 3 place {place}", 0) for place in places]
    eps = torch.stack([torch.randn(mean.shape[1:], generator=chance) for chance in generators])
    for live in ((mean + std * eps) * scale, (together.mean + together.std * eps) * scale):
        torch.testing.assert_close(live, cached.latents_bchw, atol=1e-5, rtol=1e-5)


def pixels_chw(file: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(file), np.float32)).permute(2, 0, 1) / 127.5 - 1
