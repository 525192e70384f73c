"""Training in less memory, or compiled, trains the same."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

from unskew.adapters import WEIGHTS_FILE
from unskew.runs import read_manifest
from unskew.settings import run_program
from unskew.train import lora, memory
from unskew.train.estimate import GIB, Peak, Phase, one_pass, pass_bytes, phases, table
from unskew.train.inputs import Inputs
from unskew.train.memory import choose_checkpointing, compile_blocks
from unskew.train.training import Training

Argv = Callable[..., list[str]]
Load = Callable[[list[str]], tuple[Training, Inputs]]
CPU = torch.device("cpu")
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")


def weights_after(training: Training, steps: int) -> dict[str, torch.Tensor]:
    for step in range(steps):
        lora.train_step(training, step)
        training.stepper.read()
    return {name: p.detach().clone() for name, p in training.parameters.items()}


@pytest.mark.parametrize(
    "more",
    [
        ("--lora.target-modules", "all_linear"),
        ("--lora.use-dora", "True"),
        ("--lora.components", "unet", "text_encoder"),
        ("--dtype", "bf16"),
    ],
    ids=["fused", "peft", "text encoders", "bf16"],
)
def test_checkpointing_trains_the_same(
    argv: Argv, load: Load, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """Three steps of about 2e-3 end within 1e-7: what is computed twice is computed alike."""
    weights, peaks = [], []
    for asked in ("off", "on"):
        words = argv(tmp_path / asked, "--memory.gradient-checkpointing", asked, *more)
        training, _ = load(words)
        assert choose_checkpointing(training) == f"gradient checkpointing: {asked} (as given)"
        peaks.append(pass_bytes(training, 12))
        weights.append(weights_after(training, 3))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=1e-7, rtol=0)
    assert peaks[1] < 0.7 * peaks[0]


@pytest.mark.parametrize(("free", "on"), [(1.2, False), (1.1, True)])
def test_on_a_gpu_checkpointing_is_used_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, free: float, on: bool
) -> None:
    """By itself when a step is estimated, with a margin, at more than is free; both are said."""
    switched: list[int] = []
    unet = SimpleNamespace(enable_gradient_checkpointing=lambda: switched.append(1))
    training: Any = SimpleNamespace(
        settings=SimpleNamespace(memory=SimpleNamespace(gradient_checkpointing="auto")),
        accelerator=SimpleNamespace(device=torch.device("cuda")),
        pipe=SimpleNamespace(unet=unet),
        models={"unet": unet},
    )
    monkeypatch.setattr(memory, "step_bytes", lambda _: GIB)
    monkeypatch.setattr(memory, "free_bytes", lambda _: int(free * GIB))
    said = str(choose_checkpointing(training))
    assert said.startswith(f"gradient checkpointing: {'on' if on else 'off'} (auto: ")
    assert f"a step needs about 1.0 GiB, {free:.1f} GiB are free" in said
    assert bool(switched) == on


def test_on_a_cpu_checkpointing_must_be_asked_for(argv: Argv, load: Load, tmp_path: Path) -> None:
    """By itself it says nothing, measures nothing, and leaves it off."""
    training, _ = load(argv(tmp_path / "run"))
    assert choose_checkpointing(training) is None
    assert not training.pipe.unet.is_gradient_checkpointing


@needs_bitsandbytes
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_run_on_a_quantised_base_is_proved_on_one(argv: Argv, tmp_path: Path, kind: str) -> None:
    """UNet and text encoder alike: loaded into a fresh one, the adapter does exactly the same."""
    out = tmp_path / "run"
    words = argv(out, "--memory.quantize", kind, "--lora.components", "unet", "text_encoder")
    assert run_program(lora.main, words) == 0
    facts = read_manifest(out)["facts"]
    assert facts["difference"] == 0
    assert facts["effect"] > 0
    weights = safetensors.torch.load_file(out / "adapter" / WEIGHTS_FILE).values()
    assert {t.dtype for t in weights} == {torch.float32}


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of what it does itself
def test_compiled_blocks_train_the_same(argv: Argv, load: Load, tmp_path: Path) -> None:
    """Three steps, teacher's pass included, end within 2e-4: adapters are switched there too."""
    weights = []
    for asked in ("off", "regional"):
        words = argv(tmp_path / asked, "--memory.compile", asked)
        training, _ = load(words)
        said = compile_blocks(training)
        assert said is None if asked == "off" else "are compiled" in str(said)
        weights.append(weights_after(training, 3))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=2e-4, rtol=0)


def test_where_compiling_fails_training_goes_on_without(
    argv: Argv, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is said, no block stays half compiled, and steps are those of before."""
    bare, _ = load(argv(tmp_path / "off"))
    training, _ = load(argv(tmp_path / "regional", "--memory.compile", "regional"))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)  # like its own, it fails when run
    said = compile_blocks(training)
    assert said == "memory.compile regional failed (no compiler): training goes on without it"
    ours, theirs = weights_after(training, 1), weights_after(bare, 1)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_peak_counts_what_is_made_and_let_go() -> None:
    """New tensors once, views never, what is gone no more; on one device."""
    given = torch.ones(1000)
    with Peak(CPU) as peak:
        one = given + 1
        view = one.view(10, 100)[2:]
        view.add_(1)
        assert (peak.alive, peak.most) == (4000, 4000)
        two = one * 2
        del one, view
        assert (peak.alive, peak.most) == (4000, 8000)
        torch.empty(500, device="meta")
        del two
    assert (peak.alive, peak.most) == (0, 8000)


def test_the_estimate_is_what_a_pass_takes(argv: Argv, load: Load, tmp_path: Path) -> None:
    """Twelve rows by a line through one and two, against torch's own profiler: within a fifth."""
    training, _ = load(argv(tmp_path / "run"))
    expected = pass_bytes(training, 12)
    rows = training.batches.rows(0)
    with torch.profiler.profile(profile_memory=True) as profile:
        one_pass(training, rows)
    alive = most = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            alive += event.nbytes()
            most = max(most, alive)
    assert most > 0
    assert expected == pytest.approx(most, rel=0.2)


def test_the_phases_are_counted_from_what_is_there(argv: Argv, load: Load, tmp_path: Path) -> None:
    """LoRA, gradients and AdamW's two figures are 4, 4 and 8 bytes of each number; a line each."""
    training, inputs = load(argv(tmp_path / "run", "--optimizer.average-decay", "0.9"))
    caching, stepping, proof = phases(training, inputs)
    trained = sum(p.numel() for p in training.parameters.values())
    assert (stepping.lora, stepping.gradients, stepping.optimizer) == tuple(
        factor * trained for factor in (8, 4, 8)
    )
    frozen = [p for p in training.pipe.unet.parameters() if not p.requires_grad]
    vae = list(training.pipe.vae.parameters())
    assert stepping.base >= 4 * sum(p.numel() for p in (*frozen, *vae))
    assert caching.activations > 0 and stepping.activations > 0
    assert proof.base > stepping.base
    assert stepping.all == (stepping.base + stepping.activations + 20 * trained)
    lines = table((Phase("training", 2 * GIB, optimizer=GIB),)).splitlines()
    assert lines[0].split() == "memory, GiB base lora gradients optimizer activations all".split()
    assert lines[1].split() == "training 2.000 0.000 0.000 1.000 0.000 3.000".split()
