"""The cache is found again by content, and is a function of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from unskew.errors import UserError
from unskew.pipelines import load_base
from unskew.train import cache
from unskew.train.cache import Encoded, encode

CAPTIONS = ["a mechanic", "a woman mechanic", ""]


@pytest.fixture(scope="module")
def pipe(tiny_base: Path) -> StableDiffusionPipeline:
    """The tiny base."""
    return load_base(tiny_base, torch.device("cpu"), torch.float32)


@pytest.fixture
def pictures(tiny_dataset: Path, tmp_path: Path) -> list[Path]:
    """Five pictures that a test may change."""
    return [
        Path(shutil.copy(file, tmp_path / file.name))
        for file in sorted((tiny_dataset / "images").iterdir())[:5]
    ]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What has been encoded, and not read, so far."""
    made: list[object] = []

    def counting(name: str) -> Callable[..., Any]:
        real = getattr(cache, name)

        def encode_one(pipe: Any, item: object, *more: Any) -> Any:
            made.append(item)
            return real(pipe, item, *more)

        return encode_one

    for name in ("encode_picture", "encode_caption"):
        monkeypatch.setattr(cache, name, counting(name))
    return made


def same(one: Encoded, other: Encoded) -> bool:
    return all(torch.equal(one.posteriors[k], other.posteriors[k]) for k in one.posteriors) and all(
        torch.equal(one.states[k], other.states[k]) for k in one.states
    )


def test_nothing_is_encoded_twice(
    pipe: StableDiffusionPipeline,
    tiny_base: Path,
    pictures: list[Path],
    tmp_path: Path,
    counted: list[object],
) -> None:
    """A second run reads all of it back, to the bit; a third with more makes only what is new."""
    first = encode(pipe, tiny_base, pictures[:4] * 2, CAPTIONS * 2, 16, tmp_path / "cache")
    assert len(counted) == 7
    again = encode(pipe, tiny_base, pictures[:4], CAPTIONS, 16, tmp_path / "cache")
    assert len(counted) == 7
    assert same(first, again)
    encode(pipe, tiny_base, pictures, [*CAPTIONS, "new"], 16, tmp_path / "cache")
    assert counted[7:] == [pictures[4], "new"]


def test_a_changed_picture_is_encoded_anew(
    pipe: StableDiffusionPipeline, tiny_base: Path, pictures: list[Path], tmp_path: Path
) -> None:
    """The key is the picture's bytes, so an edit under the same name and time shows."""
    before = encode(pipe, tiny_base, pictures, [], 16, tmp_path / "cache")
    stat = pictures[0].stat()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(pictures[0])
    os.utime(pictures[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = encode(pipe, tiny_base, pictures, [], 16, tmp_path / "cache")
    assert not torch.equal(before.posteriors[pictures[0]], after.posteriors[pictures[0]])
    assert torch.equal(before.posteriors[pictures[1]], after.posteriors[pictures[1]])


def test_other_weights_or_sizes_share_nothing(
    pipe: StableDiffusionPipeline,
    tiny_base: Path,
    pictures: list[Path],
    tmp_path: Path,
    counted: list[object],
) -> None:
    """Another resolution or another VAE is another key."""
    encode(pipe, tiny_base, pictures[:1], [], 16, tmp_path / "cache")
    encode(pipe, tiny_base, pictures[:1], [], 32, tmp_path / "cache")
    other = Path(shutil.copytree(tiny_base, tmp_path / "other"))
    (other / "vae" / "config.json").write_text("{}")
    encode(pipe, other, pictures[:1], [], 16, tmp_path / "cache")
    assert len(counted) == 3


def test_a_kill_while_encoding_costs_at_most_one_shard(
    pipe: StableDiffusionPipeline,
    tiny_base: Path,
    pictures: list[Path],
    tmp_path: Path,
    counted: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was on disk is not made again, and the whole has the bits of an undisturbed run."""
    monkeypatch.setattr(cache, "SHARD", 2)
    real = cache.encode_picture

    def dies(pipe: Any, file: Path, *more: Any) -> Any:
        if file == pictures[3]:
            raise KeyboardInterrupt
        return real(pipe, file, *more)

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(cache, "encode_picture", dies)
        encode(pipe, tiny_base, pictures, [], 16, tmp_path / "cache")
    counted.clear()
    resumed = encode(pipe, tiny_base, pictures, CAPTIONS, 16, tmp_path / "cache")
    assert counted == [*pictures[2:], *CAPTIONS]
    assert same(resumed, encode(pipe, tiny_base, pictures, CAPTIONS, 16, None))


def test_a_broken_shard_is_made_anew(
    pipe: StableDiffusionPipeline,
    tiny_base: Path,
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file that cannot be read is named and replaced."""
    before = encode(pipe, tiny_base, pictures, CAPTIONS, 16, tmp_path / "cache")
    for shard in (tmp_path / "cache").rglob("*.safetensors"):
        shard.write_bytes(shard.read_bytes()[:50])
    after = encode(pipe, tiny_base, pictures, CAPTIONS, 16, tmp_path / "cache")
    assert same(before, after)
    assert "made anew" in capsys.readouterr().err


def test_encodings_are_the_pipelines_own(
    pipe: StableDiffusionPipeline, tiny_base: Path, pictures: list[Path]
) -> None:
    """Mean and deviation of the VAE's posterior, scaled; the text encoder's last hidden state."""
    made = encode(pipe, tiny_base, pictures[:1], CAPTIONS[:1], 16, None)
    pixels = torch.from_numpy(np.asarray(Image.open(pictures[0]), np.float32))
    posterior = pipe.vae.encode(pixels.permute(2, 0, 1)[None] / 127.5 - 1).latent_dist
    scaled = torch.cat([posterior.mean, posterior.std]) * pipe.vae.config.scaling_factor
    assert torch.equal(made.posteriors[pictures[0]], scaled)
    tokens = pipe.tokenizer(CAPTIONS[0], padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(made.states[CAPTIONS[0]], pipe.text_encoder(tokens)[0][0])


def test_latents_that_are_not_finite_are_refused(
    pipe: StableDiffusionPipeline,
    tiny_base: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A VAE that overflows is found at its first picture."""
    last = pipe.vae.quant_conv
    monkeypatch.setattr(last, "bias", torch.nn.Parameter(torch.full_like(last.bias, torch.inf)))
    with pytest.raises(UserError, match="are not finite"):
        encode(pipe, tiny_base, pictures, [], 16, None)
