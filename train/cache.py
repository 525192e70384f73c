"""Encoded pictures and captions, made once and found again by their content.

A picture's latents are kept as the VAE posterior's mean and standard deviation, from which every
step samples: training then sees what encoding live would show. Each is encoded alone, because a
picture's bits depend a little on the batch that it is computed in; so an entry is a function of its
key, whichever run made it, and a run that was killed while encoding goes on where it was.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from unskew.errors import UserError
from unskew.runs import atomic_path, sha256_file, sha256_folder
from unskew.train.rows import load_picture

VERSION = 1
"""Part of every key; raise it when the way from a picture or caption to its tensor changes."""
SHARD = 256
"""Entries in one file: what a kill while encoding can cost."""
T = TypeVar("T")


@dataclass(frozen=True)
class Encoded:
    """What the encoders said, on the CPU, in fp32. c latent channels, l tokens, d text width."""

    posteriors: Mapping[Path, Tensor]
    """Picture -> (2, c, h, w): mean and standard deviation, times the VAE's scaling factor."""
    states: Mapping[str, Tensor]
    """Caption -> (l, d): the text encoder's output."""


def encode(
    pipe: StableDiffusionPipeline,
    base: Path,
    pictures: Iterable[Path],
    captions: Iterable[str],
    resolution_px: int,
    folder: Path | None,
) -> Encoded:
    """Encode what `folder` does not hold yet, keep it there (None keeps nothing), return all.

    Needs the pipeline in fp32: the SD VAEs overflow in fp16. Raises UserError for a picture whose
    latents are not finite.
    """
    where = f"{VERSION} {torch.__version__} {pipe.device.type}"
    vae = f"{where} {sha256_folder(base / 'vae')} {resolution_px}"
    text = f"{where} {sha256_folder(base / 'text_encoder')} {sha256_folder(base / 'tokenizer')}"
    picture_keys = {file: _key(vae, sha256_file(file)) for file in dict.fromkeys(pictures)}
    caption_keys = {caption: _key(text, caption) for caption in dict.fromkeys(captions)}
    posteriors = _through_cache(
        {key: file for file, key in picture_keys.items()},
        lambda file: encode_picture(pipe, file, resolution_px),
        folder and folder / "pictures",
    )
    states = _through_cache(
        {key: caption for caption, key in caption_keys.items()},
        lambda caption: encode_caption(pipe, caption),
        folder and folder / "captions",
    )
    return Encoded(
        {file: posteriors[key] for file, key in picture_keys.items()},
        {caption: states[key] for caption, key in caption_keys.items()},
    )


@torch.inference_mode()
def encode_picture(pipe: StableDiffusionPipeline, file: Path, resolution_px: int) -> Tensor:
    """(2, c, h, w) mean and standard deviation of the picture's latents, scaled for the UNet."""
    pixels_hwc = np.asarray(load_picture(file, (resolution_px, resolution_px)), dtype=np.float32)
    pixels_bchw = torch.from_numpy(pixels_hwc).permute(2, 0, 1)[None] / 127.5 - 1
    posterior = pipe.vae.encode(pixels_bchw.to(pipe.device)).latent_dist
    both: Tensor = torch.cat([posterior.mean, posterior.std]).float().cpu()
    both = both * pipe.vae.config.scaling_factor
    if not both.isfinite().all():
        raise UserError(
            f"picture {file}: the VAE's latents are not finite: look at the picture, or leave its "
            "rows out"
        )
    return both


@torch.inference_mode()
def encode_caption(pipe: StableDiffusionPipeline, caption: str) -> Tensor:
    """(l, d) states of a caption, exactly as the pipeline makes them when it draws."""
    states_bld: Tensor = pipe.encode_prompt(caption, pipe.device, 1, False)[0]
    return states_bld[0].float().cpu()


def _through_cache(
    wanted: Mapping[str, T], make: Callable[[T], Tensor], folder: Path | None
) -> dict[str, Tensor]:
    """Key -> tensor for all of `wanted` (key -> what to make it from)."""
    found = _read_shards(folder, wanted) if folder else {}
    missing = [key for key in wanted if key not in found]
    quiet = not sys.stderr.isatty()
    with tqdm(total=len(missing), desc="encoding", disable=quiet or not missing) as bar:
        for start in range(0, len(missing), SHARD):
            made = {}
            for key in missing[start : start + SHARD]:
                made[key] = make(wanted[key]).contiguous()
                bar.update()
            if folder:
                with atomic_path(folder / f"{_key(*made)}.safetensors") as temporary:
                    safetensors.torch.save_file(made, temporary)
            found |= made
    return found


def _read_shards(folder: Path, wanted: Mapping[str, object]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(shard, "pt") as entries:
                found |= {key: entries.get_tensor(key) for key in entries.keys() if key in wanted}  # noqa: SIM118
        except SafetensorError as error:
            print(f"{shard} cannot be read ({error}); its entries are made anew", file=sys.stderr)
            shard.unlink()
    return found


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
