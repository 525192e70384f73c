"""Ways to train in less memory, or faster, that leave what is trained as it is.

Checkpointing (Chen et al. 2016, arXiv:1604.06174) keeps only what goes into each block, and
computes the rest again on the way back: the same sums twice. Compiling makes fewer kernels of a
block: the same sums in another order.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn import Module
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from unskew.train.estimate import GIB, free_bytes, one_pass, rows_of_a_pass, step_bytes, widest_row
from unskew.train.training import Training

MARGIN = 1.15
"""Times the estimate that must be free: for kernels' own memory, and for what lies scattered."""
VARIANTS = 64
"""Most forms of one block that are compiled: widths times heights, adapter on and off."""


def choose_checkpointing(training: Training) -> str | None:
    """Do as memory.gradient_checkpointing asks; what was chosen and why, None on a CPU by itself.

    A CPU has the computer's memory, which is seldom what is short; there it must be asked for.
    """
    asked = training.settings.memory.gradient_checkpointing
    if asked == "auto" and training.accelerator.device.type == "cpu":
        return None
    if asked == "auto":
        on, reason = _is_needed(training)
    else:
        on, reason = asked == "on", "as given"
    if on:
        checkpoint_blocks(training)
    return f"gradient checkpointing: {'on' if on else 'off'} ({reason})"


def checkpoint_blocks(training: Training) -> None:
    """Keep what goes into each block of the UNet and of text encoders that are trained, alone."""
    training.pipe.unet.enable_gradient_checkpointing()
    for name in training.models:
        if name != "unet":
            _checkpoint_layers(training.models[name])


def _checkpoint_layers(encoder: Module) -> None:
    # not by transformers' own switch, which makes the embeddings want gradients wherever peft is
    for layer in encoder.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.gradient_checkpointing = True
            again = partial(checkpoint, use_reentrant=False)
            layer._gradient_checkpointing_func = again  # type: ignore[assignment]
            layer.training = True  # it asks for this; what is in it stays in evaluation mode


def _is_needed(training: Training) -> tuple[bool, str]:
    """Whether a step may need more memory than is free, and the figures."""
    device = training.accelerator.device
    free = free_bytes(device)
    if free is None:
        return False, f"auto: nothing is known of the memory of {device.type}"
    try:
        need = step_bytes(training)
    except torch.OutOfMemoryError:
        return True, f"auto: two rows are too many for the {free / GIB:.1f} GiB that are free"
    figures = f"a step needs about {need / GIB:.1f} GiB, {free / GIB:.1f} GiB are free"
    return MARGIN * need > free, f"auto: {figures}"


def compile_blocks(training: Training) -> str | None:
    """Do as memory.compile asks; what came of it, None where nothing was asked.

    One row goes forward and back to find out whether it works; where it does not, the blocks are
    as they were before. A form of a block that fails later is left uncompiled by torch itself.
    """
    if training.settings.memory.compile == "off":
        return None
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, VARIANTS)
    unet = training.pipe.unet
    try:
        unet.compile_repeated_blocks()
        one_pass(training, [widest_row(training)] * min(2, rows_of_a_pass(training)))
    except Exception as error:
        uncompile(unet)
        torch._dynamo.reset()
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"memory.compile regional failed ({first}): training goes on without it"
    config.suppress_errors = True
    return "the UNet's transformer blocks are compiled; each new form of them takes a while more"


def uncompile(unet: Any) -> None:
    """Let the blocks be as they were before `compile_blocks`."""
    for module in unet.modules():
        module._compiled_call_impl = None
