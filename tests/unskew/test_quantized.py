"""Quantised layers stand for those they were made of, and take a LoRA as they do."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unskew.adapters import attach, load_adapter, save_adapter
from unskew.errors import UserError
from unskew.fused_lora import fuse
from unskew.pipelines import load_base, load_unet
from unskew.quantized import Quantization, quantize

MISSING = importlib.util.find_spec("bitsandbytes") is None
needs_bitsandbytes = pytest.mark.skipif(MISSING, reason="bitsandbytes is not installed")
CPU = torch.device("cpu")
KINDS: list[tuple[Quantization, float]] = [("nf4", 0.2), ("int8", 0.02)]
"""Each kind, and how far it may be off: normal weights lose some 9 and 0.5 % of themselves."""


def layers(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64, bias=False))
    return model.to(dtype).requires_grad_(False)


def results(model: nn.Module, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and the gradient for the input."""
    torch.manual_seed(1)
    x = torch.randn(2, 5, 64, dtype=dtype, requires_grad=True)
    out = model(x)
    (gradient,) = torch.autograd.grad(out.float().square().sum(), x)
    return out.detach().float(), gradient.float()


@needs_bitsandbytes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kind", "limit"), KINDS)
def test_output_and_gradient_are_near(kind: Quantization, limit: float, dtype: torch.dtype) -> None:
    """Within a fifth in 4 bits and a fiftieth in 8, in the precision of before, and frozen."""
    plain, small = layers(dtype), layers(dtype)
    assert quantize(small, kind, CPU, dtype) == 2
    assert small(torch.randn(2, 5, 64, dtype=dtype)).dtype == dtype
    for ours, whole in zip(results(small, dtype), results(plain, dtype), strict=True):
        assert 0 < (ours - whole).norm() < limit * whole.norm()
    assert not any(p.requires_grad for p in small.parameters())
    again = layers(dtype)
    quantize(again, kind, CPU, dtype)
    assert torch.equal(results(again, dtype)[0], results(small, dtype)[0])


def test_none_changes_nothing() -> None:
    """No layer, no bit, and no package is needed."""
    model = layers()
    assert quantize(model, "none", CPU, torch.float32) == 0
    assert torch.equal(results(model, torch.float32)[0], results(layers(), torch.float32)[0])


@needs_bitsandbytes
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_unet_keeps_what_tells_it_the_time(kind: Quantization, tiny_base: Path) -> None:
    """Its transformers' layers are quantised; those of the timestep, and convolutions, are not."""
    unet: Any = load_unet(tiny_base, CPU, torch.float32, kind)
    kinds = {name: type(m) for name, m in unet.named_modules() if isinstance(m, nn.Linear)}
    plain = {name for name, kind in kinds.items() if kind is nn.Linear}
    assert plain == {name for name in kinds if "time_emb" in name}
    assert type(unet.conv_in) is nn.Conv2d
    assert any("attn2.to_k" in name for name in set(kinds) - plain)


@needs_bitsandbytes
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_an_adapter_goes_on_and_comes_back(
    kind: Quantization, tiny_base: Path, tmp_path: Path
) -> None:
    """By peft, not our fused function; saved and loaded onto another base it does the same."""
    pipes: list[Any] = []
    for _ in range(2):
        pipe = load_base(tiny_base, CPU, torch.float32, without=("unet",))
        pipe.unet = load_unet(tiny_base, CPU, torch.float32, kind)
        pipes.append(pipe)
    torch.manual_seed(0)
    weights = attach({"unet": pipes[0].unet}, rank=4, alpha=8, target_modules="all_linear")
    assert weights and all(p.dtype == torch.float32 for p in weights.values())
    with torch.no_grad():
        for name, weight in weights.items():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    told = (torch.randn(1, 8, 8, 8), torch.tensor([500]), torch.randn(1, 24, 16))
    with torch.no_grad():
        bare = pipes[1].unet(*told).sample
        tuned = pipes[0].unet(*told).sample
    file = save_adapter(tmp_path, {"unet": pipes[0].unet}, {})
    load_adapter(pipes[1], file, "check")
    with torch.no_grad():
        assert torch.equal(pipes[1].unet(*told).sample, tuned)
    assert not torch.equal(bare, tuned)
    assert fuse(pipes[0].unet) == 0


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lacks bitsandbytes reads how to get it, and what to do without."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"nf4 needs the package.*unskew\[bitsandbytes\].*none"):
        quantize(layers(), "nf4", CPU, torch.float32)
