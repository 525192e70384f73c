"""The promise of a bundle: by other programs' rules too, it draws what the study measured."""

from __future__ import annotations

import json
import runpy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from unskew.adapters import WEIGHTS_FILE
from unskew.kohya import KOHYA_FILE
from unskew.noise import cell_noise

MERGED = runpy.run_path(str(Path(__file__).parents[1] / "oracles" / "kohya_reader.py"))["merged"]
LATENT = (8, 8, 8)
ROUNDING = 1
"""Grey levels of 255: plain pipelines encode prompts in a batch, and lay out memory otherwise."""


def plain(base: Path) -> Any:
    """The base in diffusers' own pipeline, as its users load it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = StableDiffusionPipeline.from_pretrained(base)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, told: dict[str, Any]) -> NDArray[np.int64]:
    """(n, h, w, 3) pictures of the bundle's first batch, from its noise, by the plain pipeline."""
    batch = told["batches"][0]
    images = pipe(
        prompt=[cell["text"] for cell in batch],
        negative_prompt=[told["negative_prompt"]] * len(batch),
        latents=cell_noise([(cell["text"], cell["seed"]) for cell in batch], LATENT),
        num_inference_steps=told["steps"],
        guidance_scale=told["guidance"],
        height=told["resolution_px"],
        width=told["resolution_px"],
        output_type="np",
    ).images
    return np.asarray((images * 255).round().clip(0, 255).astype(np.int64))


@pytest.mark.parametrize("how", ["diffusers", "kohya"])
def test_it_draws_what_the_study_measured(
    runs: Any, whole_bundle: Path, tiny_base: Path, how: str
) -> None:
    """In a plain pipeline, and merged by an independent reader of Kohya's format.

    The pictures of the study's adapter arm within rounding, and not the base's; alpha != rank.
    """
    told = json.loads((whole_bundle / "cells" / "cells.json").read_text("utf-8"))
    pipe = plain(tiny_base)
    bare = draw(pipe, told)
    if how == "diffusers":
        pipe.load_lora_weights(str(whole_bundle), weight_name=WEIGHTS_FILE, adapter_name="unskew")
        pipe.set_adapters(["unskew"], [told["arms"]["debiased"]])
    else:
        unet, encoder = MERGED(whole_bundle / KOHYA_FILE, pipe.unet, pipe.text_encoder)
        pipe.register_modules(unet=unet, text_encoder=encoder)
    drawn = draw(pipe, told)
    for n, cell in enumerate(told["batches"][0]):
        name = f"{cell['prompt_id']}/{cell['seed']}.png"
        with Image.open(runs.study / "images" / "debiased" / name) as image:
            studied = np.asarray(image).astype(np.int64)
        assert np.abs(drawn[n] - studied).max() <= ROUNDING
        assert np.abs(bare[n] - studied).max() > 10 * ROUNDING
    assert drawn.shape == (8, 16, 16, 3)
