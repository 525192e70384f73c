"""Training, whole and in small: exact, stoppable, guarded, and proved at the end."""

from __future__ import annotations

import json
import os
import signal
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from accelerate import Accelerator
from torch import Tensor

from unskew.adapters import WEIGHTS_FILE
from unskew.runs import read_manifest, sha256_file
from unskew.settings import run_program
from unskew.train import dry_run as rehearsal
from unskew.train import lora, proof, surroundings
from unskew.train.checkpoints import LORA
from unskew.train.numerics import learning_rate
from unskew.train.options import OptimizerSettings

Argv = Callable[..., list[str]]


def adapter(out: Path) -> str:
    return sha256_file(out / "adapter" / WEIGHTS_FILE)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int, number: int) -> None:
    """Send ourselves a signal in the middle of step `steps`."""
    real = lora.train_step

    def train_step(training: Any, step: int) -> None:
        if step == steps - 1:
            signal.raise_signal(number)
        real(training, step)

    monkeypatch.setattr(lora, "train_step", train_step)


def test_a_run_from_beginning_to_end(
    argv: Argv, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that is promised lies in the folder; the same command again has nothing to do."""
    out = tmp_path / "run"
    words = argv(out, "--samples.every", "3", "--tracker", "tensorboard", "--json")
    assert run_program(lora.main, words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert Path(answer["adapter"]) == out / "adapter" / WEIGHTS_FILE
    manifest = read_manifest(out)
    assert manifest["status"] == "complete"
    assert manifest["facts"]["adapter_sha256"] == adapter(out)
    assert manifest["facts"]["difference"] == 0
    assert manifest["facts"]["effect"] > 0
    assert set(manifest["inputs"]) == {"base", "dataset"}
    assert {f.name for f in (out / "checkpoints").iterdir()} == {
        f"step-00000{n}" for n in (2, 4, 6)
    }
    assert len(list((out / "samples").glob("step-*.png"))) == 3
    assert list((out / "tensorboard").rglob("events.*"))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(line["gradient_norm"] > 0 for line in lines)
    made = {file: file.stat().st_mtime_ns for file in out.rglob("[!.]*") if file.is_file()}
    assert run_program(lora.main, words) == 0
    assert "complete already" in capsys.readouterr().err
    assert {f: f.stat().st_mtime_ns for f in out.rglob("[!.]*") if f.is_file()} == made


def test_the_same_command_gives_the_same_bits(argv: Argv, tmp_path: Path) -> None:
    """Two runs with equal settings write equal adapters; another seed another one."""
    outs = [tmp_path / name for name in ("one", "two", "three")]
    for out, seed in zip(outs, "001", strict=True):
        assert run_program(lora.main, argv(out, "--seed", seed, "--dtype", "bf16")) == 0
    assert adapter(outs[0]) == adapter(outs[1]) != adapter(outs[2])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_and_saves(
    argv: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """Stopped in step 3 it saves step 3, says interrupted, and goes on to the undisturbed bits."""
    assert run_program(lora.main, argv(tmp_path / "whole")) == 0
    out = tmp_path / "stopped"
    with monkeypatch.context() as patched:
        interrupt_after(patched, 3, number)
        assert run_program(lora.main, argv(out)) == code
    assert read_manifest(out)["status"] == "interrupted"
    assert (out / "checkpoints" / "step-000003").is_dir()
    assert not (out / "adapter").exists()
    assert run_program(lora.main, argv(out)) == 0
    assert read_manifest(out)["resumed"]
    assert adapter(out) == adapter(tmp_path / "whole")
    metrics = [(p / "metrics.jsonl").read_text().splitlines() for p in (out, tmp_path / "whole")]
    losses = [[json.loads(line)["loss"] for line in lines] for lines in metrics]
    assert losses[0] == losses[1]


def test_resume_means_what_it_says(
    argv: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never starts over; a path is begun with, and then gone on from; all end in the same bits."""
    whole = tmp_path / "whole"
    assert run_program(lora.main, argv(whole)) == 0
    out = tmp_path / "stopped"
    with monkeypatch.context() as patched:
        interrupt_after(patched, 5, signal.SIGINT)
        run_program(lora.main, argv(out))
    capsys.readouterr()
    assert run_program(lora.main, argv(out, "--resume", "never")) == 0
    assert "going on from" not in capsys.readouterr().err
    path = tmp_path / "path"
    checkpoint = whole / "checkpoints" / "step-000004"
    assert run_program(lora.main, argv(path, "--resume", str(checkpoint))) == 0
    assert f"going on from {checkpoint}" in capsys.readouterr().err
    assert "checkpoint" in read_manifest(path)["inputs"]
    again = tmp_path / "again"
    words = argv(again, "--resume", str(whole / "checkpoints" / "step-000002"))
    with monkeypatch.context() as patched:
        interrupt_after(patched, 5, signal.SIGINT)
        assert run_program(lora.main, words) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert run_program(lora.main, words) == 0
    assert f"going on from {again / 'checkpoints' / 'step-000005'}" in capsys.readouterr().err
    assert adapter(again) == adapter(whole)
    assert adapter(out) == adapter(path) == adapter(whole)


def test_other_settings_in_the_same_folder_are_refused(
    argv: Argv, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message shows the difference."""
    assert run_program(lora.main, argv(tmp_path / "run", "--steps", "2")) == 0
    assert run_program(lora.main, argv(tmp_path / "run", "--steps", "3")) == 2
    assert "steps: 2 -> 3" in capsys.readouterr().err


def test_a_dry_run_leaves_nothing(
    argv: Argv, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints settings, counts, an estimate and the proof of what it saved; nothing stays."""
    before = sorted(tmp_path.iterdir())
    assert run_program(lora.main, argv(tmp_path / "run", "--dry-run")) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["settings"]["lora"]["rank"] == 4
    assert report["seconds_per_step"] > 0
    assert report["effect"] > 0
    assert report["difference"] <= 1e-6
    assert set(report["estimated_memory_gib"]) == {"caching", "training", "proof"}
    assert "neutral: 30 rows of 2 subjects" in said.err
    assert sorted(tmp_path.iterdir()) == before


def test_clipping_clips(argv: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimizer sees a gradient no longer than clip_norm; its true norm is logged."""
    norms: list[float] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *more: Any) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
        return real(self, *more)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    assert run_program(lora.main, argv(tmp_path / "run", "--optimizer.clip-norm", "1e-3")) == 0
    assert len(norms) == 6
    assert norms == pytest.approx([1e-3] * 6, rel=1e-2)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["gradient_norm"] > 1e-3


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_before_the_step(
    argv: Argv,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
) -> None:
    """The error names step and rows; the run is failed; the last checkpoint is of before."""
    real, calls = lora.row_losses, []

    def row_losses(*arguments: Tensor) -> Tensor:
        losses = real(*arguments)
        calls.append(1)
        if len(calls) < 4:
            return losses
        if where == "loss":
            return torch.cat([losses[:1] * float("nan"), losses[1:]])
        losses.register_hook(lambda gradient: gradient * float("inf"))
        return losses

    monkeypatch.setattr(lora, "row_losses", row_losses)
    out = tmp_path / "run"
    assert run_program(lora.main, argv(out)) == 2
    said = capsys.readouterr().err
    assert "step 4: loss " in said
    assert ("over 1 rows" if where == "loss" else "over 12 rows") in said
    assert ".png: 'a " in said
    assert read_manifest(out)["status"] == "failed"
    assert [f.name for f in (out / "checkpoints").iterdir()] == ["step-000002"]
    assert not (out / "adapter").exists()


def test_an_adapter_without_effect_is_an_error(
    argv: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training that changed nothing does not end as if it had."""
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    assert run_program(lora.main, argv(tmp_path / "run")) == 2
    assert "the trained adapter changes nothing" in capsys.readouterr().err
    assert not (tmp_path / "run" / "adapter").exists()


def test_an_adapter_that_comes_back_otherwise_is_an_error(
    argv: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that loads at another strength is never called complete."""
    real = proof.load_adapter
    monkeypatch.setattr(proof, "load_adapter", lambda *a: real(*a, weight=0.5))
    assert run_program(lora.main, argv(tmp_path / "run")) == 70
    assert "differs from the trained adapter by" in capsys.readouterr().err
    assert read_manifest(tmp_path / "run")["status"] == "failed"
    assert not (tmp_path / "run" / "adapter").exists()


def test_a_proof_holds_one_fresh_base_at_a_time(
    argv: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the first file is gone before the second file's is loaded: two may not fit a GPU."""
    loaded: list[weakref.ref[Any]] = []
    real = proof.load_unet

    def load_unet(*given: Any) -> Any:
        assert not [unet for unet in loaded if unet() is not None]
        unet = real(*given)
        loaded.append(weakref.ref(unet))
        return unet

    monkeypatch.setattr(proof, "load_unet", load_unet)
    assert run_program(lora.main, argv(tmp_path / "run")) == 0
    assert len(loaded) == 2


def test_training_moves_towards_the_target(argv: Argv, tmp_path: Path) -> None:
    """Forty steps lower the loss: predict, compare and step are joined up."""
    words = argv(
        tmp_path / "run", "--steps", "40", "--objective.target", "picture", "--log-every", "1"
    )
    assert run_program(lora.main, [*words, "--optimizer.learning-rate", "0.02"]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert sum(losses[-10:]) < 0.98 * sum(losses[:10])


def test_half_precision_keeps_the_lora_in_full(argv: Argv, tmp_path: Path) -> None:
    """Under a bf16 base, checkpoint and adapter are fp32 and hold what bf16 could not."""
    assert run_program(lora.main, argv(tmp_path / "run", "--dtype", "bf16")) == 0
    files = [*(tmp_path / "run").rglob(WEIGHTS_FILE), *(tmp_path / "run").rglob(LORA)]
    for file in files:
        tensors = safetensors.torch.load_file(file).values()
        assert {t.dtype for t in tensors} == {torch.float32}
        assert any(not torch.equal(t, t.bfloat16().float()) for t in tensors)


def test_accelerate_launch_costs_no_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher's one thread is undone; one thread that the user asked for stays."""
    threads, accelerator = torch.get_num_threads(), Accelerator(cpu=True)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        surroundings.take_cores(accelerator)
        assert torch.get_num_threads() == threads
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        surroundings.take_cores(accelerator)
        assert torch.get_num_threads() == 6
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        surroundings.take_cores(accelerator)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_the_learning_rate_rises_and_falls() -> None:
    """Linear to the top in the warm-up, and within one cosine step of 0 at the end."""
    settings = OptimizerSettings(learning_rate=1.0, warmup_steps=10, weight_decay=0, clip_norm=1)
    rates = [learning_rate(step, settings, 200) for step in range(200)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3)
    assert max(rates) == rates[9]
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert 0 < rates[-1] < 1e-3
    flat = learning_rate(0, settings.model_copy(update={"warmup_steps": 0}), 200)
    assert flat == 1.0


@pytest.mark.parametrize(
    ("processes", "chosen", "expected"),
    [
        (("1", "1"), None, False),
        (("2", "2"), None, True),
        (("4", "2"), None, False),
        (("2", "2"), "eth7", False),
    ],
)
def test_processes_of_one_machine_meet_on_loopback(
    monkeypatch: pytest.MonkeyPatch, processes: tuple[str, str], chosen: str | None, expected: bool
) -> None:
    """Only where all of them are on this machine, and never over the user's own choice."""
    for name, value in zip(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), processes, strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", chosen or "unset")
    if chosen is None:
        monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    surroundings.stay_on_loopback()
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    assert (os.environ.get("GLOO_SOCKET_IFNAME") == loopback) == expected
    assert chosen is None or os.environ["GLOO_SOCKET_IFNAME"] == chosen


@pytest.mark.parametrize(
    "words",
    [
        ("--lora.rank", "4", "--lora.alpha", "3"),
        ("--lora.rank", "8", "--lora.use_rslora", "true"),
        ("--lora.use_dora", "true"),
        ("--lora.use_dora", "true", "--lora.components", "unet", "text_encoder"),
    ],
)
def test_half_precision_is_proved_by_the_same_rounding(
    argv: Argv, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Both files, whatever the scale: nothing is rounded otherwise when it is loaded back."""
    out = tmp_path / "run"
    assert run_program(lora.main, argv(out, "--dtype", "bf16", *words)) == 0
    assert read_manifest(out)["facts"]["difference"] == 0


def test_a_dry_run_draws_a_row_of_samples(
    argv: Argv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a run would draw them: what decoding takes shows before the training, not after."""
    drawn = []
    monkeypatch.setattr(rehearsal, "draw_grid", lambda *given: drawn.append(given))
    assert run_program(lora.main, argv(tmp_path / "run", "--dry-run")) == 0
    assert not drawn
    assert run_program(lora.main, argv(tmp_path / "run", "--dry-run", "--samples.every", "3")) == 0
    [(_, texts, row, side, _)] = drawn
    assert set(texts) == {*row.prompts, ""} and len(row.prompts) == 1 and side == 16
