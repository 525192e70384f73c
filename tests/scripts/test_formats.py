"""Promises of the comparison of an adapter's two files, for every kind of adapter."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from unskew.adapters import adapter_weights, attach, save_adapter
from unskew.families import family_of
from unskew.kohya import KOHYA_FILE, LoraScale, kohya_weights, save_kohya
from unskew.pipelines import load_base
from unskew.scripts.formats import format_differences

RANK, ALPHA = 4, 10
KINDS = ((), ("use_rslora",), ("use_dora",))


@pytest.fixture(scope="module", params=["tiny_base", "tiny_sdxl_base"])
def pipe(request: pytest.FixtureRequest) -> Any:
    """A base of each family; never changed."""
    base: Path = request.getfixturevalue(request.param)
    return load_base(base, torch.device("cpu"), torch.float32, without=("vae",))


def both_files(folder: Path, pipe: Any, **options: bool) -> tuple[Path, Path]:
    """An adapter on copies of UNet and text encoders, written as training writes it."""
    family = family_of(pipe)
    models = {name: copy.deepcopy(getattr(pipe, name)) for name in ("unet", *family.ENCODERS)}
    torch.manual_seed(0)
    parameters = attach(models, rank=RANK, alpha=ALPHA, target_modules="all_linear", **options)
    for parameter in parameters.values():
        torch.nn.init.normal_(parameter, std=0.1)
    own = save_adapter(folder, models, {})
    scales = dict.fromkeys(models, LoraScale(RANK, ALPHA, options.get("use_rslora", False)))
    weights = kohya_weights(adapter_weights(models), scales, family.NAME)
    return own, save_kohya(folder / KOHYA_FILE, weights, {})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "".join(kind) or "plain")
def test_the_files_of_one_adapter_are_one(pipe: Any, tmp_path: Path, kind: tuple[str, ...]) -> None:
    """UNet and text encoders, alpha != rank; and one weight that differs is named."""
    own, kohya = both_files(tmp_path, pipe, **dict.fromkeys(kind, True))
    base = family_of(pipe).NAME
    assert format_differences(own, kohya, base) == []
    tensors = safetensors.torch.load_file(kohya)
    key = max(key for key in tensors if key.startswith("lora_te") and key.endswith("up.weight"))
    tensors[key][0, 0] += 1
    safetensors.torch.save_file(tensors, kohya)
    assert format_differences(own, kohya, base) == [f"1 weights differ (first: {key})"]


def test_a_file_without_its_alpha_is_told(pipe: Any, tmp_path: Path) -> None:
    """Readers would take alpha = rank, which is another strength."""
    own, kohya = both_files(tmp_path, pipe)
    safetensors.torch.save_file(safetensors.torch.load_file(own), own)
    [problem] = format_differences(own, kohya, family_of(pipe).NAME)
    assert "says nothing of its rank and alpha" in problem
