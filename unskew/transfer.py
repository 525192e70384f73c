"""Getting tensors onto a GPU without making the program wait for it."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | None) -> Tensor:
    """The same tensor on a device; None leaves it where it is.

    A plain copy to a GPU waits until all that the GPU was asked for before is done. Out of pinned
    memory it takes its place in the queue.
    """
    if device is None or device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
