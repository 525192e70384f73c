"""Sample grids show what the adapter does and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unskew.adapters import attach
from unskew.evaluate.generate import _decoding_in_slices
from unskew.pipelines import load_base
from unskew.settings import config_path, resolve
from unskew.train.cache import Encoded, encode
from unskew.train.inputs import check_inputs, describe
from unskew.train.options import SampleSettings, TrainSettings
from unskew.train.samples import CAPTION_PX, draw_grid
from unskew.train.training import decode_exactly

SETTINGS = SampleSettings(
    every=1, prompts=("a mechanic", "a red apple"), seeds=3, steps=2, guidance=2.0
)


def grid(pipe: Any, encoded: Encoded, file: Path) -> np.ndarray:
    draw_grid(pipe, encoded.texts, SETTINGS, 16, file)
    return np.asarray(Image.open(file))


def test_a_grid_has_fixed_noise(tiny_base: Path, tmp_path: Path) -> None:
    """Drawn twice it has the same bits; a changed adapter changes the pictures only."""
    pipe = load_base(tiny_base, torch.device("cpu"), torch.float32)
    encoded = encode(pipe, tiny_base, [], [*SETTINGS.prompts, ""], 16, None)
    pipe.text_encoder = None  # as in training
    pipe.vae.encoder = None
    parameters = attach({"unet": pipe.unet}, rank=2, alpha=2, target_modules="attention")
    first = grid(pipe, encoded, tmp_path / "1.png")
    assert first.shape == (2 * (16 + CAPTION_PX), 3 * 16, 3)
    assert np.array_equal(grid(pipe, encoded, tmp_path / "2.png"), first)
    for parameter in parameters.values():
        parameter.data = torch.ones_like(parameter)
    other = grid(pipe, encoded, tmp_path / "3.png")
    assert np.array_equal(other[:CAPTION_PX], first[:CAPTION_PX])
    assert not np.array_equal(other[CAPTION_PX:], first[CAPTION_PX:])


def test_a_person_can_look_the_data_over(tiny_base: Path, tiny_dataset: Path) -> None:
    """Counts, the rates that are dealt, and captions that the text model would cut."""
    words = ["--base", str(tiny_base), "--dataset", str(tiny_dataset), "--steps", "50"]
    words += ["--targets.presentation", "{woman: 0.5, man: 0.25, person: 0.25}"]
    settings = resolve(
        TrainSettings,
        words,
        default_config=config_path("emoji/train.yaml"),
        prog="",
        description="",
    ).settings
    inputs = check_inputs(settings)
    said = describe(settings, inputs)
    assert "63 rows, 33 pictures" in said
    assert "presentation in 50 steps: woman 50." in said
    assert "season in 50 steps: on no neutral row" in said
    assert "cut at" not in said
    inputs.rows[2].__dict__["text"] = "word " * 30
    assert "1 captions are cut at 24 tokens (first: row 3: word" in describe(settings, inputs)


def test_a_vae_in_fp32_decodes_what_samplers_hand_over(tiny_base: Path) -> None:
    """In fp32 under autocast, from half latents too, and still so after a study's drawing."""
    pipe = load_base(tiny_base, torch.device("cpu"), torch.float32)
    channels = pipe.vae.config.latent_channels
    latents = torch.randn(2, channels, 4, 4).bfloat16()
    with torch.no_grad():
        expected = pipe.vae.decode(latents.float()).sample
        decode_exactly(pipe.vae)
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16), _decoding_in_slices(pipe.vae):
                [found] = pipe.vae.decode(latents, return_dict=False)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, expected)
