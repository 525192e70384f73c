"""Fused LoRA layers compute what peft computes, and are switched as peft's are."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from unskew.fused_lora import fuse


def model(dtype: torch.dtype = torch.float64, *, bias: bool = True, **lora: object) -> nn.Module:
    """Two linear layers and a convolution, each with a LoRA that does something."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(6, 8, bias=bias), nn.GELU(), nn.Linear(8, 4, bias=bias), nn.Conv1d(5, 3, 1)
    ).to(dtype)
    layers.requires_grad_(False)
    config = LoraConfig(
        **{"r": 3, "lora_alpha": 7, "target_modules": ["0", "2", "3"], **lora}  # type: ignore[arg-type]
    )
    inject_adapter_in_model(config, layers)
    for name, weight in layers.named_parameters():
        if "lora_" in name:
            weight.data = 0.3 * torch.randn_like(weight)
    return layers


def results(layers: nn.Module, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """The output, and the gradients for the input and for every LoRA weight."""
    torch.manual_seed(1)
    x = torch.randn(2, 5, 6, dtype=dtype, requires_grad=True)
    weights = [p for p in layers.parameters() if p.requires_grad]
    out = layers(x)
    return (out.detach(), *torch.autograd.grad(out.float().square().sum(), [x, *weights]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lora", [{}, {"use_rslora": True}])
def test_output_and_gradients_are_pefts(bias: bool, lora: dict[str, object]) -> None:
    """With alpha != rank, bias or none, rsLoRA: equal to rounding in double precision."""
    plain = model(bias=bias, **lora)
    fused = copy.deepcopy(plain)
    assert fuse(fused) == 2
    for ours, pefts in zip(results(fused), results(plain), strict=True):
        torch.testing.assert_close(ours, pefts, atol=1e-12, rtol=1e-12)


def test_autocast_computes_in_half_and_keeps_fp32_gradients() -> None:
    """Under bf16 autocast, fp32 weights get fp32 gradients, peft's up to bf16's rounding."""
    plain = model(torch.float32)
    fused = copy.deepcopy(plain)
    fuse(fused)
    with torch.autocast("cpu", torch.bfloat16):
        ours, pefts = results(fused, torch.float32), results(plain, torch.float32)
    assert ours[0].dtype == pefts[0].dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in ours[1:])
    for our, peft in zip(ours, pefts, strict=True):
        torch.testing.assert_close(our.float(), peft.float(), atol=0.05, rtol=0.05)


def test_switching_goes_on_to_work() -> None:
    """Off is the bare base to the bit, a weight scales the effect, a second adapter adds to it."""
    layers, bare = model(), model()
    fuse(layers)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    tuned = [m for m in layers.modules() if isinstance(m, BaseTunerLayer)]
    base = [m for m in bare.modules() if isinstance(m, BaseTunerLayer)]
    for layer in (*tuned, *base):
        layer.enable_adapters(False)
    assert torch.equal(layers(x), bare(x))
    for layer in (*tuned, *base):
        layer.enable_adapters(True)
        layer.set_scale("default", 0.25)
    torch.testing.assert_close(layers(x), bare(x), atol=1e-12, rtol=1e-12)
    for some in (layers, bare):
        torch.manual_seed(2)
        config = LoraConfig(r=2, target_modules=["0", "2", "3"], init_lora_weights=False)
        with pytest.warns(UserWarning, match="multiple adapters"):
            inject_adapter_in_model(config, some, "second")
    for layer in (*tuned, *base):
        layer.set_adapter(["default", "second"])
    torch.testing.assert_close(layers(x), bare(x), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True}])
def test_what_is_more_than_a_plain_lora_stays_pefts(lora: dict[str, object]) -> None:
    """DoRA, dropout and biases have more to their forward than is fused."""
    assert fuse(model(**lora)) == 0
