"""Encoded pictures and captions, made once and found again by their content.

A picture's latents are kept as the VAE posterior's mean and standard deviation, from which every
step samples: training then sees what encoding live would show. Bits depend a little on the size of
the batch that they are computed in, so small pictures of one size, and captions, are always encoded
TOGETHER, filled up where there are fewer, and large pictures alone. So an entry is a function of
its key, whichever run made it, and a run that was killed while encoding goes on where it was. The
next pictures are read and resized in threads meanwhile, which changes no bit.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from unskew.ahead import ahead
from unskew.errors import UserError
from unskew.families import Text, family_of
from unskew.runs import sha256_file, sha256_folder
from unskew.train.buckets import Framing
from unskew.train.rows import Size, load_picture
from unskew.train.shards import Kept, key_of, through_cache

VERSION = 3
"""Part of every key; raise it when the way from a picture or caption to its tensor changes."""
TOGETHER = 16
"""Captions, and at most pictures, encoded at once: on a CPU captions take a sixth of the time that
they take one by one, pictures of 64 px half."""
TOGETHER_PX = 512 * 512
"""Pixels encoded at once, where they are of several pictures: larger ones keep a device busy alone,
and would need too much memory together."""


@dataclass(frozen=True)
class Work:
    """How much of what was asked for had to be encoded; equal pictures count once."""

    pictures_made: int = 0
    pictures_found: int = 0
    captions_made: int = 0
    captions_found: int = 0

    def __str__(self) -> str:
        return (
            f"{self.pictures_made} pictures encoded, {self.pictures_found} found in the cache; "
            f"{self.captions_made} captions encoded, {self.captions_found} found"
        )


@dataclass(frozen=True)
class Encoded:
    """What the encoders said, on the CPU, in fp32. c latent channels."""

    posteriors: Mapping[Path, Tensor]
    """Picture -> (2, c, h, w): mean and standard deviation, times the VAE's scaling factor."""
    texts: Mapping[str, Text]
    """Caption -> what the UNet is told of it."""
    mirrored: Mapping[Path, Tensor] = field(default_factory=dict)
    """As `posteriors`, of the pictures' mirror images; empty unless they were asked for."""
    work: Work = Work()


@dataclass(frozen=True)
class Shot:
    """One picture as the VAE is to see it."""

    file: Path
    target_px: Size
    mirrored: bool


def encode(
    pipe: Any,
    base: Path,
    pictures: Iterable[Path],
    captions: Iterable[str],
    framing: int | Mapping[Path, Framing],
    folder: Path | None,
    *,
    mirror: bool = False,
    workers: int | None = None,
) -> Encoded:
    """Encode what `folder` does not hold yet, keep it there (None keeps nothing), return all.

    `framing` is each picture's, or the side in px of the square that all are cut to. `mirror` asks
    for their mirror images too. Needs the pipeline in fp32: the SD VAEs overflow in fp16. Raises
    UserError for a picture whose latents are not finite and for a folder that cannot be used.
    """
    files = dict.fromkeys(pictures)
    shots = _keyed_shots(pipe, base, files, framing, mirror, workers)
    caption_keys = _keyed_captions(pipe, base, captions)
    posteriors = _pictures(pipe, shots, folder, workers)
    states = _captions(pipe, caption_keys, folder)
    return Encoded(
        {shot.file: posteriors.tensors[key] for shot, key in shots.items() if not shot.mirrored},
        _texts(caption_keys, states.tensors),
        {shot.file: posteriors.tensors[key] for shot, key in shots.items() if shot.mirrored},
        _work(pipe, posteriors, states),
    )


def fill_cache(
    pipe: Any,
    base: Path,
    pictures: Iterable[Path],
    captions: Iterable[str],
    framing: int | Mapping[Path, Framing],
    folder: Path,
    *,
    mirror: bool = False,
    workers: int | None = None,
) -> Work:
    """Put on disk what `encode` would, holding none of it in memory; how much that was."""
    shots = _keyed_shots(pipe, base, dict.fromkeys(pictures), framing, mirror, workers)
    posteriors = _pictures(pipe, shots, folder, workers, keep=False)
    states = _captions(pipe, _keyed_captions(pipe, base, captions), folder, keep=False)
    return _work(pipe, posteriors, states)


def _work(pipe: Any, posteriors: Kept, states: Kept) -> Work:
    parts = len(family_of(pipe).TEXT_PARTS)
    return Work(posteriors.made, posteriors.found, states.made // parts, states.found // parts)


def together(size: Size) -> int:
    """How many pictures of this (width, height) are encoded at once."""
    return max(1, min(TOGETHER, TOGETHER_PX // (size[0] * size[1])))


@torch.inference_mode()
def encode_pictures(
    pipe: Any, files: Sequence[Path], pictures: Sequence[Image.Image]
) -> list[Tensor]:
    """Each picture's (2, c, h, w) mean and standard deviation of latents, scaled for the UNet.

    `pictures` are the files', framed by `load_picture`, all of one size; at most `together` of it.
    """
    filled = [*pictures, *[pictures[0]] * (together(pictures[0].size) - len(pictures))]
    pixels_bhwc = torch.from_numpy(np.stack([np.asarray(p, dtype=np.float32) for p in filled]))
    pixels_bchw = pixels_bhwc.permute(0, 3, 1, 2) / 127.5 - 1  # in memory still channels last
    posterior = pipe.vae.encode(pixels_bchw.to(pipe.device)).latent_dist
    both_bnchw = torch.stack([posterior.mean, posterior.std], 1).float().cpu()
    both_bnchw = both_bnchw[: len(files)] * pipe.vae.config.scaling_factor
    for file, both_nchw in zip(files, both_bnchw, strict=True):
        if not both_nchw.isfinite().all():
            raise UserError(
                f"picture {file}: the VAE's latents are not finite: look at the picture, or leave "
                "its rows out"
            )
    return [both_nchw.clone() for both_nchw in both_bnchw]


@torch.inference_mode()
def encode_captions(pipe: Any, captions: Sequence[str]) -> list[Text]:
    """What the UNet is told of up to TOGETHER captions, as the pipeline makes it when it draws."""
    filled = [*captions, *[""] * (TOGETHER - len(captions))]
    texts = family_of(pipe).encode(pipe, filled)[: len(captions)]
    return [{part: tensor.float().cpu() for part, tensor in text.items()} for text in texts]


def _where(pipe: Any) -> str:
    return f"{VERSION} {torch.__version__} {pipe.device.type}"


def _keyed_shots(
    pipe: Any,
    base: Path,
    files: Iterable[Path],
    framing: int | Mapping[Path, Framing],
    mirror: bool,
    workers: int | None,
) -> dict[Shot, str]:
    """Each picture, and its mirror image if asked for, with its key.

    How it is cut follows from its bytes and the target's size; how it is decoded and resized,
    from Pillow's version.
    """
    vae = f"{_where(pipe)} {PIL.__version__} {pipe.vae.dtype} {sha256_folder(base / 'vae')}"
    files = list(files)
    hashes = dict(zip(files, ahead(sha256_file, files, workers), strict=True))
    if isinstance(framing, int):
        targets = dict.fromkeys(files, (framing, framing))
    else:
        targets = {file: framing[file].target_px for file in files}
    ways = (False, True) if mirror else (False,)
    shots = [Shot(file, targets[file], mirrored) for file in files for mirrored in ways]
    return {
        shot: key_of(f"{vae} {shot.target_px} mirrored: {shot.mirrored}", hashes[shot.file])
        for shot in shots
    }


def _keyed_captions(pipe: Any, base: Path, captions: Iterable[str]) -> dict[tuple[str, str], str]:
    """Each caption's parts, side by side, with their keys."""
    family = family_of(pipe)
    folders = [sha256_folder(base / name) for name in (*family.ENCODERS, *family.TOKENIZERS)]
    choices = [f"{name} {pipe.config[name]}" for name in family.CHOICES]
    text = " ".join([_where(pipe), *folders, *choices])
    return {
        (caption, part): key_of(text, caption, *([] if part == "states" else [part]))
        for caption in dict.fromkeys(captions)
        for part in family.TEXT_PARTS
    }


def _pictures(
    pipe: Any,
    keyed: Mapping[Shot, str],
    folder: Path | None,
    workers: int | None,
    *,
    keep: bool = True,
) -> Kept:
    def make(shots: Iterable[Shot]) -> Generator[Tensor, None, None]:
        shots = list(shots)
        with closing(ahead(_load, shots, workers)) as pictures:
            for size, some in groupby(shots, lambda shot: shot.target_px):
                while part := [*islice(some, together(size))]:
                    files = [shot.file for shot in part]
                    yield from encode_pictures(pipe, files, [*islice(pictures, len(part))])

    by_size = sorted(keyed.items(), key=lambda item: item[0].target_px)
    wanted = {key: shot for shot, key in by_size}
    return through_cache(wanted, make, folder and folder / "pictures", keep=keep)


def _captions(
    pipe: Any,
    keyed: Mapping[tuple[str, str], str],
    folder: Path | None,
    *,
    keep: bool = True,
) -> Kept:
    def make(parts: Iterable[tuple[str, str]]) -> Generator[Tensor, None, None]:
        parts = list(parts)
        captions = list(dict.fromkeys(caption for caption, _ in parts))
        texts: dict[str, Text] = {}
        for caption, part in parts:
            if caption not in texts:
                some, captions = captions[:TOGETHER], captions[TOGETHER:]
                texts = dict(zip(some, encode_captions(pipe, some), strict=True))
            yield texts[caption][part]

    wanted = {key: part for part, key in keyed.items()}
    return through_cache(wanted, make, folder and folder / "captions", keep=keep)


def _texts(keyed: Mapping[tuple[str, str], str], tensors: Mapping[str, Tensor]) -> dict[str, Text]:
    texts: dict[str, dict[str, Tensor]] = {}
    for (caption, part), key in keyed.items():
        texts.setdefault(caption, {})[part] = tensors[key]
    return dict(texts)


def _load(shot: Shot) -> Image.Image:
    return load_picture(shot.file, shot.target_px, shot.mirrored)
