"""LoRA linear layers in as few kernels as their arithmetic needs.

peft adds a LoRA to a linear layer in separate steps, W x + s * B(A(x)): in training that is two
passes over a full-size activation more forward and two more backward (scale, add). Where a layer
is nothing but that, `fuse` gives it one function that adds in place. The same sums, at the same
places, up to rounding.

Shape legend: n tokens of the whole batch, i width in, o width out, r rank.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


def fuse(model: torch.nn.Module) -> int:
    """Speed up every layer of the model that is a linear one with one plain LoRA; how many.

    Others (convolutions, DoRA, dropout, a quantised base) stay as peft has them. Switching the
    adapter off, and other adapters beside it, go on to work.
    """
    layers = [layer for layer in model.modules() if _is_plain(layer)]
    for layer in layers:
        layer.forward = partial(_forward, layer)
    return len(layers)


def _is_plain(layer: torch.nn.Module) -> bool:
    return (
        type(layer) is lora.Linear
        and type(layer.base_layer) is torch.nn.Linear
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
        and all(type(drop) is torch.nn.Identity for drop in layer.lora_dropout.values())
    )


def _forward(layer: Any, x: Tensor, *more: Any, **named: Any) -> Tensor:
    if layer.disable_adapters or layer.merged:
        return layer.base_layer(x)  # type: ignore[no-any-return]
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if more or named or len(active) != 1:
        return type(layer).forward(layer, x, *more, **named)  # type: ignore[no-any-return]
    base, name = layer.base_layer, active[0]
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    with torch.autocast(device, enabled=False):
        out: Tensor = _lora_linear(
            x.to(dtype),
            base.weight.to(dtype),
            None if base.bias is None else base.bias.to(dtype),
            a.to(dtype),
            b.to(dtype),
            layer.scaling[name],
        )
    return out


class _LoraLinear(torch.autograd.Function):
    """W x + bias + scale * B A x; gradients for x, A and B, none for the frozen W and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_oi: Tensor,
        bias_o: Tensor | None,
        a_ri: Tensor,
        b_or: Tensor,
        scale: float,
    ) -> Tensor:
        x_ni = x.reshape(-1, x.shape[-1])
        low_nr = linear(x_ni, a_ri)
        out_no = linear(x_ni, weight_oi, bias_o).addmm_(low_nr, b_or.t(), alpha=scale)
        ctx.save_for_backward(x_ni, low_nr, weight_oi, a_ri, b_or)
        ctx.scale, ctx.shape = scale, x.shape
        return out_no.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_ni, low_nr, weight_oi, a_ri, b_or = ctx.saved_tensors
        grad_no = grad.reshape(-1, grad.shape[-1])
        grad_low_nr = torch.mm(grad_no, b_or).mul_(ctx.scale)
        grad_a_ri = torch.mm(grad_low_nr.t(), x_ni)
        grad_b_or = torch.mm(grad_no.t(), low_nr).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.mm(grad_no, weight_oi).addmm_(grad_low_nr, a_ri).view(ctx.shape)
        return grad_x, None, None, grad_a_ri, grad_b_or, None


_lora_linear: Any = _LoraLinear.apply
