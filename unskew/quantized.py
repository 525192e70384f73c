"""Frozen linear layers in 4 or 8 bits, by bitsandbytes.

    nf4   4-bit normal floats in blocks of 64, their scales in 8 bits (Dettmers et al. 2023,
          QLoRA, arXiv:2305.14314): about 4.1 bits a weight; computes in the base's own precision
    int8  8 bits with a scale per output, and inputs in 8 bits too but for outlying features
          (Dettmers et al. 2022, LLM.int8(), arXiv:2208.07339)

diffusers' own way to such a model is open on GPUs only; these are the same layers, made of a loaded
model anywhere that bitsandbytes runs, so that what is tried on a CPU is what runs on a GPU.
"""

from __future__ import annotations

import importlib
import logging
from types import ModuleType
from typing import Any, Literal

import torch
from torch import nn

from unskew.errors import UserError

Quantization = Literal["none", "nf4", "int8"]
KEPT = ("time_emb", "add_emb", "time_proj")
"""Parts of names of layers that stay: small ones, through which all is told time and size."""
OUTLIERS = 6.0
"""Inputs above it are computed in half precision by int8: its authors' figure."""


def quantize(model: nn.Module, kind: Quantization, device: torch.device, dtype: torch.dtype) -> int:
    """Put a frozen model on its device, its linear layers quantised in place; how many.

    `dtype` is what they compute in. "none" only moves the model. Same weights, same bits. Raises
    UserError when bitsandbytes is not installed.
    """
    done = 0
    if kind != "none":
        package = require_bitsandbytes(kind)
        for name, layer in list(model.named_modules()):
            if type(layer) is nn.Linear and not any(part in name for part in KEPT):
                parent, _, own = name.rpartition(".")
                quantized = _quantized(package, layer, kind, device, dtype)
                setattr(model.get_submodule(parent), own, quantized)
                done += 1
        # by which peft knows to add to such a layer in its own way
        setattr(model, "is_loaded_in_4bit" if kind == "nf4" else "is_loaded_in_8bit", done > 0)
    model.to(device)
    return done


def require_bitsandbytes(kind: str) -> ModuleType:
    """The package. Raises UserError that names the extra which brings it."""
    try:
        package = importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise UserError(
            f"memory.quantize {kind} needs the package bitsandbytes, which cannot be imported "
            f"({error}): pip install 'unskew[bitsandbytes]', or set it to none"
        ) from error
    # every product of int8 warns that it rounds its input to half precision
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return package


def _quantized(
    package: Any, layer: nn.Linear, kind: Quantization, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    shape, bias = (layer.in_features, layer.out_features), layer.bias is not None
    weight = layer.weight.data.cpu()  # the move to its device is what quantises it
    quantized: Any
    if kind == "nf4":
        quantized = package.nn.Linear4bit(
            *shape, bias, compute_dtype=dtype, quant_type="nf4", device="meta"
        )
        quantized.weight = package.nn.Params4bit(
            weight, requires_grad=False, quant_type="nf4", module=quantized
        )
        # a CPU's other layout, which has no way back from it; off, so that no forward changes it
        quantized.support_avx512bf16_for_cpu = False
    else:
        quantized = package.nn.Linear8bitLt(
            *shape, bias, has_fp16_weights=False, threshold=OUTLIERS, device="meta"
        )
        quantized.weight = package.nn.Int8Params(weight, requires_grad=False)
    quantized.bias = layer.bias
    quantized.source_cls = nn.Linear
    moved: nn.Module = quantized.to(device)
    return moved.requires_grad_(False).eval()
