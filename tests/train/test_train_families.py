"""Every family trains to the end, whatever of it is trained and however, and others can read it."""

from __future__ import annotations

import json
import runpy
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from unskew.adapters import WEIGHTS_FILE, load_adapter
from unskew.families import family_of, stack_texts
from unskew.kohya import KOHYA_FILE
from unskew.pipelines import check_base, load_base
from unskew.runs import read_manifest, sha256_file
from unskew.settings import run_program
from unskew.train import lora

Argv = Callable[..., list[str]]
reader = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[1] / "oracles" / "kohya_reader.py"))
)
BOTH = ("--lora.components", "unet", "text_encoder")
TEXT = ("--lora.components", "text_encoder")
RSLORA = ("--lora.use_rslora", "true")
DORA = ("--lora.use_dora", "true")
EVERYTHING = (
    *("--resolution_px", "32", "--pictures.aspect_buckets", "true"),
    *("--pictures.bucket_step_px", "8", "--pictures.horizontal_flip", "true"),
    *("--objective.loss_weights", "min_snr", "--objective.noise_offset", "0.1"),
    *("--objective.caption_dropout", "0.3", "--optimizer.average_decay", "0.9"),
    *("--samples.every", "3", "--samples.guidance", "2.0"),
)
RUNS = [
    ("tiny_base", BOTH),
    ("tiny_base", TEXT),
    ("tiny_base", (*BOTH, "--lora.target_modules", "to_q", "fc1")),
    ("tiny_base", (*BOTH, *RSLORA)),
    ("tiny_base", (*BOTH, *DORA)),
    ("tiny_base", (*BOTH, "--objective.zero_terminal_snr", "true", "--samples.every", "3")),
    ("tiny_base", (*BOTH, *EVERYTHING)),
    ("tiny_sd15_like_base", (*BOTH, *EVERYTHING)),
    ("tiny_sdxl_base", ()),
    ("tiny_sdxl_base", BOTH),
    ("tiny_sdxl_base", TEXT),
    ("tiny_sdxl_base", (*BOTH, *RSLORA)),
    ("tiny_sdxl_base", (*BOTH, *DORA)),
    ("tiny_sdxl_base", (*BOTH, "--objective.target", "picture")),
    ("tiny_sdxl_base", (*BOTH, *EVERYTHING, "--lora.target_modules", "with_convolutions")),
]
SIZES = ((32, 48), (48, 32), (40, 40), (64, 40))


@pytest.fixture
def photographs(dataset_copy: Path) -> Path:
    """The tiny dataset with pictures of several shapes."""
    for number, file in enumerate(sorted((dataset_copy / "images").iterdir())):
        with Image.open(file) as picture:
            picture.resize(SIZES[number % len(SIZES)]).save(file)
    return dataset_copy


def outputs(pipe: Any) -> list[Tensor]:
    """What the encoders say of a few captions, and what the UNet predicts for them."""
    family = family_of(pipe)
    with torch.inference_mode():
        texts = stack_texts(family.encode(pipe, ["a mechanic", "a red apple", "a house"]))
        generator = torch.Generator().manual_seed(1)
        noise = torch.randn(3, 8, 8, 8, generator=generator)
        sizes = torch.tensor([[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]] * 3)
        told = family.told(texts, sizes)
        predicted = pipe.unet(noise, torch.tensor([1, 500, 999]), **told).sample
    return [*texts.values(), predicted]


def plain_diffusers(base: Path, adapter: Path) -> Any:
    """A pipeline that knows nothing of Unskew, with the adapter as its own loader reads it."""
    family = check_base(base)
    pipe = family.PIPELINE.from_pretrained(base, **family.LOADING)
    pipe.load_lora_weights(str(adapter.parent), weight_name=adapter.name, local_files_only=True)
    return pipe


def merged_by_kohyas_rules(base: Path, file: Path) -> Any:
    pipe = load_base(base, torch.device("cpu"), torch.float32)
    names = ("unet", *family_of(pipe).ENCODERS)
    models = reader.merged(file, *(getattr(pipe, name) for name in names))
    for name, model in zip(names, models, strict=True):
        setattr(pipe, name, model)
    return pipe


def close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("name", "words"), RUNS, ids=lambda part: str(part)[-60:])
def test_a_run_ends_with_an_adapter_that_all_read_alike(
    name: str,
    words: tuple[str, ...],
    photographs: Path,
    argv: Argv,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Exit 0 and a proof; plain diffusers and a reader of Kohya's file get what we load back."""
    base, out = request.getfixturevalue(name), tmp_path / "run"
    given = ("--base", str(base), "--dataset", str(photographs), *words)
    assert run_program(lora.main, argv(out, *given)) == 0
    facts = read_manifest(out)["facts"]
    assert facts["difference"] <= 1e-6 and facts["effect"] > 0
    adapter = out / "adapter" / WEIGHTS_FILE
    parts = {key.split(".")[0] for key in safetensors.torch.load_file(adapter)}
    encoders = set(check_base(base).ENCODERS) if "text_encoder" in words else set()
    assert parts == encoders | (set() if words[: len(TEXT)] == TEXT else {"unet"})
    ours = load_base(base, torch.device("cpu"), torch.float32)
    bare = outputs(ours)
    load_adapter(ours, adapter, "a")
    trained = outputs(ours)
    assert not torch.equal(trained[-1], bare[-1])
    assert torch.equal(trained[0], bare[0]) == (not encoders)
    close(outputs(plain_diffusers(base, adapter)), trained)
    close(outputs(merged_by_kohyas_rules(base, out / "adapter" / KOHYA_FILE)), trained)


@pytest.mark.parametrize("name", ["tiny_base", "tiny_sdxl_base"])
def test_a_stopped_run_goes_on_to_the_same_bits(
    name: str,
    photographs: Path,
    argv: Argv,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """With everything on, encoders trained and weights averaged, a signal changes no bit."""
    base = request.getfixturevalue(name)
    given = ("--base", str(base), "--dataset", str(photographs), *BOTH, *EVERYTHING)
    assert run_program(lora.main, argv(tmp_path / "whole", *given)) == 0
    real = lora.train_step

    def train_step(training: Any, step: int) -> dict[str, float]:
        if step == 2:
            signal.raise_signal(signal.SIGTERM)
        return real(training, step)

    with monkeypatch.context() as patched:
        patched.setattr(lora, "train_step", train_step)
        assert run_program(lora.main, argv(tmp_path / "stopped", *given)) == 143
    assert run_program(lora.main, argv(tmp_path / "stopped", *given)) == 0
    for file in (WEIGHTS_FILE, KOHYA_FILE):
        ours, theirs = (tmp_path / run / "adapter" / file for run in ("whole", "stopped"))
        assert sha256_file(ours) == sha256_file(theirs)


@pytest.mark.parametrize("name", ["tiny_base", "tiny_sdxl_base"])
def test_half_precision_is_proved_too(
    name: str, argv: Argv, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Under a bf16 UNet the encoders stay in full, here and in the base that proves it."""
    base, out = request.getfixturevalue(name), tmp_path / "run"
    assert run_program(lora.main, argv(out, "--base", str(base), "--dtype", "bf16", *BOTH)) == 0
    assert read_manifest(out)["facts"]["difference"] <= 1e-6


@pytest.mark.parametrize("name", ["tiny_base", "tiny_sdxl_base"])
def test_samples_show_what_the_encoders_learned(
    name: str, argv: Argv, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With text encoders trained alone, the grid of the last step differs from the first one's."""
    base, out = request.getfixturevalue(name), tmp_path / "run"
    words = ("--base", str(base), *TEXT, "--samples.every", "6", "--optimizer.learning_rate", "0.1")
    assert run_program(lora.main, argv(out, *words)) == 0
    before, after = ((out / "samples" / f"step-{step:06d}.png").read_bytes() for step in (0, 6))
    assert before != after


def test_the_empty_caption_is_cached_as_each_base_has_it(
    argv: Argv, tmp_path: Path, tiny_sdxl_base: Path
) -> None:
    """Two SDXL bases that differ in their empty prompt alone do not share its cache entry."""
    other = Path(shutil.copytree(tiny_sdxl_base, tmp_path / "other"))
    index = json.loads((other / "model_index.json").read_text())
    index["force_zeros_for_empty_prompt"] = False
    (other / "model_index.json").write_text(json.dumps(index))
    words = ("--objective.caption_dropout", "0.5", "--steps", "2")
    for base, out in ((tiny_sdxl_base, "a"), (other, "b")):
        assert run_program(lora.main, argv(tmp_path / out, "--base", str(base), *words)) == 0
    ours, theirs = (
        safetensors.torch.load_file(tmp_path / out / "adapter" / WEIGHTS_FILE) for out in ("a", "b")
    )
    assert any(not torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def test_zero_terminal_snr_is_refused_where_noise_is_predicted(
    argv: Argv, tmp_path: Path, tiny_sdxl_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SDXL predicts the noise, of which nothing can be learned where all is noise."""
    words = argv(
        *(tmp_path / "run", "--base", str(tiny_sdxl_base)),
        *("--objective.zero_terminal_snr", "true"),
    )
    assert run_program(lora.main, words) == 2
    assert "objective.zero_terminal_snr is true, but the base predicts" in capsys.readouterr().err
