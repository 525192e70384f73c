"""The optimizers: torch's AdamW, and two that come with an extra of their own."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

import torch
from torch.nn import Parameter

from unskew.errors import UserError
from unskew.train.options import OptimizerSettings

FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Where torch does a step of AdamW in one pass over the weights."""
EIGHT_BIT_DEVICES = ("cpu", "cuda", "xpu")
"""Where bitsandbytes has 8-bit steps."""


def make_optimizer(
    parameters: Sequence[Parameter], settings: OptimizerSettings, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer that the settings ask for, over these fp32 parameters on this device.

    Raises UserError when its package is not installed, or does not run on such a device.
    """
    weights, rate, decay = list(parameters), settings.learning_rate, settings.weight_decay
    optimizer: torch.optim.Optimizer
    match settings.kind:
        case "adamw":
            fused = True if device.type in FUSED_DEVICES else None
            optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=decay, fused=fused)
        case "adamw_8bit":
            if device.type not in EIGHT_BIT_DEVICES:
                raise UserError(
                    f"optimizer.kind adamw_8bit does not run on {device.type} (allowed: "
                    f"{', '.join(EIGHT_BIT_DEVICES)}): set it to adamw"
                )
            package = _package("bitsandbytes", "bitsandbytes", settings.kind)
            optimizer = package.optim.AdamW8bit(weights, lr=rate, weight_decay=decay)
        case "prodigy":
            package = _package("pytorch_optimizer", "prodigy", settings.kind)
            # both as its authors advise for diffusion models and rates that warm up
            optimizer = package.Prodigy(
                weights, lr=rate, weight_decay=decay, bias_correction=True, safeguard_warmup=True
            )
    return optimizer


def _package(module: str, extra: str, kind: str) -> ModuleType:
    """An optional package. Raises UserError that names the extra which brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"optimizer.kind {kind} needs the package {module}, which cannot be imported "
            f"({error}): pip install 'unskew[{extra}]', or set it to adamw"
        ) from error
