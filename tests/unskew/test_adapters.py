"""Adapters come back as they were, at the strength they were, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from unskew.adapters import (
    TARGET_PRESETS,
    WEIGHTS_FILE,
    adapter_file,
    attach,
    load_adapter,
    save_adapter,
    weigh,
)
from unskew.errors import UserError
from unskew.pipelines import load_base


def fresh(base: Path, dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    return load_base(base, torch.device("cpu"), dtype)


def output(pipe: StableDiffusionPipeline) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(3, 8, 8, 8, generator=generator)
    states = torch.randn(3, 24, 16, generator=generator)
    with torch.inference_mode():
        prediction: Tensor = pipe.unet(latents, torch.tensor([1, 500, 999]), states).sample
    return prediction


def trained(
    base: Path, target_modules: str | tuple[str, ...], alpha: float
) -> StableDiffusionPipeline:
    """A base with an adapter of rank 4 that does something."""
    pipe = fresh(base)
    torch.manual_seed(3)
    models = {"unet": pipe.unet}
    for parameter in attach(models, rank=4, alpha=alpha, target_modules=target_modules).values():
        parameter.data = 0.1 * torch.randn_like(parameter)
    return pipe


@pytest.mark.parametrize("preset", [*TARGET_PRESETS, ("to_k", "ff.net.2")])
def test_adapter_comes_back_at_its_strength(
    tiny_base: Path, tmp_path: Path, preset: str | tuple[str, ...]
) -> None:
    """Saved and loaded into a fresh base, alpha != rank, the UNet's output is the same bits."""
    pipe = trained(tiny_base, preset, alpha=10)
    save_adapter(tmp_path, {"unet": pipe.unet}, {})
    other = fresh(tiny_base)
    bare = output(other)
    load_adapter(other, tmp_path, "back")
    assert torch.equal(output(other), output(pipe))
    assert not torch.allclose(output(other), bare, atol=1e-3)


def test_weight_scales_the_effect(tiny_base: Path, tmp_path: Path) -> None:
    """Weight 0 is the bare base to the bit; weight w is w times alpha."""
    save_adapter(tmp_path, {"unet": trained(tiny_base, "attention", alpha=8).unet}, {})
    pipe = fresh(tiny_base)
    bare = output(pipe)
    load_adapter(pipe, adapter_file(tmp_path), "a", 0.0)
    assert torch.equal(output(pipe), bare)
    weigh(pipe, {"a": 0.5})
    torch.testing.assert_close(output(pipe), output(trained(tiny_base, "attention", alpha=4)))


def test_the_same_weights_are_the_same_bytes(tiny_base: Path, tmp_path: Path) -> None:
    """Two saves of one adapter are equal files, whatever order the library gives the header."""
    unet = trained(tiny_base, "attention", alpha=8).unet
    extra = {f"note{n}": "x" for n in range(8)}
    files = [save_adapter(tmp_path / str(n), {"unet": unet}, extra) for n in range(4)]
    assert len({file.read_bytes() for file in files}) == 1


def test_lora_is_fp32_on_a_half_precision_base(tiny_base: Path) -> None:
    """Every trained parameter is fp32; the frozen ones keep bf16 and no gradient."""
    unet = fresh(tiny_base, torch.bfloat16).unet
    parameters = attach({"unet": unet}, rank=2, alpha=2, target_modules="all_linear")
    assert {p.dtype for p in parameters.values()} == {torch.float32}
    frozen = [p for p in unet.parameters() if not p.requires_grad]
    assert {p.dtype for p in frozen} == {torch.bfloat16}


def test_a_fresh_adapter_changes_nothing(tiny_base: Path) -> None:
    """Training starts from the base itself."""
    pipe = fresh(tiny_base)
    bare = output(pipe)
    attach({"unet": pipe.unet}, rank=4, alpha=4, target_modules="with_convolutions")
    assert torch.equal(output(pipe), bare)


def test_presets_grow(tiny_base: Path) -> None:
    """Each preset trains more than the one before; the last one every resnet and sampler too."""
    unets = [fresh(tiny_base).unet for _ in TARGET_PRESETS]
    counts = [
        len(attach({"unet": unet}, rank=1, alpha=1, target_modules=preset))
        for unet, preset in zip(unets, TARGET_PRESETS, strict=True)
    ]
    assert counts == sorted(set(counts))
    adapted = {name for name, _ in unets[-1].named_parameters() if "lora_A" in name}
    assert any("downsamplers.0.conv" in name for name in adapted)
    assert any("upsamplers.0.conv" in name for name in adapted)


@pytest.mark.parametrize("wrong", ["atention", ("to_q", "to_x")])
def test_unknown_modules_are_named(tiny_base: Path, wrong: str | tuple[str, ...]) -> None:
    """A preset or module name that does not exist is an error, never a smaller adapter."""
    with pytest.raises(UserError, match=r"atention|to_x"):
        attach({"unet": fresh(tiny_base).unet}, rank=1, alpha=1, target_modules=wrong)


def test_adapter_for_another_architecture(tiny_base: Path, tmp_path: Path) -> None:
    """The message says what each is for, and the pipeline stays as it was."""
    file = save_adapter(tmp_path, {"unet": trained(tiny_base, "attention", alpha=4).unet}, {})
    weights = safetensors.torch.load_file(file)
    key = next(k for k in weights if "attn2.to_k.lora_A" in k)
    weights[key] = torch.zeros(4, 768)
    safetensors.torch.save_file(weights, file)
    pipe = fresh(tiny_base)
    before = output(pipe)
    with pytest.raises(UserError, match=r"cross-attention 16-768; the base .* cross-attention 16"):
        load_adapter(pipe, tmp_path, "a")
    assert torch.equal(output(pipe), before)
    assert not hasattr(pipe.unet, "peft_config")


@pytest.mark.parametrize("change", ["unknown module", "half missing", "text encoder", "none left"])
def test_every_weight_must_find_its_place(tiny_base: Path, tmp_path: Path, change: str) -> None:
    """One weight without a place is enough to refuse the file: nothing is dropped in silence."""
    file = save_adapter(tmp_path, {"unet": trained(tiny_base, "attention", alpha=4).unet}, {})
    weights = safetensors.torch.load_file(file)
    key = next(k for k in weights if "lora_A" in k)
    if change == "unknown module":
        weights[key.replace("to_", "to_x")] = weights[key].clone()
    elif change == "half missing":
        del weights[key]
    elif change == "text encoder":
        weights["text_encoder_3.layers.0.lora_A.weight"] = weights[key].clone()
    else:
        weights = {"noise": torch.zeros(1)}
    safetensors.torch.save_file(weights, file)
    with pytest.raises(UserError, match="does not fit this base"):
        load_adapter(fresh(tiny_base), tmp_path, "a")


def test_missing_and_broken_files(tiny_base: Path, tmp_path: Path) -> None:
    """No file and no safetensors file are errors of the user's, with the path."""
    with pytest.raises(UserError, match="nowhere"):
        load_adapter(fresh(tiny_base), tmp_path / "nowhere", "a")
    (tmp_path / WEIGHTS_FILE).write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be read as a LoRA"):
        load_adapter(fresh(tiny_base), tmp_path, "a")


def test_metadata_rebuilds_the_configuration(tiny_base: Path, tmp_path: Path) -> None:
    """The header holds diffusers' own entry, so plain diffusers loads it at the same strength."""
    pipe = trained(tiny_base, "all_linear", alpha=10)
    file = save_adapter(tmp_path / "one", {"unet": pipe.unet}, {"base": "tiny"})
    with safetensors.safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert metadata["base"] == "tiny"
    assert json.loads(metadata["lora_adapter_metadata"])["unet.lora_alpha"] == 10
    plain = fresh(tiny_base)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    plain.load_lora_weights(str(tmp_path / "two"), weight_name=WEIGHTS_FILE)
    assert torch.equal(output(plain), output(pipe))
