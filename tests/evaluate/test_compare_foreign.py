"""An adapter that somebody else made, in Kohya's format, beside one of ours."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from unskew.evaluate.compare import main
from unskew.evaluate.compare_options import CompareSettings
from unskew.evaluate.generate import draw, plan_batches
from unskew.evaluate.inputs import look_over
from unskew.evaluate.lineup import line_up
from unskew.evaluate.schema_comparison import load_comparison
from unskew.pipelines import load_base
from unskew.settings import run_program

ORACLES = Path(__file__).parents[1] / "oracles"
reader = SimpleNamespace(**runpy.run_path(str(ORACLES / "kohya_reader.py")))
RANKS, ALPHAS = (3, 2), (5.0, 2.0, 3.0)


def write_foreign(file: Path, pipe: Any) -> None:
    """A LoRA by Kohya's published names, of the UNet's attention and the text encoder's layers."""
    generator = torch.Generator().manual_seed(3)
    encoder = getattr(pipe.text_encoder, "text_model", pipe.text_encoder)
    places = {
        f"lora_unet_{name.replace('.', '_')}": module
        for name, module in pipe.unet.named_modules()
        if name.endswith(("attn1.to_q", "attn2.to_v", "attn2.to_out.0"))
    }
    for n, layer in enumerate(encoder.encoder.layers):
        for end in ("q_proj", "v_proj"):
            name = f"lora_te_text_model_encoder_layers_{n}_self_attn_{end}"
            places[name] = getattr(layer.self_attn, end)
    tensors = {}
    for n, (name, module) in enumerate(places.items()):
        (out, into), rank = module.weight.shape, RANKS[n % 2]
        tensors[f"{name}.lora_down.weight"] = torch.randn(rank, into, generator=generator) * 0.4
        tensors[f"{name}.lora_up.weight"] = torch.randn(out, rank, generator=generator) * 0.4
        tensors[f"{name}.alpha"] = torch.tensor(ALPHAS[n % 3])
    save_file(tensors, file, {"ss_network_module": "networks.lora"})


@pytest.mark.slow
def test_a_foreign_file_of_kohyas_is_an_arm_as_strong_as_it_says(
    study_in: Callable[..., Path], tiny_base: Path, tmp_path: Path
) -> None:
    """Its pictures are those of weights merged by Kohya's rules; ranks and alphas differ."""
    file = study_in(tmp_path, tiny_base, "unet")
    pipe = load_base(tiny_base, torch.device("cpu"), torch.float32)
    write_foreign(tmp_path / "theirs.safetensors", pipe)
    asked = yaml.safe_load(file.read_text("utf-8"))
    ours = asked["arms"].pop("adapter")["adapter"]
    asked["adapters"] = {
        "ours": {"adapter": ours},
        "theirs": {"adapter": str(tmp_path / "theirs.safetensors")},
    }
    file.write_text(yaml.safe_dump(asked, sort_keys=False), "utf-8")
    assert run_program(main, ["--config", str(file)]) == 0
    places = {place.arm for place in load_comparison(tmp_path / "study").leaderboard}
    assert places == {"base", "ours", "theirs"}
    study = look_over(line_up(CompareSettings.model_validate(asked)).study)
    pipe.unet, pipe.text_encoder = reader.merged(
        tmp_path / "theirs.safetensors", pipe.unet, pipe.text_encoder
    )
    batches = plan_batches(study.cells, study.settings.batch)
    assert sum(draw(pipe, batches, study.sampler, tmp_path / "merged")) == len(study.cells)
    for cell in study.cells:
        merged, theirs, base = (
            np.asarray(Image.open(cell.file(folder)), dtype=float)
            for folder in (tmp_path / "merged", study.images / "theirs", study.images / "base")
        )
        assert np.abs(merged - theirs).max() <= 2
        assert np.abs(merged - base).mean() > 2
    facts = json.loads((tmp_path / "study/results.json").read_text("utf-8"))["arms"]["theirs"]
    assert facts["facts"]["adapters"][0]["weight"] == 1.0
