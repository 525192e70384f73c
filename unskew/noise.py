"""The noise of a cell: a function of its prompt and seed alone.

Every arm, process and machine draws a cell from the same noise, which is what makes pictures
pairs. Python's `hash` is never used: it differs from process to process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def cell_generator(prompt_text: str, seed: int) -> torch.Generator:
    """A CPU generator of its own for one (prompt, seed) cell.

    `prompt_text` is the cell's unrewritten prompt, so that an arm with rewritten prompts draws
    from the same noise too.
    """
    digest = hashlib.sha256(f"{seed}\0{prompt_text}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def cell_noise(cells: Sequence[tuple[str, int]], latent_shape_chw: tuple[int, ...]) -> Tensor:
    """(b, c, h, w) standard normal fp32 latents, one row a (prompt_text, seed) cell."""
    return noise_of([cell_generator(*cell) for cell in cells], latent_shape_chw)


def noise_of(generators: Sequence[torch.Generator], latent_shape_chw: tuple[int, ...]) -> Tensor:
    """(b, c, h, w) standard normal fp32 latents, one row a generator, which then go on from there.

    A sampler that adds noise on the way must take these same generators: fresh ones of the same
    cells would add the first noise once more.
    """
    return torch.stack([torch.randn(latent_shape_chw, generator=g) for g in generators])
