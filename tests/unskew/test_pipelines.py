"""Loading a base: what is refused before any weight is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unskew.bases import resolve_base
from unskew.errors import UserError
from unskew.pipelines import base_sha256, check_base, choose_dtype, load_base


def test_the_embedded_base_loads_and_fits_its_size() -> None:
    """At most 20 MB, a plain Stable Diffusion folder, gradients off."""
    folder = resolve_base("emoji-world")
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) <= 20e6
    pipe = load_base(folder, torch.device("cpu"), torch.float32)
    assert not any(p.requires_grad for p in pipe.unet.parameters())
    assert pipe.unet.config.in_channels == 8


def _rename(base: Path) -> None:
    weights = next((base / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))


def _class(base: Path) -> None:
    index = json.loads((base / "model_index.json").read_text())
    (base / "model_index.json").write_text(
        json.dumps(index | {"_class_name": "StableDiffusion3Pipeline"})
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda base: (base / "model_index.json").unlink(), "no model_index.json"),
        (lambda base: shutil.rmtree(base / "vae"), "lacks vae"),
        (_rename, "safetensors"),
        (_class, "StableDiffusion3Pipeline"),
    ],
)
def test_a_folder_that_is_no_base_is_refused(
    tiny_base: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    """Each lack has its own message, and pickled weights are never read."""
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    spoil(base)
    with pytest.raises(UserError, match=message):
        check_base(base)


def test_the_hash_of_a_base_changes_with_any_of_its_files(tiny_base: Path, tmp_path: Path) -> None:
    """A base is known by its weights, configuration and tokenizer."""
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    before = base_sha256(base)
    assert before == base_sha256(tiny_base)
    with (base / "scheduler" / "scheduler_config.json").open("a") as file:
        file.write("\n")
    assert base_sha256(base) != before


def test_the_chosen_precision_says_why() -> None:
    """The reason is part of the choice."""
    dtype, reason = choose_dtype(torch.device("cpu"))
    assert reason.startswith({torch.bfloat16: "bf16 (", torch.float32: "fp32 ("}[dtype])
