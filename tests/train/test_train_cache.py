"""The cache is found again by content, and is a function of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from unskew.errors import UserError
from unskew.families import Text, family_of
from unskew.pipelines import load_base
from unskew.train import cache, shards
from unskew.train.buckets import Framing
from unskew.train.cache import Encoded, Work, encode, fill_cache

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

    real_pictures, real_captions = cache.encode_pictures, cache.encode_captions

    def encode_pictures(pipe: Any, files: Sequence[Path], *more: Any) -> list[torch.Tensor]:
        made.extend(files)
        return real_pictures(pipe, files, *more)

    def encode_captions(pipe: Any, captions: Sequence[str]) -> list[Text]:
        made.extend(captions)
        return real_captions(pipe, captions)

    monkeypatch.setattr(cache, "encode_pictures", encode_pictures)
    monkeypatch.setattr(cache, "encode_captions", encode_captions)
    return made


def states(encoded: Encoded) -> dict[str, torch.Tensor]:
    return {caption: text["states"] for caption, text in encoded.texts.items()}


def same(one: Encoded, other: Encoded) -> bool:
    return all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
        for mine, theirs in (
            (one.posteriors, other.posteriors),
            (one.mirrored, other.mirrored),
            (states(one), states(other)),
        )
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


@pytest.mark.parametrize("base", ["tiny_base", "tiny_sdxl_base"])
def test_a_caption_is_the_same_in_any_company(base: str, request: pytest.FixtureRequest) -> None:
    """To the bit, at every place of a batch; and as alone, up to what the batch's size rounds."""
    pipe = load_base(request.getfixturevalue(base), torch.device("cpu"), torch.float32)
    captions = [f"a mechanic and {number} bananas" for number in range(40)]
    alone = cache.encode_captions(pipe, captions[:1])[0]
    for place in range(cache.TOGETHER):
        some = captions[place + 1 : place + cache.TOGETHER]
        found = cache.encode_captions(pipe, [*some[:place], captions[0], *some[place:]])[place]
        assert found.keys() == alone.keys()
        assert all(torch.equal(found[part], alone[part]) for part in alone)
    with torch.inference_mode():
        [bare] = family_of(pipe).encode(pipe, captions[:1])
    for part, tensor in bare.items():
        torch.testing.assert_close(alone[part], tensor, atol=1e-5, rtol=1e-5)


def test_every_caption_gets_its_own(
    pipe: StableDiffusionPipeline, tiny_base: Path, tmp_path: Path
) -> None:
    """More captions than a batch holds, some of them found: none gets another's states."""
    captions = [f"a picture of {number} bananas" for number in range(2 * cache.TOGETHER + 3)]
    encode(pipe, tiny_base, [], captions[::3], 16, tmp_path / "cache")
    encoded = encode(pipe, tiny_base, [], captions, 16, tmp_path / "cache")
    for caption in captions:
        [text] = cache.encode_captions(pipe, [caption])
        assert torch.equal(encoded.texts[caption]["states"], text["states"])


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
    monkeypatch.setattr(shards, "SHARD", 2)
    monkeypatch.setattr(cache, "TOGETHER", 1)
    with pytest.raises(KeyboardInterrupt), stopping_at(pictures[3]):
        encode(pipe, tiny_base, pictures, [], 16, tmp_path / "cache")
    newest = max((tmp_path / "cache" / "pictures").iterdir(), key=lambda f: f.stat().st_mtime_ns)
    newest.unlink()  # a stop has written it, a kill could not
    counted.clear()
    resumed = encode(pipe, tiny_base, pictures, CAPTIONS, 16, tmp_path / "cache")
    assert counted == [*pictures[2:], *CAPTIONS]
    assert same(resumed, encode(pipe, tiny_base, pictures, CAPTIONS, 16, None))


@contextmanager
def stopping_at(picture: Path) -> Iterator[None]:
    """Ctrl-C comes when this picture is to be encoded."""
    real = cache.encode_pictures

    def stops(pipe: Any, files: Sequence[Path], *more: Any) -> Any:
        if picture in files:
            raise KeyboardInterrupt
        return real(pipe, files, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "encode_pictures", stops)
        yield


def test_a_stop_while_encoding_costs_nothing(
    pipe: StableDiffusionPipeline,
    tiny_base: Path,
    pictures: list[Path],
    tmp_path: Path,
    counted: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is made when Ctrl-C or an error comes is put on disk, part of a shard as it is."""
    monkeypatch.setattr(cache, "TOGETHER", 1)
    with pytest.raises(KeyboardInterrupt), stopping_at(pictures[3]):
        encode(pipe, tiny_base, pictures, [], 16, tmp_path / "cache")
    counted.clear()
    resumed = encode(pipe, tiny_base, pictures, [], 16, tmp_path / "cache")
    assert counted == pictures[3:]
    assert resumed.work == Work(2, 3, 0, 0)


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
    torch.testing.assert_close(made.posteriors[pictures[0]], scaled)
    tokens = pipe.tokenizer(CAPTIONS[0], padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(made.texts[CAPTIONS[0]]["states"], pipe.text_encoder(tokens)[0][0])


def test_latents_that_are_not_finite_are_refused(
    pipe: StableDiffusionPipeline,
    tiny_base: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A VAE that overflows is found at its first picture."""
    bias = pipe.vae.quant_conv.bias
    monkeypatch.setattr(bias, "data", torch.full_like(bias, torch.inf))  # the pipe is shared
    with pytest.raises(UserError, match="are not finite"):
        encode(pipe, tiny_base, pictures, [], 16, None)


def test_every_way_of_showing_a_picture_is_an_entry_of_its_own(
    pipe: StableDiffusionPipeline,
    tiny_base: Path,
    pictures: list[Path],
    tmp_path: Path,
    counted: list[object],
) -> None:
    """Its size and its mirror image are part of the key; how it was framed before is found."""
    framings = {file: Framing.of((16, 16), (24, 16)) for file in pictures}
    plain = encode(pipe, tiny_base, pictures, [], 16, tmp_path / "cache")
    assert not plain.mirrored
    both = encode(pipe, tiny_base, pictures, [], 16, tmp_path / "cache", mirror=True)
    assert both.work == Work(5, 5, 0, 0)
    wide = encode(pipe, tiny_base, pictures, [], framings, tmp_path / "cache", mirror=True)
    assert wide.work == Work(10, 0, 0, 0)
    assert {t.shape for t in (*wide.posteriors.values(), *wide.mirrored.values())} == {
        (2, 8, 8, 12)
    }
    assert same(plain, Encoded(both.posteriors, {}))
    Image.open(pictures[0]).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "m.png")
    turned = encode(pipe, tiny_base, [tmp_path / "m.png"], [], 16, None)
    assert torch.equal(turned.posteriors[tmp_path / "m.png"], both.mirrored[pictures[0]])


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_no_bit(
    pipe: StableDiffusionPipeline, tiny_base: Path, pictures: list[Path], workers: int
) -> None:
    """Pictures read ahead in any number of threads are encoded as those read one by one."""
    framings = {
        file: Framing.of((16, 16), ((16, 16), (24, 16))[n % 2]) for n, file in enumerate(pictures)
    }
    alone = encode(pipe, tiny_base, pictures, [], framings, None, mirror=True, workers=0)
    assert same(
        alone, encode(pipe, tiny_base, pictures, [], framings, None, mirror=True, workers=workers)
    )


def test_an_entry_does_not_depend_on_the_others(
    pipe: StableDiffusionPipeline, tiny_base: Path, pictures: list[Path], tmp_path: Path
) -> None:
    """Pictures are encoded together, but in any order and company a picture's bits are the same."""
    whole = encode(pipe, tiny_base, pictures, [], 16, None)
    for file in reversed(pictures):
        encode(pipe, tiny_base, [file], [], 16, tmp_path / "cache")
    assert same(whole, encode(pipe, tiny_base, pictures, [], 16, tmp_path / "cache"))


@pytest.mark.parametrize("side_px", [16, 128, 192])
def test_a_picture_is_the_same_at_every_place(
    pipe: StableDiffusionPipeline, pictures: list[Path], side_px: int
) -> None:
    """To the bit, whatever it is encoded together with; large ones are few together."""
    size = (side_px, side_px)
    shown = [Image.open(file).convert("RGB").resize(size) for file in pictures]
    [alone] = cache.encode_pictures(pipe, pictures[:1], shown[:1])
    most = cache.together(size)
    assert most == min(16, 512 * 512 // side_px**2)
    for place in range(most):
        order = [1 + n % 4 for n in range(most)]
        order[place] = 0
        made = cache.encode_pictures(pipe, [pictures[n] for n in order], [shown[n] for n in order])
        assert torch.equal(made[place], alone)


def test_pictures_of_the_size_that_bases_draw_are_encoded_alone() -> None:
    """Together they would need many times the memory, for no more speed."""
    assert [cache.together(size) for size in ((512, 512), (768, 512), (1024, 1024))] == [1, 1, 1]


def test_the_cache_can_be_filled_beforehand(
    pipe: StableDiffusionPipeline, tiny_base: Path, pictures: list[Path], tmp_path: Path
) -> None:
    """It says what it made and found, and what follows finds all of it, to the bit."""
    folder = tmp_path / "cache"
    encode(pipe, tiny_base, pictures[:2], [], 16, folder)
    work = fill_cache(pipe, tiny_base, pictures, CAPTIONS, 16, folder)
    assert str(work) == ("3 pictures encoded, 2 found in the cache; 3 captions encoded, 0 found")
    again = encode(pipe, tiny_base, pictures, CAPTIONS, 16, folder)
    assert again.work == Work(0, 5, 0, 3)
    assert same(again, encode(pipe, tiny_base, pictures, CAPTIONS, 16, None))
