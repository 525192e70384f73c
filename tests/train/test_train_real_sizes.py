"""The published architectures with random weights: one step, and a picture.

Stable Diffusion 1.5 is whole. SDXL has its own widths, but its UNet and second text encoder are cut
short (see SHALLOW), so that they fit a small machine; at full depth they are tried on the meta
device, which has shapes but no numbers. The tokenizer is Emoji World's, and pictures have 64 px,
latents 8 x 8.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch

from unskew.adapters import WEIGHTS_FILE, attach, load_adapter
from unskew.evaluate.generate import Cell, Sampler, TextStates, draw_batch
from unskew.kohya import KOHYA_FILE, Base, LoraScale, kohya_weights
from unskew.pipelines import load_base
from unskew.prompts import Prompt, prompt_id
from unskew.runs import read_manifest
from unskew.scripts import bench_bases
from unskew.scripts.bench_bases import CLIP_BIG_G, SDXL_UNET, Size, models_of, write_base
from unskew.settings import run_program
from unskew.train import lora

Argv = Callable[..., list[str]]
SHALLOW: dict[str, dict[str, Any]] = {
    "SDXL_UNET": {**SDXL_UNET, "layers_per_block": 1, "transformer_layers_per_block": (1, 1, 1)},
    "CLIP_BIG_G": {**CLIP_BIG_G, "num_hidden_layers": 2},
}
"""SDXL with one layer in a block instead of 2, transformers 1 deep instead of 1, 2 and 10, and a
second text encoder of 2 layers instead of 32."""
PARAMETERS = {
    "sd15": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sdxl": {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
}
"""Of the models on the hub."""
FAMILIES: dict[Size, Base] = {"sd15": "sd", "sdxl": "sdxl"}
VERSIONS = {"sd15": "sd_v1", "sdxl": "sdxl_base_v1-0"}
PREFIXES = {"sd15": {"unet", "te"}, "sdxl": {"unet", "te1", "te2"}}
COMPONENTS = {"sd15": ("unet", "text_encoder"), "sdxl": ("unet",)}


@pytest.fixture
def three_pictures(tiny_dataset: Path, tmp_path: Path) -> Path:
    """A mechanic of each presentation: a VAE of the real size takes a second for each picture."""
    folder = Path(shutil.copytree(tiny_dataset, tmp_path / "three"))
    lines = (folder / "metadata.jsonl").read_text("utf-8").splitlines(keepends=True)
    rows = [(line, json.loads(line)) for line in lines]
    few = [line for line, r in rows if r["subject"] == "mechanic" and r["skin_tone"] == "tan"]
    (folder / "metadata.jsonl").write_text("".join(few), "utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("size", VERSIONS)
def test_a_base_of_the_real_size_trains_and_draws(
    size: Size,
    three_pictures: Path,
    argv: Argv,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One step, proved on a fresh base, named right in both files, and able to draw."""
    for name, numbers in SHALLOW.items():
        monkeypatch.setattr(bench_bases, name, numbers)
    # weights in the file's own order stay on its pages, which all who load it share
    monkeypatch.setattr(torch, "channels_last", torch.contiguous_format)
    base, out = tmp_path / "base", tmp_path / "run"
    write_base(size, base, torch.float32)
    settings = (
        *("--base", str(base), "--dataset", str(three_pictures), "--attributes", "presentation"),
        *("--resolution_px", "64", "--steps", "1", "--lora.components", *COMPONENTS[size]),
        *("--batch.size", "2", "--batch.control_share", "0", "--checkpoints.keep", "1"),
    )
    assert run_program(lora.main, argv(out, *settings)) == 0
    facts = read_manifest(out)["facts"]
    assert facts["effect"] > 0 and facts["difference"] <= 1e-6
    with safetensors.safe_open(out / "adapter" / KOHYA_FILE, "pt") as file:
        assert file.metadata()["ss_base_model_version"] == VERSIONS[size]
    drawn = load_base(base, torch.device("cpu"), torch.float32)
    load_adapter(drawn, out / "adapter" / WEIGHTS_FILE, "a")
    text = "a mechanic"
    cell = Cell(Prompt(prompt_id(text), text, "s", "x", (), {"subject": "x"}), 0)
    sampler = Sampler(steps=2, guidance=5.0, resolution_px=64, batch=1)
    picture = draw_batch(drawn, [cell], sampler, TextStates(drawn, True)([text]))
    assert picture.shape == (1, 64, 64, 3)
    assert np.unique(picture).size > 10


@pytest.mark.parametrize("size", PARAMETERS)
def test_random_bases_are_of_the_published_sizes(size: Size) -> None:
    """Every model has as many parameters as the one on the hub."""
    with torch.device("meta"):
        models = models_of(size)
    counts = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    assert counts == PARAMETERS[size]


@pytest.mark.parametrize("targets", ["attention", "with_convolutions"])
@pytest.mark.parametrize("size", PARAMETERS)
def test_every_module_at_full_depth_has_a_name_in_kohyas_file(size: Size, targets: str) -> None:
    """UNet and all text encoders get a LoRA, and no weight of it is lost or shares a name."""
    with torch.device("meta"):
        models = {name: model for name, model in models_of(size).items() if name != "vae"}
        parameters = attach(models, rank=4, alpha=4, target_modules=targets)
    weights = {key.replace(".default.", "."): p for key, p in parameters.items()}
    named = kohya_weights(weights, dict.fromkeys(models, LoraScale(4, 4)), FAMILIES[size])
    assert {name.split("_")[1] for name in named} == PREFIXES[size]
    halves = [name for name in named if not name.endswith(".alpha")]
    assert len(halves) == len(weights) == 2 * (len(named) - len(halves))
