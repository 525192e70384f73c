"""How much memory a run takes, before it takes it.

Weights, gradients and what the optimizer remembers are counted. What a step keeps on its way is
measured where it will be kept: a batch of one row and one of two go forward and back while all
tensors that come and go are counted, and the rest follows by a straight line. Encoding is measured
on the meta device, where tensors have a size and nothing else. Not seen is the working memory of
kernels (cuDNN's, cuBLAS's) and of the GPU's driver: some hundred MiB.
"""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import Module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unskew.train.cache import together
from unskew.train.inputs import Inputs
from unskew.train.objective import draw_part, row_losses, target_bchw
from unskew.train.rows import Row
from unskew.train.training import Training

GIB = 2**30
STATE_BYTES: Mapping[str, int] = {"adamw": 8, "adamw_8bit": 2, "prodigy": 16}
"""Bytes that each optimizer remembers of a trained number."""


@dataclass(frozen=True)
class Phase:
    """What one phase of a run takes, in bytes."""

    name: str
    base: int
    """Weights of the parts of the base that are there."""
    lora: int = 0
    """Trained weights, and their average where one is kept."""
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    """What is kept on the way of one pass, at its most."""

    @property
    def all(self) -> int:
        """Their sum."""
        return self.base + self.lora + self.gradients + self.optimizer + self.activations


class Peak(TorchDispatchMode):
    """Inside, counts the bytes of tensors made there on a device: alive now, and at most."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.alive: int = 0
        self.most: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [t.untyped_storage() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        known = {id(storage) for storage in given}  # a view brings no memory of its own
        out = func(*args, **kwargs)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.device.type == self.device.type:
                storage = tensor.untyped_storage()
                if id(storage) not in known:
                    known.add(id(storage))
                    self._count(storage)
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self._let_go, size)

    def _let_go(self, size: int) -> None:
        self.alive -= size


def phases(training: Training, inputs: Inputs) -> tuple[Phase, ...]:
    """Caching, training and the proof at the end, of a training that has not begun to step."""
    pipe, family = training.pipe, training.family
    trained = 4 * sum(p.numel() for p in training.parameters.values())
    lora = trained * (2 if training.settings.optimizer.average_decay else 1)
    parts = [pipe.unet, pipe.vae, *(getattr(pipe, name) for name in family.ENCODERS)]
    base = sum(weight_bytes(part) for part in parts if part is not None) - trained
    encoders = sum(_stored(inputs, name) for name in family.ENCODERS)
    loaded = encoders if "text_encoder" in training.models else 0  # else the proof asks none
    encoding = _encoding_bytes(training, inputs)
    optimizer = _optimizer_bytes(training)
    step = pass_bytes(training, rows_of_a_pass(training))
    return (
        Phase("caching", _stored(inputs, "vae") + encoders, activations=encoding),
        Phase("training", base, lora, trained, optimizer, step),
        Phase("proof", base + weight_bytes(pipe.unet) + loaded, lora, 0, optimizer),
    )


def table(some: Sequence[Phase]) -> str:
    """A line a phase, in GiB."""
    names = ("base", "lora", "gradients", "optimizer", "activations", "all")
    lines = ["memory, GiB  " + "".join(f"{name:>13}" for name in names)]
    for phase in some:
        figures = "".join(f"{getattr(phase, name) / GIB:13.3f}" for name in names)
        lines.append(f"  {phase.name:<11}{figures}")
    return "\n".join(lines)


def step_bytes(training: Training) -> int:
    """What a step takes beside weights that are there: gradients, what is remembered, one pass."""
    gradients = 4 * sum(p.numel() for p in training.parameters.values())
    return gradients + _optimizer_bytes(training) + pass_bytes(training, rows_of_a_pass(training))


def pass_bytes(training: Training, rows: int) -> int:
    """What this many of the widest rows take at most on their way forward and back."""
    row = widest_row(training)
    one, two = (_measured(training, [row] * number) for number in (1, 2))
    return max(one, one + (rows - 1) * (two - one))


def rows_of_a_pass(training: Training) -> int:
    """Most rows that are computed at once."""
    return max(1, max(len(part) for part in training.parts()))


def widest_row(training: Training) -> Row:
    """The row of the first batch whose picture is the largest."""

    def area(row: Row) -> int:
        width, height = training.deal.framings[row.file].target_px
        return width * height

    return max(training.batches.rows(0), key=area)


def one_pass(training: Training, rows: Sequence[Row]) -> None:
    """These rows forward and back, as in a step; nothing is kept of it."""
    t = training
    part = draw_part(rows, range(len(rows)), 0, t.deal)
    noisy_bchw = t.schedule.add_noise(part.latents_bchw, part.noise_bchw, part.timesteps_b)
    with t.autocast():
        target = target_bchw(t.pipe.unet, t.family, t.schedule, part, noisy_bchw)
        predicted = t.accelerator.unwrap_model(t.denoiser)(noisy_bchw, part)
        loss_b = row_losses(predicted, target, part.weights_b)
    # not backward, of which processes would tell each other
    torch.autograd.grad(loss_b.sum(), list(t.parameters.values()), allow_unused=True)


def weight_bytes(module: Module) -> int:
    """Bytes of a module's weights and buffers, with the scales of quantised ones."""
    tensors = [*module.parameters(), *module.buffers()]
    for parameter in module.parameters():
        scales = getattr(getattr(parameter, "quant_state", None), "absmax", None)
        tensors += [t for t in (scales, getattr(parameter, "SCB", None)) if t is not None]
    storages = {id(t.untyped_storage()): t.untyped_storage() for t in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def free_bytes(device: torch.device) -> int | None:
    """What a GPU has left for this process, what torch holds unused with it; None if unknown."""
    if device.type != "cuda":
        return None
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def _measured(training: Training, rows: Sequence[Row]) -> int:
    peak = Peak(training.accelerator.device)
    with peak:
        one_pass(training, rows)
    return peak.most


def _optimizer_bytes(training: Training) -> int:
    trained = sum(p.numel() for p in training.parameters.values())
    return STATE_BYTES[training.settings.optimizer.kind] * trained


def _stored(inputs: Inputs, part: str) -> int:
    """Bytes in fp32 of a part of the base, by its files' headers alone."""
    numbers = 0
    for file in sorted((inputs.base / part).glob("*.safetensors")):
        if ".fp16." in file.name:  # the same once more
            continue
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        header.pop("__metadata__", None)
        numbers += sum(math.prod(entry["shape"]) for entry in header.values())
    return 4 * numbers


@torch.no_grad()
def _encoding_bytes(training: Training, inputs: Inputs) -> int:
    """What the largest picture, or as many as are encoded together, takes in the VAE."""
    config = AutoencoderKL.load_config(inputs.base / "vae", local_files_only=True)
    with torch.device("meta"):
        vae: Any = AutoencoderKL.from_config(config)
        width, height = training.deal.framings[widest_row(training).file].target_px
        pictures = torch.empty(together((width, height)), vae.config.in_channels, height, width)
    peak = Peak(pictures.device)
    with peak:
        vae.encode(pictures)
    return peak.most
